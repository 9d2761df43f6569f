// What line charts share: a box that follows the page's width, axes with units, and a cursor that mouse, finger and
// arrow keys move alike. The cursor is a slider to those who listen: each point is read out as it is reached.

import { el, svg } from "../core/dom.js";
import { hideTip, showTip } from "../parts/tooltip.js";
import { linear, ticks, timeTicks } from "./scales.js";

const MARGIN = { top: 10, right: 16, bottom: 24, left: 64 };

/**
 * `draw(plot)` draws into `plot.root` for the width there is now; it runs again when that changes.
 * `points`: [{at (ms), ...}] for the cursor; `words(point)` -> lines of text; `marks(point)` -> values to mark.
 */
export function chart({ label, height = 220, points, words, draw, marks, onSelect, start }) {
  const picture = svg("svg", { class: "chart-svg", height, "aria-hidden": "true" });
  const box = el(
    "div",
    {
      class: "chart",
      role: "slider",
      tabindex: "0",
      "aria-label": label,
      "aria-valuemin": 0,
      "aria-valuemax": Math.max(0, points.length - 1),
      "aria-orientation": "horizontal",
    },
    picture,
  );
  const state = { index: start ?? points.length - 1, plot: null, cursor: null };

  function redraw() {
    const width = Math.max(240, box.clientWidth || 600);
    const left = width < 480 ? 52 : MARGIN.left;
    const plot = { root: svg("g"), width, height, left, right: width - MARGIN.right, top: MARGIN.top, bottom: height - MARGIN.bottom };
    picture.setAttribute("viewBox", `0 0 ${width} ${height}`);
    picture.setAttribute("width", width);
    picture.replaceChildren(plot.root);
    draw(plot);
    state.plot = plot;
    state.cursor = svg("g", { class: "cursor" });
    picture.append(state.cursor);
    mark();
  }

  function mark() {
    const point = points[state.index];
    if (!point || !state.plot) return;
    box.setAttribute("aria-valuenow", state.index);
    box.setAttribute("aria-valuetext", words(point).join(", "));
    const { x, top, bottom } = state.plot;
    state.cursor.replaceChildren(
      svg("line", { x1: x(point.at), x2: x(point.at), y1: top, y2: bottom, class: "cursor-line" }),
      ...(marks?.(point, state.plot) ?? []).map(([place, name]) =>
        svg("circle", { cx: x(point.at), cy: place, r: 3.5, class: `dot ${name}` }),
      ),
    );
  }

  function tip() {
    const point = points[state.index];
    if (!point || !state.plot) return;
    const at = picture.getBoundingClientRect();
    const place = at.left + (state.plot.x(point.at) / state.plot.width) * at.width;
    showTip({ left: place, width: 0, top: at.top + 6, bottom: at.bottom }, words(point));
  }

  function go(index) {
    const next = Math.max(0, Math.min(points.length - 1, index));
    state.index = next;
    box.classList.add("in-use");
    mark();
    tip();
    onSelect?.(points[next]);
  }

  const moves = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -10, PageUp: 10 };
  box.addEventListener("keydown", (event) => {
    if (event.key in moves) go(state.index + moves[event.key]);
    else if (event.key === "Home") go(0);
    else if (event.key === "End") go(points.length - 1);
    else return;
    event.preventDefault();
  });
  const point = (event) => {
    if (!state.plot || !points.length) return;
    const at = picture.getBoundingClientRect();
    go(nearest(points, state.plot.x.back(((event.clientX - at.left) / at.width) * state.plot.width)));
  };
  box.addEventListener("pointermove", point);
  box.addEventListener("pointerdown", point);
  box.addEventListener("focus", () => {
    box.classList.add("in-use");
    if (box.matches(":focus-visible")) tip();
  });
  const rest = () => {
    hideTip();
    if (document.activeElement !== box) box.classList.remove("in-use");
  };
  box.addEventListener("pointerleave", rest);
  box.addEventListener("blur", () => {
    hideTip();
    box.classList.remove("in-use");
  });
  const watch = new ResizeObserver(redraw);
  watch.observe(box);
  redraw();
  return { root: box, go };
}

/** The place of the point nearest to a moment. */
export function nearest(points, at) {
  let low = 0;
  let high = points.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (points[middle].at < at) low = middle;
    else high = middle;
  }
  return Math.abs(points[low]?.at - at) <= Math.abs(points[high]?.at - at) ? low : high;
}

/** Lines and numbers for values, from `plot.top` to `plot.bottom` or between the two given. Returns the scale. */
export function valueAxis(plot, high, write, { low = 0, top = plot.top, bottom = plot.bottom, about = 4, whole = false, name = "" } = {}) {
  let values = ticks(low, high, about);
  if (whole) values = values.filter(Number.isInteger);
  // The axis ends at a round number, above the highest value.
  const step = values.length > 1 ? values[1] - values[0] : 0;
  if (step && values.at(-1) < high) values.push(Number((values.at(-1) + step).toPrecision(12)));
  const end = Math.max(high, values.at(-1) ?? high) || 1;
  const y = linear(low, end, bottom, top);
  for (const value of values) {
    plot.root.append(
      svg("line", { x1: plot.left, x2: plot.right, y1: y(value), y2: y(value), class: value === low ? "axis" : "grid" }),
      svg("text", { x: plot.left - 8, y: y(value) + 4, class: "tick end" }, write(value)),
    );
  }
  if (name) plot.root.append(svg("text", { x: plot.left, y: top - 8, class: "tick name" }, name));
  return y;
}

/** Moments along the bottom. Sets `plot.x`. */
export function timeAxis(plot, low, high) {
  const span = high - low || 60_000;
  const pad = high > low ? 0 : span / 2;
  plot.x = linear(low - pad, high + pad, plot.left, plot.right);
  const width = plot.right - plot.left;
  for (const [at, words] of timeTicks(low - pad, high + pad, Math.max(3, Math.floor(width / 90)))) {
    const x = plot.x(at);
    if (x > plot.right - 12 && x < plot.right) continue;
    plot.root.append(
      svg("line", { x1: x, x2: x, y1: plot.bottom, y2: plot.bottom + 4, class: "axis" }),
      svg("text", { x, y: plot.bottom + 17, class: "tick middle" }, words),
    );
  }
}

/** Names along the bottom, as many as there is room for: of points that stand one after another. Sets `plot.x`. */
export function orderAxis(plot, points, name) {
  plot.x = linear(0, Math.max(1, points.length - 1), plot.left, plot.right);
  const every = Math.ceil((points.length * 90) / (plot.right - plot.left));
  points.forEach((point, place) => {
    if (place % every) return;
    const x = plot.x(place);
    const side = place === 0 ? "" : x > plot.right - 30 ? "end" : "middle";
    plot.root.append(
      svg("line", { x1: x, x2: x, y1: plot.bottom, y2: plot.bottom + 4, class: "axis" }),
      svg("text", { x, y: plot.bottom + 17, class: `tick ${side}` }, shortened(name(point))),
    );
  });
}

function shortened(text) {
  return text.length > 13 ? `${text.slice(0, 12)}…` : text;
}

/** A path through points; `step` holds a value until the next one. Gaps (null) interrupt it. */
export function pathOf(points, x, y, step = false) {
  let words = "";
  let before = null;
  for (const [at, value] of points) {
    if (value === null || value === undefined) {
      before = null;
      continue;
    }
    const [px, py] = [x(at).toFixed(1), y(value).toFixed(1)];
    if (before === null) words += `M${px} ${py}`;
    else words += step ? `H${px}V${py}` : `L${px} ${py}`;
    before = value;
  }
  return words;
}

/** What the lines mean: [[class, words]]. */
export function legend(entries) {
  return el(
    "ul",
    { class: "legend" },
    entries.map(([name, words]) => el("li", {}, svg("svg", { width: 22, height: 10, "aria-hidden": "true" }, svg("path", { d: "M1 5H21", class: `line ${name}` })), words)),
  );
}
