// What an update did: layers down, parts across, one square a cell. A grid that arrow keys walk, with one tab stop.

import { el, svg } from "../core/dom.js";
import { hideTip, showTip } from "../parts/tooltip.js";

const STEPS = 9; // classes .heat-0 (nothing) to .heat-9 of the stylesheet, each with letters that can be read on it
const HEAD = 26;
const SIDE = 76;

/**
 * `rows`, `columns`: [{key, label}]; `cellOf(row, column)` -> {value, words, lines} or null; `most`: the value of the
 * darkest step; `label` names the grid; `onFocus(cell)`.
 */
export function heatMap({ rows, columns, cellOf, most, label, onFocus }) {
  const holder = el("div", { class: "heat-scroll" });
  const grid = svg("svg", { class: "heat", role: "grid", "aria-label": label, "aria-rowcount": rows.length + 1, "aria-colcount": columns.length + 1 });
  const high = rows.length > 24 ? 22 : 30;
  const places = new Map();
  let current = null;

  function draw(width) {
    const wide = Math.max(52, Math.min(190, (width - SIDE - 2) / Math.max(1, columns.length)));
    const total = { width: SIDE + wide * columns.length + 2, height: HEAD + high * rows.length + 2 };
    grid.setAttribute("viewBox", `0 0 ${total.width} ${total.height}`);
    grid.setAttribute("width", total.width);
    grid.setAttribute("height", total.height);
    places.clear();
    grid.replaceChildren(
      headRow(wide),
      ...rows.map((row, place) => bodyRow(row, place, wide)),
    );
    const first = places.get(current) ?? places.values().next().value;
    first?.setAttribute("tabindex", "0");
  }

  function headRow(wide) {
    return svg(
      "g",
      { role: "row" },
      columns.map((column, place) =>
        svg(
          "text",
          { x: SIDE + wide * (place + 0.5), y: HEAD - 9, class: "tick middle", role: "columnheader" },
          cut(column.label, wide),
        ),
      ),
    );
  }

  function bodyRow(row, place, wide) {
    const y = HEAD + high * place;
    const header = svg("text", { x: SIDE - 8, y: y + high / 2 + 4, class: "tick end", role: "rowheader" }, row.label);
    return svg("g", { role: "row" }, header, columns.map((column, across) => square(row, column, place, across, SIDE + wide * across, y, wide)));
  }

  function square(row, column, place, across, x, y, wide) {
    const cell = cellOf(row, column);
    const shared = { x: x + 1, y: y + 1, width: wide - 2, height: high - 2 };
    if (!cell) return svg("rect", { ...shared, class: "heat-none", role: "gridcell", "aria-label": `${row.label}, ${column.label}: no such tensors` });
    const step = cell.value > 0 && most > 0 ? Math.max(1, Math.ceil(Math.min(1, cell.value / most) * STEPS)) : 0;
    const key = `${place}/${across}`;
    const node = svg(
      "g",
      { role: "gridcell", tabindex: "-1", class: `cell heat-${step}`, "aria-label": cell.lines.join(", "), data: { key } },
      svg("rect", shared),
      wide >= 48 && svg("text", { x: x + wide / 2, y: y + high / 2 + 4, class: "cell-words middle" }, cell.words),
    );
    node.addEventListener("focus", () => enter(key, cell));
    node.addEventListener("pointerenter", () => showTip(node.getBoundingClientRect(), cell.lines));
    node.addEventListener("pointerleave", hideTip);
    node.addEventListener("click", () => node.focus());
    places.set(key, node);
    return node;
  }

  function enter(key, cell) {
    places.get(current)?.setAttribute("tabindex", "-1");
    for (const node of places.values()) if (node.getAttribute("tabindex") === "0") node.setAttribute("tabindex", "-1");
    current = key;
    places.get(key).setAttribute("tabindex", "0");
    showTip(places.get(key).getBoundingClientRect(), cell.lines);
    onFocus?.(cell);
  }

  grid.addEventListener("keydown", (event) => {
    const moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    const [place, across] = (current ?? "0/0").split("/").map(Number);
    let target = null;
    if (event.key in moves) target = walk(place, across, ...moves[event.key]);
    else if (event.key === "Home") target = edge(place, event.ctrlKey, 1);
    else if (event.key === "End") target = edge(place, event.ctrlKey, -1);
    else return;
    event.preventDefault();
    if (target) target.focus();
  });

  /** The next square that way: straight on, or else the nearest of the next row or column that has one. */
  function walk(place, across, down, right) {
    const ahead = [...places.keys()]
      .map((key) => key.split("/").map(Number))
      .map(([row, column]) => ({ row, column, far: (row - place) * down + (column - across) * right, aside: Math.abs(down ? column - across : row - place) }))
      .filter(({ far }) => far > 0)
      .sort((one, other) => Math.sign(one.aside) - Math.sign(other.aside) || one.far - other.far || one.aside - other.aside);
    return ahead.length ? places.get(`${ahead[0].row}/${ahead[0].column}`) : null;
  }

  function edge(place, whole, from) {
    const all = [...places.entries()].filter(([key]) => whole || key.startsWith(`${place}/`));
    return all.at(from > 0 ? 0 : -1)?.[1];
  }

  grid.addEventListener("focusout", hideTip);
  holder.append(grid);
  new ResizeObserver(([entry]) => draw(entry.contentRect.width)).observe(holder);
  draw(700);
  return holder;
}

/** The steps and what they stand for: `write(value)` writes one. */
export function heatLegend(most, write) {
  const wide = 26;
  const squares = Array.from({ length: STEPS + 1 }, (_, step) =>
    svg("rect", { x: step * wide + 1, y: 1, width: wide - 2, height: 12, class: `heat-${step}` }),
  );
  const words = [[0, "0"], [Math.round(STEPS / 2), write((most * Math.round(STEPS / 2)) / STEPS)], [STEPS, write(most)]];
  return svg(
    "svg",
    { class: "heat-key", viewBox: `-24 0 ${wide * (STEPS + 1) + 62} 30`, width: wide * (STEPS + 1) + 62, height: 30, role: "img", "aria-label": `Colours: from nothing to ${write(most)}` },
    squares,
    words.map(([step, text]) => svg("text", { x: (step + (step ? 1 : 0.5)) * wide, y: 27, class: "tick middle" }, text)),
  );
}

function cut(text, wide) {
  const most = Math.max(4, Math.floor(wide / 6.6));
  return text.length > most ? `${text.slice(0, most - 1)}…` : text;
}
