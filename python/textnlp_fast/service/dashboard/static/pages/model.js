// One model: its versions as a graph beside a table, what changed, and the way to a comparison.

import { graphWidth, lanes, versionGraph } from "../charts/version_graph.js";
import { get, path } from "../core/api.js";
import { el, fill, freshId } from "../core/dom.js";
import { bytes, count, number, ratio } from "../core/format.js";
import { link } from "../core/router.js";
import { badge, crumbs, figures, panel, sizeBar, stageBadge, versionLink, when } from "../parts/bits.js";
import { refreshing } from "../parts/live.js";
import { empty, region } from "../parts/states.js";
import { changeRows } from "./changes.js";

const PAGE = 50;

export function show({ params: { name }, signal }) {
  const graph = region(signal, () => get(path("models", name, "graph"), {}, { signal }), (data) => graphParts(name, data), { label: "Versions" });
  const changes = region(signal, () => get(path("models", name, "changes"), { limit: 20 }, { signal }), (page) => changeRows(page.items), { label: "Changes" });
  refreshing(signal, ["registry"], [graph, changes]);
  return {
    title: name,
    content: [crumbs(el("a", { href: "#/" }, "Models"), el("span", { "aria-current": "page" }, name)), graph.root, panel("Changes", changes.root)],
  };
}

function graphParts(name, { nodes, edges }) {
  if (!nodes.length) return empty("No versions", "All versions of this model are gone.", `textnlp-fast push my-model/ ${name}@1.0.0`);
  const rows = [...nodes].sort((left, right) => (right.created_at ?? "").localeCompare(left.created_at ?? "") || higher(right, left));
  const logical = sum(rows, "logical_bytes");
  const stored = sum(rows, "stored_bytes");
  const targets = new Set(rows.flatMap((row) => row.targets)).size;
  return [
    figures([
      { label: "Versions", value: number(rows.length), note: count(rows.filter((row) => row.pinned).length, "pin") },
      { label: "Stored", value: bytes(stored), note: `of ${bytes(logical)} whole` },
      { label: "Ratio", value: ratio(logical, stored) },
      { label: "Served by", value: number(targets), note: targets === 1 ? "target" : "targets" },
    ]),
    rows.length > 1 && compare(name, rows),
    panel("Versions", graphKey(), versionRows(name, rows, edges)),
  ];
}

function higher(left, right) {
  return left.version.localeCompare(right.version, "en", { numeric: true });
}

function sum(rows, key) {
  return rows.reduce((total, row) => total + row[key], 0);
}

function graphKey() {
  return el(
    "p",
    { class: "graph-key faint" },
    el("span", {}, el("i", { class: "key-dot whole" }), "stored by itself"),
    el("span", {}, el("i", { class: "key-dot" }), "stored as a change"),
    el("span", {}, el("i", { class: "key-line parent" }), "parent"),
    el("span", {}, el("i", { class: "key-line base" }), "coded against"),
  );
}

function compare(name, rows) {
  const options = rows.map((row) => row.version);
  const pick = (key, label, value) =>
    el("label", { class: "field inline" }, el("span", {}, label), el("select", { name: key }, options.map((each) => el("option", { value: each, selected: each === value }, each))));
  const form = el(
    "form",
    {
      class: "row compare",
      "aria-label": "Compare two versions",
      onsubmit: (event) => {
        event.preventDefault();
        const { from, to } = Object.fromEntries(new FormData(form));
        location.hash = link(["models", name, "diff"], { from, to });
      },
    },
    pick("from", "Compare", rows[0].parent && options.includes(rows[0].parent) ? rows[0].parent : options[1]),
    pick("to", "with", options[0]),
    el("button", { type: "submit" }, "Show the difference"),
  );
  return form;
}

// --- the graph and its rows -----------------------------------------------------------------------------------------

function versionRows(name, rows, edges) {
  const state = { page: 0, words: "" };
  const id = freshId("versions");
  const most = Math.max(...rows.map((row) => row.stored_bytes));
  const holder = el("div");
  const pager = el("nav", { class: "pager", "aria-label": "Pages of versions" });
  // The picture points from what is newer to what it came of.
  const turned = edges.map((edge) => ({ from: edge.to, to: edge.from, kind: edge.kind }));

  function draw() {
    const words = state.words.toLowerCase();
    const kept = words ? rows.filter((row) => searched(row).includes(words)) : rows;
    const pages = Math.max(1, Math.ceil(kept.length / PAGE));
    state.page = Math.min(state.page, pages - 1);
    const shown = kept.slice(state.page * PAGE, (state.page + 1) * PAGE);
    fill(holder, shown.length ? graphTable(name, id, shown, turned, most) : el("p", { class: "faint" }, "No version matches."));
    const go = (by, words) =>
      el("button", { type: "button", class: "quiet", data: { by }, disabled: state.page + by < 0 || state.page + by >= pages, onclick: () => turn(by) }, words);
    fill(pager, pages > 1 && [el("span", { class: "faint", role: "status" }, `${number(state.page * PAGE + 1)}–${number(state.page * PAGE + shown.length)} of ${count(kept.length, "version")}`), go(-1, "Newer"), go(1, "Older")]);
  }

  function turn(by) {
    state.page += by;
    draw();
    const again = pager.querySelector(`[data-by="${by}"]`);
    (again?.disabled ? pager.querySelector("button:not(:disabled)") : again)?.focus();
  }

  draw();
  const field = el("input", {
    type: "search",
    "aria-label": "Filter versions",
    "aria-controls": id,
    placeholder: "Filter by version, stage, alias, tag, note",
    oninput: () => {
      state.words = field.value.trim();
      state.page = 0;
      draw();
    },
  });
  return [rows.length > 8 && el("div", { class: "tools" }, field), holder, pager];
}

function searched(row) {
  return [row.version, row.stage, ...row.aliases, ...Object.entries(row.tags).flat(), row.note, row.author ?? "", row.pinned ? "pinned" : ""].join(" ").toLowerCase();
}

function graphTable(name, id, rows, edges, most) {
  const lane = lanes(rows);
  const width = graphWidth(lane);
  const spot = el("td", { class: "graph-cell", rowspan: rows.length, "aria-hidden": "true", style: { width: `${width}px`, "min-width": `${width}px` } });
  let lit = () => {};
  const lines = rows.map((row, place) => {
    const focus = () => lit(row.version);
    return el("tr", { onpointerenter: focus, onfocusin: focus }, place === 0 && spot, cells(name, row, most));
  });
  const heads = ["Version", "Parent", "Coded against", "Stored", "Ratio", "By", "Created"];
  const hidden = { Parent: "hide-medium", "Coded against": "hide-medium", Ratio: "hide-medium", By: "hide-narrow", Created: "hide-narrow" };
  const body = el("tbody", {}, lines);
  const root = el(
    "table",
    { class: "versions", id },
    el("caption", { class: "only-heard" }, `Versions of ${name}, the newest first`),
    el("thead", {}, el("tr", {}, el("td", { class: "graph-head" }), heads.map((each) => el("th", { scope: "col", class: [hidden[each], ["Stored", "Ratio"].includes(each) && "num"].filter(Boolean).join(" ") || null }, each)))),
    body,
  );
  const redraw = () => {
    const top = lines[0].offsetTop;
    const middles = lines.map((line) => line.offsetTop - top + Math.min(line.offsetHeight / 2, 19));
    const drawn = versionGraph({ rows, lane, middles, height: body.offsetHeight, edges });
    lit = drawn.light;
    fill(spot, el("div", { class: "graph-holder" }, drawn.root));
  };
  new ResizeObserver(redraw).observe(body);
  return el("div", { class: "scroller", role: "region", tabindex: "0", "aria-label": `Versions of ${name}` }, root);
}

function cells(name, row, most) {
  const other = (version) => (version ? (version.includes("@") ? el("span", { class: "mono" }, version) : versionLink(name, version)) : "–");
  return [
    el(
      "th",
      { scope: "row" },
      el("div", { class: "badges" }, versionLink(name, row.version), stageBadge(row.stage), row.aliases.map((each) => badge(each, "alias")), row.pinned && badge("pinned", "pin"), row.signed && badge("signed", "signed"), row.targets.map((each) => badge(`serves ${each}`, "serves"))),
      row.problem ? el("div", { class: "wrong" }, row.problem) : row.note && el("div", { class: "note faint", title: row.note }, row.note),
    ),
    el("td", { class: "hide-medium" }, other(row.parent)),
    el("td", { class: "hide-medium", title: row.reason || null }, row.base_version ? other(row.base_version) : el("span", { class: "faint" }, "itself")),
    el("td", { class: "num" }, sizeBar(row.stored_bytes, most)),
    el("td", { class: "num hide-medium" }, ratio(row.logical_bytes, row.stored_bytes)),
    el("td", { class: "hide-narrow" }, row.author ?? "–"),
    el("td", { class: "hide-narrow" }, when(row.created_at)),
  ];
}
