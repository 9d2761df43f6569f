// One fleet's decisions on a time line, and the reasons of the one that is chosen.

import { decisionChart } from "../charts/decisions.js";
import { get, path } from "../core/api.js";
import { el, fill } from "../core/dom.js";
import { asDate, dollars, duration, figure, moment, percent } from "../core/format.js";
import { asTable, badge, crumbs, facts, panel, stateBadge } from "../parts/bits.js";
import { refreshing } from "../parts/live.js";
import { empty, region } from "../parts/states.js";
import { table } from "../parts/table.js";

const PAGE = 500;
const MOST = 5000;
const ASK_MS = 250;

export function show({ params: { name }, signal }) {
  const state = { pages: 1, chosen: null };
  const load = () => decisions(name, state.pages, signal);
  const list = region(signal, load, (data) => parts(name, data, state, () => list.reload(), signal), { label: "Decisions" });
  refreshing(signal, ["decision", "autoscaler"], [list]);
  return { title: name, content: [crumbs(el("a", { href: "#/autoscaler" }, "Autoscaler"), el("span", { "aria-current": "page" }, name)), list.root] };
}

async function decisions(name, pages, signal) {
  const items = [];
  let cursor = null;
  for (let page = 0; page < pages && items.length < MOST; page += 1) {
    const got = await get(path("autoscaler", name, "decisions"), { limit: PAGE, before: cursor }, { signal });
    items.push(...got.items);
    cursor = got.next_cursor ?? null;
    if (cursor === null) break;
  }
  return { items, more: cursor !== null && items.length < MOST };
}

function parts(name, { items, more }, state, reload, signal) {
  if (!items.length) return empty("No decisions yet", "The autoscaler writes one a period.", "textnlp-fast gpu autoscale TARGET --once --dry-run");
  const reasons = el("div", { class: "reasons", role: "status" });
  let timer = null;
  const choose = (row) => {
    state.chosen = row.number;
    fill(reasons, decisionParts(row));
    clearTimeout(timer);
    timer = setTimeout(() => explain(name, row, reasons, signal), ASK_MS);
  };
  const chart = decisionChart(items, choose);
  const start = chart.points.find((point) => point.row.number === state.chosen) ?? chart.points.at(-1);
  choose(start.row);
  const older = () => {
    state.pages += 1;
    reload();
  };
  return [
    panel("Decisions over time", chart.root, el("p", { class: "faint" }, "Point at a moment, or focus the picture and use the arrow keys: its reasons stand below."), more && el("button", { type: "button", class: "quiet", onclick: older }, "Further back"), asTable("The same as a table", () => decisionTable(items, choose))),
    panel("Why", reasons),
  ];
}

function decisionParts(row) {
  const change = row.before === null || row.before === row.wanted ? `${row.wanted}, as before` : `${row.wanted}, from ${row.before}`;
  return [
    facts([
      ["When", moment(row.at, true)],
      ["Wanted", change],
      ["Serving", figure(row.replicas)],
      ["Load", `${figure(row.load)} replicas`],
      ["Forecast", row.forecast === null ? null : `${figure(row.forecast)} replicas in ${duration(row.horizon_s)}`],
      ["On spot", row.spot === null ? null : percent(row.spot)],
      ["An hour", row.usd_per_hour === null ? null : dollars(row.usd_per_hour)],
      ["Outcome", stateBadge(row.outcome)],
    ], { wide: true }),
    row.alerts.length > 0 && el("p", { class: "badges" }, row.alerts.map((each) => badge(each, "tone-bad"))),
    el("ul", { class: "reason-list" }, row.reasons.map((each) => el("li", {}, each))),
  ];
}

/** Adds the sentences that the service has for this decision. */
async function explain(name, row, reasons, signal) {
  const date = asDate(row.at);
  if (signal.aborted || !date) return;
  try {
    // Times are told in whole milliseconds: a decision is the last one before the next of them.
    const at = new Date(date.getTime() + 1).toISOString();
    const { decision, sentences } = await get(path("autoscaler", name, "explain"), { at }, { signal });
    if (decision.number !== row.number || !reasons.isConnected || reasons.querySelector(".sentences")) return;
    if (sentences.length) reasons.append(el("details", { class: "sentences" }, el("summary", {}, "In full"), sentences.map((each) => el("p", {}, each))));
  } catch (error) {
    if (!signal.aborted) reasons.append(el("p", { class: "faint" }, `No fuller account: ${error.message}`));
  }
}

function decisionTable(items, choose) {
  return table(
    [
      { key: "at", label: "Time", value: (row) => row.at, cell: (row) => el("button", { type: "button", class: "as-link", onclick: () => choose(row) }, moment(row.at, true)) },
      { key: "wanted", label: "Wanted", numeric: true, value: (row) => row.wanted },
      { key: "replicas", label: "Serving", numeric: true, value: (row) => row.replicas, cell: (row) => figure(row.replicas) },
      { key: "load", label: "Load", numeric: true, value: (row) => row.load, cell: (row) => figure(row.load) },
      { key: "forecast", label: "Forecast", numeric: true, value: (row) => row.forecast, cell: (row) => figure(row.forecast) },
      { key: "outcome", label: "Outcome", value: (row) => row.outcome, cell: (row) => stateBadge(row.outcome) },
      { key: "reasons", label: "Reasons", sort: false, hide: "narrow", cell: (row) => row.reasons.join("; ") },
    ],
    items,
    { caption: "Decisions", noun: "decision", pageSize: 50, sort: { key: "at", descending: true } },
  );
}
