// What is there, what it saves, what happened last.

import { storageChart } from "../charts/storage.js";
import { all, get, path } from "../core/api.js";
import { el } from "../core/dom.js";
import { bytes, count, moment, number, ratio } from "../core/format.js";
import { asTable, badge, figures, modelLink, panel, sizeBar, stageBadge, versionLink, when } from "../parts/bits.js";
import { refreshing } from "../parts/live.js";
import { empty, region } from "../parts/states.js";
import { table } from "../parts/table.js";
import { changeRows } from "./changes.js";

const RECENT_MODELS = 6;
const RECENT = 12;

export function show({ signal }) {
  const storage = region(signal, () => get("storage", {}, { signal }), storageParts, { label: "Storage" });
  const models = region(signal, () => all("models", {}, { signal }), modelTable, { label: "Models" });
  const changes = region(signal, () => recent(signal), changeRows, { label: "Changes" });
  refreshing(signal, ["registry"], [storage, models, changes]);
  return {
    title: "Overview",
    content: [storage.root, panel("Models", models.root), panel("Recent changes", changes.root)],
  };
}

function storageParts(storage) {
  if (!storage.versions) return null;
  const whole = storage.logical_bytes;
  return [
    figures([
      { label: "Models", value: number(storage.models), note: count(storage.versions, "version") },
      { label: "Stored", value: bytes(storage.stored_bytes), note: `of ${bytes(whole)} whole` },
      { label: "Saved", value: bytes(storage.saved_bytes), note: whole ? `${((100 * storage.saved_bytes) / whole).toFixed(1)} %` : "" },
      { label: "Ratio", value: ratio(whole, storage.stored_bytes) },
    ]),
    storage.points.length > 1 && panel("Storage over time", storageChart(storage.points), asTable("The same as a table", () => pointTable(storage.points))),
  ];
}

function pointTable(points) {
  return table(
    [
      { key: "at", label: "Time", value: (row) => row.at, cell: (row) => moment(row.at, true) },
      { key: "version", label: "Version", value: (row) => `${row.model}@${row.version}`, cell: (row) => versionLink(row.model, row.version, `${row.model}@${row.version}`) },
      { key: "whole", label: "Whole", numeric: true, value: (row) => row.logical_bytes, cell: (row) => bytes(row.logical_bytes) },
      { key: "stored", label: "Stored", numeric: true, value: (row) => row.stored_bytes, cell: (row) => bytes(row.stored_bytes) },
    ],
    points,
    { caption: "Storage over time", sort: { key: "at", descending: true }, pageSize: 50 },
  );
}

function modelTable({ items, complete }) {
  if (!items.length) {
    return empty(
      "No models yet",
      "Push a safetensors file or a Hugging Face directory; it shows here as soon as it is there.",
      "textnlp-fast push my-model/ my-model@1.0.0",
    );
  }
  const most = Math.max(...items.map((row) => row.stored_bytes));
  return table(
    [
      { key: "name", label: "Model", class: "name", value: (row) => row.name, cell: (row) => modelLink(row.name) },
      { key: "latest", label: "Latest", value: (row) => row.latest, cell: (row) => (row.latest ? versionLink(row.name, row.latest) : "–") },
      { key: "versions", label: "Versions", numeric: true, hide: "narrow", value: (row) => row.versions, cell: (row) => number(row.versions) },
      { key: "names", label: "Stages, aliases", sort: false, class: "badges", hide: "narrow", cell: names },
      { key: "stored", label: "Stored", numeric: true, value: (row) => row.stored_bytes, cell: (row) => sizeBar(row.stored_bytes, most) },
      { key: "ratio", label: "Ratio", numeric: true, hide: "narrow", value: (row) => row.logical_bytes / (row.stored_bytes || 1), cell: (row) => ratio(row.logical_bytes, row.stored_bytes) },
      { key: "updated", label: "Changed", value: (row) => row.updated_at, cell: (row) => when(row.updated_at) },
    ],
    items,
    {
      caption: "Models",
      complete,
      noun: "model",
      pageSize: 50,
      sort: { key: "updated", descending: true },
      filter: (row) => [row.name, ...Object.keys(row.stages), ...Object.keys(row.aliases), ...Object.entries(row.tags).flat()].join(" "),
      filterWords: "Filter by name, stage, alias, tag",
    },
  );
}

function names(row) {
  const stages = Object.entries(row.stages).filter(([stage]) => stage !== "draft" && stage !== "archived");
  return [
    stages.map(([stage, version]) => [stageBadge(stage), el("span", { class: "mono faint" }, version)]),
    Object.entries(row.aliases).map(([alias, version]) => [badge(alias, "alias"), el("span", { class: "mono faint" }, version)]),
  ];
}

/** The last changes of the models that changed last. */
async function recent(signal) {
  const { items } = await all("models", {}, { signal });
  const last = items.sort((left, right) => String(right.updated_at).localeCompare(String(left.updated_at))).slice(0, RECENT_MODELS);
  const pages = await Promise.all(
    last.map(async ({ name }) => {
      const page = await get(path("models", name, "changes"), { limit: RECENT }, { signal });
      return page.items.map((row) => ({ ...row, model: name }));
    }),
  );
  return pages.flat().sort((left, right) => right.at.localeCompare(left.at)).slice(0, RECENT);
}
