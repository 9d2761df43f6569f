// What a fleet has cost, and what it would have cost on demand.

import { el, svg } from "../core/dom.js";
import { asDate, dollars, moment } from "../core/format.js";
import { chart, legend, pathOf, timeAxis, valueAxis } from "./frame.js";
import { thinned } from "./scales.js";

/** `points` as GET /fleet/costs has them: spent and saved by a moment. */
export function costChart(rows) {
  const points = rows
    .map((row) => ({ ...row, at: asDate(row.at)?.getTime(), on_demand_usd: row.spent_usd + row.saved_usd }))
    .filter((row) => row.at !== undefined)
    .sort((left, right) => left.at - right.at);
  const { root } = chart({
    label: "Spending over time",
    height: 200,
    points,
    words: (point) => [
      moment(point.at),
      `spent: ${dollars(point.spent_usd)}`,
      `saved by spot: ${dollars(point.saved_usd)}`,
      `${dollars(point.usd_per_hour)} an hour then`,
    ],
    marks: (point, plot) => [
      [plot.y(point.on_demand_usd), "whole"],
      [plot.y(point.spent_usd), "stored"],
    ],
    draw(plot) {
      const shown = thinned(points, (point) => point.spent_usd);
      const most = Math.max(...shown.map((point) => point.on_demand_usd), 0.01);
      timeAxis(plot, points[0].at, points.at(-1).at);
      plot.y = valueAxis(plot, most, (value) => dollars(value, most < 10 ? 2 : 0));
      const upper = shown.map((point) => [point.at, point.on_demand_usd]);
      const lower = shown.map((point) => [point.at, point.spent_usd]);
      const around = pathOf(upper, plot.x, plot.y) + pathOf([...lower].reverse(), plot.x, plot.y).replace("M", "L");
      plot.root.append(
        svg("path", { d: `${around}Z`, class: "saved-area" }),
        svg("path", { d: pathOf(upper, plot.x, plot.y), class: "line whole" }),
        svg("path", { d: pathOf(lower, plot.x, plot.y), class: "line stored" }),
      );
    },
  });
  return el("div", {}, legend([["whole", "on demand"], ["stored", "spent"]]), root);
}
