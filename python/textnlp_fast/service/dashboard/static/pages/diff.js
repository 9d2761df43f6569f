// What an update did: a heat map of layers by parts, the same as a table, and the tensors that changed most.

import { heatLegend, heatMap } from "../charts/heat_map.js";
import { get, path } from "../core/api.js";
import { el, fill } from "../core/dom.js";
import { bytes, count, figure, number, percent } from "../core/format.js";
import { note } from "../core/router.js";
import { asTable, badge, choice, crumbs, figures, modelLink, panel, versionLink } from "../parts/bits.js";
import { empty, region } from "../parts/states.js";
import { table } from "../parts/table.js";

// A difference reads both versions and measures each weight: minutes for large models.
const LIMIT_MS = 11 * 60_000;

const MEASURES = {
  changed: { label: "Changed", value: (cell) => cell.changed_fraction, write: percent, words: "share of weights that changed" },
  norm: { label: "Norm", value: (cell) => cell.norm, write: figure, words: "L2 norm of the change" },
  bytes: { label: "Bytes", value: (cell) => cell.stored_bytes, write: bytes, words: "bytes that the newer version takes in the repository" },
};

export function show({ params: { name }, query, signal }) {
  const { from, to } = query;
  const where = crumbs(el("a", { href: "#/" }, "Models"), modelLink(name), el("span", { "aria-current": "page" }, "difference"));
  if (!from || !to) {
    return { title: `Differences of ${name}`, content: [where, empty("Two versions are needed", "Choose them on the model's page.", `textnlp-fast diff ${name}@1.0.0 1.1.0`)] };
  }
  const load = () => get(path("models", name, "diff"), { from, to }, { signal, limitMs: LIMIT_MS });
  const { root } = region(signal, load, (data) => parts(data, query.by), { label: "Difference" });
  const ends = el("p", { class: "faint" }, "From ", versionLink(name, from), " to ", versionLink(name, to));
  return { title: `${name}: ${from} to ${to}`, content: [where, ends, root] };
}

function parts({ summary, layers, parts: columns, cells, tensors }, by) {
  return [
    figures([
      { label: "Weights changed", value: percent(summary.changed_fraction), note: `of ${number(summary.elements)}` },
      { label: "Tensors changed", value: number(summary.changed_tensors), note: `of ${number(summary.tensors)}${beside(summary)}` },
      { label: "Norm of the change", value: figure(summary.norm), note: summary.relative_norm === null ? "" : `${percent(summary.relative_norm)} of the weights'` },
      { label: "Stored", value: bytes(summary.stored_bytes), note: `of ${bytes(summary.logical_bytes)}` },
    ]),
    cells.length > 0 && heatPanel(layers, columns, cells, by in MEASURES ? by : "changed"),
    panel("Tensors that changed most", tensorTable(tensors)),
  ];
}

function beside({ added, removed }) {
  return [added && `, ${number(added)} added`, removed && `, ${number(removed)} removed`].filter(Boolean).join("");
}

function heatPanel(layers, columns, cells, by) {
  const of = new Map(cells.map((cell) => [`${cell.layer}\n${cell.part}`, cell]));
  const holder = el("div");
  const about = el("p", { class: "faint", role: "status" });
  const draw = (key) => {
    const measure = MEASURES[key];
    const most = Math.max(...cells.map((cell) => measure.value(cell) ?? 0)) || 0;
    const map = heatMap({
      rows: layers.map((each) => ({ key: each.name, label: each.name })),
      columns: columns.map((each) => ({ key: each.name, label: each.name })),
      most,
      label: `Layers by parts: ${measure.words}`,
      cellOf(row, column) {
        const cell = of.get(`${row.key}\n${column.key}`);
        if (!cell) return null;
        const value = measure.value(cell);
        return { value: value ?? 0, words: measure.write(value), lines: linesOf(cell), cell };
      },
      onFocus: () => {},
    });
    about.textContent = `Colour: ${measure.words}. Arrow keys walk the squares.`;
    fill(holder, map, most > 0 && heatLegend(most, measure.write));
  };
  draw(by);
  const pick = choice("What the colours show", Object.entries(MEASURES).map(([key, { label }]) => [key, label]), by, (key) => {
    note({ by: key });
    draw(key);
  });
  return panel("Layers by parts", el("div", { class: "row spread" }, pick, about), holder, asTable("The same as a table", () => cellTable(cells)));
}

function linesOf(cell) {
  return [
    `${/^\d+$/.test(cell.layer) ? `layer ${cell.layer}` : cell.layer}, ${cell.part}`,
    `changed: ${percent(cell.changed_fraction)}`,
    `norm: ${figure(cell.norm)}${cell.relative_norm === null ? "" : ` (${percent(cell.relative_norm)} of the weights')`}`,
    `stored: ${bytes(cell.stored_bytes)} of ${bytes(cell.logical_bytes)}`,
    `${count(cell.tensors, "tensor")}${cell.strategy ? `, ${cell.strategy}` : ""}`,
  ];
}

const SHARED = [
  { key: "changed", label: "Changed", numeric: true, value: (row) => row.changed_fraction, cell: (row) => percent(row.changed_fraction) },
  { key: "norm", label: "Norm", numeric: true, value: (row) => row.norm, cell: (row) => figure(row.norm) },
  { key: "stored", label: "Stored", numeric: true, value: (row) => row.stored_bytes, cell: (row) => bytes(row.stored_bytes) },
  { key: "size", label: "Size", numeric: true, hide: "narrow", value: (row) => row.logical_bytes, cell: (row) => bytes(row.logical_bytes) },
  { key: "strategy", label: "Coding", hide: "narrow", value: (row) => row.strategy, cell: (row) => (row.strategy ? badge(row.strategy) : "–") },
];

function cellTable(cells) {
  return table(
    [
      { key: "layer", label: "Layer", value: (row) => row.layer },
      { key: "part", label: "Part", value: (row) => row.part },
      ...SHARED,
      { key: "tensors", label: "Tensors", numeric: true, hide: "narrow", value: (row) => row.tensors },
    ],
    cells,
    { caption: "Layers by parts", pageSize: 50, noun: "square" },
  );
}

function tensorTable(tensors) {
  return table(
    [
      { key: "name", label: "Tensor", value: (row) => row.name, class: "mono" },
      { key: "status", label: "What", value: (row) => row.status, cell: (row) => badge(row.status) },
      ...SHARED,
      { key: "max", label: "Largest change", numeric: true, hide: "narrow", value: (row) => row.max_change, cell: (row) => figure(row.max_change) },
    ],
    tensors,
    { caption: "Tensors that changed most", noun: "tensor", pageSize: 25, filter: (row) => `${row.name} ${row.status} ${row.strategy ?? ""}`, filterWords: "Filter by name", none: "No tensor changed." },
  );
}
