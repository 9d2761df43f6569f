// An autoscaler's decisions over time: replicas that serve and that are wanted above, load and forecast below, on one
// time axis and with one cursor, and no second scale to mistake for the first.

import { el, svg } from "../core/dom.js";
import { asDate, figure, moment } from "../core/format.js";
import { chart, legend, pathOf, timeAxis, valueAxis } from "./frame.js";
import { thinned } from "./scales.js";

const HEIGHT = 300;
const GAP = 40;

/** `rows` as the API has them, newest first; `onSelect(row)`. */
export function decisionChart(rows, onSelect) {
  const points = rows
    .map((row) => ({ ...row, at: asDate(row.at)?.getTime(), row }))
    .filter((row) => row.at !== undefined)
    .sort((left, right) => left.at - right.at);
  const replicas = highest(points, ["replicas", "wanted"]);
  const load = highest(points, ["load", "forecast"]);
  const made = chart({
    label: "Decisions over time: replicas, load and forecast",
    height: HEIGHT,
    points,
    onSelect: (point) => onSelect(point.row),
    words: (point) => [
      moment(point.at, true),
      `wanted: ${figure(point.wanted)}, serving: ${figure(point.replicas)}`,
      `load: ${figure(point.load)}, forecast: ${figure(point.forecast)}`,
    ],
    marks: (point, plot) =>
      [
        [point.replicas, plot.y, "serving"],
        [point.wanted, plot.y, "wanted"],
        [point.load, plot.below, "load"],
        [point.forecast, plot.below, "forecast"],
      ]
        .filter(([value]) => value !== null && value !== undefined)
        .map(([value, y, name]) => [y(value), name]),
    draw(plot) {
      const middle = plot.top + 14 + (plot.bottom - plot.top - GAP) / 2;
      timeAxis(plot, points[0].at, points.at(-1).at);
      plot.y = valueAxis(plot, Math.max(1, replicas), figure, { top: plot.top + 14, bottom: middle, about: 3, whole: true, name: "replicas" });
      plot.below = valueAxis(plot, Math.max(1, load), figure, { top: middle + GAP - 6, about: 3, name: "load, in replicas" });
      const path = (key, y, step) => {
        const line = thinned(points, (point) => point[key] ?? 0).map((point) => [point.at, point[key]]);
        return svg("path", { d: pathOf(line, plot.x, y, step), class: `line ${key === "replicas" ? "serving" : key}` });
      };
      plot.root.append(path("forecast", plot.below), path("load", plot.below), path("replicas", plot.y, true), path("wanted", plot.y, true));
    },
  });
  const key = legend([
    ["wanted", "wanted"],
    ["serving", "serving"],
    ["load", "load"],
    ["forecast", "forecast"],
  ]);
  return { root: el("div", {}, key, made.root), go: made.go, points };
}

function highest(points, keys) {
  return Math.max(0, ...points.flatMap((point) => keys.map((key) => point[key] ?? 0)));
}
