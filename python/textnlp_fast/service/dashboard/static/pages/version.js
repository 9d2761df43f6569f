// One version: what it is called, its files and tensors, its card, where it comes from.

import { all, get, path } from "../core/api.js";
import { el } from "../core/dom.js";
import { bytes, count, moment, number, percent, ratio, shape } from "../core/format.js";
import { link } from "../core/router.js";
import { session } from "../core/session.js";
import { badge, crumbs, digest, facts, figures, modelLink, panel, stageBadge, versionLink } from "../parts/bits.js";
import { refreshing } from "../parts/live.js";
import { markdown } from "../parts/markdown.js";
import { commandLine, empty, region } from "../parts/states.js";
import { table } from "../parts/table.js";
import { actionButtons } from "./version_actions.js";

export function show({ params: { name, version }, signal }) {
  const where = path("models", name, "versions", version);
  const detail = region(signal, () => get(where, {}, { signal }), (data) => detailParts(name, data, () => detail.reload({ quietly: true })), { label: "Version" });
  const tensors = region(signal, () => tensorRows(where, signal), tensorTable, { label: "Tensors" });
  refreshing(signal, ["registry"], [detail]);
  session.addEventListener("known", () => detail.reload({ quietly: true }), { signal });
  return {
    title: `${name}@${version}`,
    content: [
      crumbs(el("a", { href: "#/" }, "Models"), modelLink(name), el("span", { "aria-current": "page" }, version)),
      detail.root,
      panel("Tensors", tensors.root),
    ],
  };
}

function detailParts(name, row, reload) {
  const { files, card, card_metadata: cardFacts, metadata } = row;
  const lineage = row.lineage.filter((each) => each.relation); // without the version itself
  const parent = row.parent && !row.parent.includes("@") ? row.parent : null;
  return [
    el("div", { class: "badges lead" }, stageBadge(row.stage), row.aliases.map((each) => badge(each, "alias")), row.pinned && badge(row.pin_reason ? `pinned: ${row.pin_reason}` : "pinned", "pin"), row.signed && badge("signed", "signed"), row.targets.map((each) => badge(`serves ${each}`, "serves"))),
    row.problem && el("p", { class: "wrong" }, row.problem),
    figures([
      { label: "Whole", value: bytes(row.logical_bytes), note: count(files.length, "file") },
      { label: "Added to the repository", value: bytes(row.stored_bytes), note: row.base_version ? `against ${row.base_version}` : "by itself" },
      { label: "Ratio", value: ratio(row.logical_bytes, row.stored_bytes) },
      { label: "Tensors", value: number(row.tensors) },
    ]),
    el("div", { class: "row actions" }, commandLine(`textnlp-fast pull ${name}@${row.version} ${name.split("/").at(-1)}/`), el("div", { class: "row" }, parent && el("a", { class: "button", href: link(["models", name, "diff"], { from: parent, to: row.version }) }, `What changed since ${parent}`), session.may("publisher") && actionButtons(name, row, reload))),
    panel(
      "About",
      facts([
        ["Note", row.note],
        ["Created", row.created_at && moment(row.created_at)],
        ["By", row.author],
        ["Parent", row.parent && (parent ? versionLink(name, parent) : row.parent)],
        ["Coded against", row.base_version ?? "itself"],
        ["Why", row.reason],
        ...Object.entries(row.tags).map(([key, value]) => [`Tag ${key}`, value || "set"]),
        ...Object.entries(metadata).filter(([key]) => !key.startsWith("lineage.")),
      ], { wide: true }),
    ),
    panel("Lineage", lineageList(lineage)),
    panel("Card", cardParts(name, row.version, card, cardFacts)),
    panel("Files", fileTable(files)),
  ];
}

function cardParts(name, version, card, cardFacts) {
  const there = Object.entries(cardFacts ?? {});
  if (!card && !there.length) return empty("No card", "A README.md that is pushed with a model is shown here.", `textnlp-fast card ${name}@${version}`);
  return [
    there.length > 0 && facts(there.map(([key, value]) => [key, typeof value === "string" ? value : JSON.stringify(value)])),
    card && markdown(card),
  ];
}

function lineageList(lineage) {
  if (!lineage.length) return el("p", { class: "faint" }, "It starts here: no parent, no base model was named when it was pushed.");
  return el(
    "ul",
    { class: "lineage" },
    lineage.map((row) =>
      el(
        "li",
        { style: { "padding-left": `${Math.min(Math.max(row.depth - 1, 0), 8) * 18}px` } },
        el("span", { class: "faint" }, `${row.relation.replaceAll("_", " ")} `),
        row.version ? versionLink(row.name, row.version, `${row.name}@${row.version}`) : el("span", {}, row.name),
        row.of && el("span", { class: "faint" }, ` of ${row.of}`),
      ),
    ),
  );
}

function fileTable(files) {
  return table(
    [
      { key: "path", label: "Path", value: (row) => row.path, class: "mono" },
      { key: "size", label: "Size", numeric: true, value: (row) => row.size_bytes, cell: (row) => bytes(row.size_bytes) },
      { key: "digest", label: "BLAKE3", sort: false, hide: "narrow", value: (row) => row.digest, cell: (row) => digest(row.digest) },
    ],
    files,
    { caption: "Files", noun: "file", filter: (row) => row.path },
  );
}

function tensorRows(where, signal) {
  return all(`${where}/tensors`, {}, { signal });
}

function tensorTable({ items, complete }) {
  return table(
    [
      { key: "name", label: "Tensor", value: (row) => row.name, class: "mono" },
      { key: "dtype", label: "Type", value: (row) => row.dtype, class: "mono" },
      { key: "shape", label: "Shape", hide: "narrow", value: (row) => row.shape.reduce((one, other) => one * other, 1), cell: (row) => shape(row.shape), class: "mono" },
      { key: "size", label: "Size", numeric: true, value: (row) => row.size_bytes, cell: (row) => bytes(row.size_bytes) },
      { key: "stored", label: "Stored", numeric: true, value: (row) => row.stored_bytes, cell: (row) => bytes(row.stored_bytes) },
      { key: "part", label: "Of size", numeric: true, hide: "narrow", value: (row) => row.stored_bytes / (row.size_bytes || 1), cell: (row) => percent(row.stored_bytes / (row.size_bytes || 1)) },
      { key: "coding", label: "Coding", value: (row) => row.coding, cell: (row) => badge(row.coding, `coding-${row.coding}`) },
      { key: "depth", label: "Depth", numeric: true, hide: "narrow", value: (row) => row.depth },
    ],
    items,
    { caption: "Tensors", noun: "tensor", complete, pageSize: 100, filter: (row) => `${row.name} ${row.dtype} ${row.coding} ${row.file}`, filterWords: "Filter by name, type, coding" },
  );
}
