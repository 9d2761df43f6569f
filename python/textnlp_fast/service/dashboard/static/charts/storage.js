// Storage over time: what versions would take whole, what they take, and between the two what is saved.

import { el, fill, svg } from "../core/dom.js";
import { asDate, bytes, moment, ratio, roundBytes } from "../core/format.js";
import { choice } from "../parts/bits.js";
import { chart, legend, orderAxis, pathOf, timeAxis, valueAxis } from "./frame.js";
import { thinned } from "./scales.js";

// Versions that came within so short a time stand upon each other on an axis of time.
const SHORT_MS = 3_600_000;

/** `rows` as GET /storage has them, in time's order, sizes cumulative. */
export function storageChart(rows) {
  const points = rows
    .map((row) => ({ ...row, ms: asDate(row.at)?.getTime() }))
    .filter((row) => row.ms !== undefined)
    .sort((left, right) => left.ms - right.ms);
  const holder = el("div");
  const draw = (by) => fill(holder, picture(points.map((point, place) => ({ ...point, at: by === "time" ? point.ms : place })), by));
  const first = points.at(-1).ms - points[0].ms < SHORT_MS ? "version" : "time";
  draw(first);
  const pick = choice("Along the bottom", [["time", "By time"], ["version", "By version"]], first, draw);
  return el("div", {}, el("div", { class: "row spread" }, legend([["whole", "whole files"], ["stored", "stored"]]), pick), holder);
}

function picture(points, by) {
  return chart({
    label: "Storage over time",
    height: 240,
    points,
    words: (point) => [
      `${point.model}@${point.version}`,
      moment(point.ms),
      `whole: ${bytes(point.logical_bytes)}`,
      `stored: ${bytes(point.stored_bytes)}`,
      `saved: ${bytes(point.logical_bytes - point.stored_bytes)} (${ratio(point.logical_bytes, point.stored_bytes)})`,
    ],
    marks: (point, plot) => [
      [plot.y(point.logical_bytes), "whole"],
      [plot.y(point.stored_bytes), "stored"],
    ],
    draw(plot) {
      if (by === "time") timeAxis(plot, points[0].at, points.at(-1).at);
      else orderAxis(plot, points, (point) => point.version);
      const shown = thinned(points, (point) => point.logical_bytes);
      plot.y = valueAxis(plot, Math.max(...shown.map((point) => point.logical_bytes)), roundBytes);
      drawLines(plot, shown, by === "time");
    },
  }).root;
}

/** Over time sizes hold until the next version; one version after another they are points on a line. */
function drawLines(plot, shown, step) {
  const path = (key) => pathOf(shown.map((point) => [point.at, point[key]]), plot.x, plot.y, step);
  const back = [...shown].reverse().map((point, place) => {
    const [x, y] = [plot.x(point.at).toFixed(1), plot.y(point.stored_bytes).toFixed(1)];
    // Walked backwards, a step goes down before it goes left.
    return place === 0 || !step ? `L${x} ${y}` : `V${y}H${x}`;
  });
  plot.root.append(
    svg("path", { d: `${path("logical_bytes")}${back.join("")}Z`, class: "saved-area" }),
    svg("path", { d: path("logical_bytes"), class: "line whole" }),
    svg("path", { d: path("stored_bytes"), class: "line stored" }),
  );
}
