// Versions as a graph beside their rows: a dot a version, a line to its parent, a dashed bow to what it is coded against.
// The picture is drawn for the rows that are shown; edges to others run out of it.

import { svg } from "../core/dom.js";

const LANE = 14;
const PAD = 12;
const MOST_LANES = 6;

/** Which column each version is in: a child goes on in its parent's, siblings move aside. `rows` newest first. */
export function lanes(rows) {
  const place = new Map(rows.map((row, index) => [row.version, index]));
  const lane = new Map();
  const holds = []; // per lane: the version that its line is on the way to
  for (const row of rows) {
    let own = holds.indexOf(row.version);
    if (own < 0) own = holds.indexOf(null);
    if (own < 0) own = holds.length;
    holds.forEach((each, index) => {
      if (each === row.version) holds[index] = null;
    });
    lane.set(row.version, Math.min(own, MOST_LANES - 1));
    const parent = row.parent && place.has(row.parent) ? row.parent : null;
    holds[own] = parent;
  }
  return lane;
}

/** How wide the picture will be. */
export function graphWidth(lane) {
  return PAD * 2 + LANE * (Math.max(0, ...lane.values()) + 1) + 26;
}

/**
 * `rows` in the order shown, `middles[i]`: the middle of row i in the picture, `height`: of all of it.
 * `focus`: a version whose line of ancestors and bases is brought out.
 */
export function versionGraph({ rows, lane, middles, height, edges }) {
  const width = graphWidth(lane);
  const place = new Map(rows.map((row, index) => [row.version, index]));
  const x = (version) => PAD + LANE * (lane.get(version) ?? 0);
  const right = PAD + LANE * (Math.max(0, ...lane.values()) + 1);
  const picture = svg("svg", { class: "graph", width, height, viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" });
  const drawn = [];
  for (const edge of edges) {
    const [from, to] = [place.get(edge.from), place.get(edge.to)];
    if (from === undefined && to === undefined) continue;
    const ends = {
      x1: x(edge.from),
      x2: x(edge.to),
      y1: from === undefined ? beyond(rows, edge.from, lane, height) : middles[from],
      y2: to === undefined ? height : middles[to],
    };
    const d = edge.kind === "base" ? bow(ends, right) : stem(ends);
    const path = svg("path", { d, class: `edge edge-${edge.kind}`, data: { from: edge.from, to: edge.to, kind: edge.kind } });
    drawn.push({ edge, path });
    picture.append(path);
  }
  rows.forEach((row, index) => {
    picture.append(
      svg("circle", { cx: x(row.version), cy: middles[index], r: row.base_version ? 4 : 5.5, class: row.base_version ? "node" : "node whole", data: { version: row.version } }),
    );
  });
  return { root: picture, light: (version) => light(picture, drawn, version) };
}

/** Where an edge comes in that starts at a version that is not shown. */
function beyond(rows, version, lane, height) {
  return lane.has(version) ? 0 : height;
}

function stem({ x1, y1, x2, y2 }) {
  if (x1 === x2) return `M${x1} ${y1}V${y2}`;
  const turn = y2 - Math.min(18, Math.abs(y2 - y1) / 2);
  return `M${x1} ${y1}V${turn}C${x1} ${y2} ${x2} ${turn} ${x2} ${y2}`;
}

function bow({ x1, y1, x2, y2 }, right) {
  const out = right + Math.min(20, 6 + Math.abs(y2 - y1) / 14);
  return `M${x1} ${y1}C${out} ${y1} ${out} ${y2} ${x2} ${y2}`;
}

function light(picture, drawn, version) {
  const chain = new Set([version]);
  const queue = [version];
  while (queue.length) {
    const now = queue.pop();
    for (const { edge } of drawn) {
      if (edge.from !== now || edge.kind !== "base" || chain.has(edge.to)) continue;
      chain.add(edge.to);
      queue.push(edge.to);
    }
  }
  for (const { edge, path } of drawn) {
    path.classList.toggle("lit", edge.kind === "base" ? chain.has(edge.from) : edge.from === version);
  }
  for (const node of picture.querySelectorAll(".node")) node.classList.toggle("lit", chain.has(node.dataset.version));
}
