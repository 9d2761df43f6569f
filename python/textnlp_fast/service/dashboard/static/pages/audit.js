// Who changed what: records, a filter, and whether the log is whole.

import { get, send } from "../core/api.js";
import { el, fill } from "../core/dom.js";
import { bytes, count, number } from "../core/format.js";
import { session } from "../core/session.js";
import { figures, panel, stamp, stateBadge } from "../parts/bits.js";
import { empty, failure, region } from "../parts/states.js";
import { table } from "../parts/table.js";

const PAGE = 500;
const VERIFY_MS = 11 * 60_000;

export function show({ signal }) {
  const state = { pages: 1 };
  const list = region(signal, () => records(state.pages, signal), (data) => recordParts(data, state, () => list.reload()), { label: "Audit" });
  const check = el("div");
  const draw = () => fill(check, verifyParts(signal));
  session.addEventListener("known", draw, { signal });
  draw();
  return { title: "Audit", content: [check, panel("Records", list.root)] };
}

async function records(pages, signal) {
  const items = [];
  let cursor = null;
  for (let page = 0; page < pages; page += 1) {
    const got = await get("audit", { limit: PAGE, cursor }, { signal });
    items.push(...got.items);
    cursor = got.next_cursor ?? null;
    if (cursor === null) break;
  }
  return { items, more: cursor !== null };
}

function recordParts({ items, more }, state, reload) {
  if (!items.length) return empty("No records yet", "Whatever changes the repository leaves one.", "textnlp-fast audit");
  const older = () => {
    state.pages += 1;
    reload();
  };
  return [
    table(
      [
        { key: "seq", label: "No.", numeric: true, head: false, hide: "narrow", value: (row) => row.seq, cell: (row) => number(row.seq) },
        { key: "at", label: "Time", value: (row) => row.at, cell: (row) => stamp(row.at) },
        { key: "actor", label: "Who", value: (row) => row.actor },
        { key: "verb", label: "What", value: (row) => row.verb, class: "mono" },
        { key: "subject", label: "On", value: (row) => row.subject, class: "name", cell: (row) => row.subject ?? "–" },
        { key: "outcome", label: "Outcome", value: (row) => row.outcome, cell: (row) => stateBadge(row.outcome) },
        { key: "detail", label: "Details", sort: false, hide: "narrow", class: "detail", cell: (row) => words(row.detail) },
      ],
      items,
      {
        caption: "Audit records",
        noun: "record",
        pageSize: 100,
        sort: { key: "seq", descending: true },
        filter: (row) => `${row.actor} ${row.verb} ${row.subject ?? ""} ${row.outcome} ${words(row.detail)}`,
        filterWords: "Filter by who, what, on what",
      },
    ),
    more && el("p", {}, el("button", { type: "button", class: "quiet", onclick: older }, "Load older records")),
  ];
}

/** Details in a line: digests cut short, sizes as sizes, of a reference document which revision it became. */
function words(detail) {
  return Object.entries(detail)
    .filter(([, value]) => value !== null && value !== "")
    .map(([key, value]) => `${key.replaceAll("_", " ")}: ${written(key, value)}`)
    .join(" · ");
}

function written(key, value) {
  if (key === "refs" && value?.revision !== undefined) return `revision ${value.revision}`;
  if (typeof value === "number" && /bytes$/.test(key)) return bytes(value);
  if (typeof value === "object") return JSON.stringify(value);
  return String(value).replace(/\b[0-9a-f]{24,}\b/g, (each) => `${each.slice(0, 12)}…`);
}

// --- is it whole? ---------------------------------------------------------------------------------------------------

function verifyParts(signal) {
  if (!session.me) return null;
  if (!session.may("operator")) return el("p", { class: "faint" }, `Checking the log is for operators; you are ${session.me.subject} (${session.me.role}).`);
  const result = el("div", { role: "status" });
  const button = el("button", { type: "button", onclick: () => verify(button, result, signal) }, "Verify the log");
  return [el("div", { class: "row" }, button, el("span", { class: "faint" }, "Reads every record, and compares them with each other and with the versions that are there.")), result];
}

async function verify(button, result, signal) {
  button.disabled = true;
  fill(result, el("p", { class: "faint" }, "Reading the log …"));
  try {
    const report = await send("POST", "audit/verify", undefined, { signal, limitMs: VERIFY_MS });
    fill(result, reportParts(report));
  } catch (error) {
    if (!signal.aborted) fill(result, failure(error, () => verify(button, result, signal), "Verify"));
  } finally {
    button.disabled = false;
  }
}

function reportParts(report) {
  return [
    el("p", { class: report.ok ? "good" : "wrong" }, report.ok ? "The log is whole." : `${count(report.problem_count, "problem")} found.`),
    figures([
      { label: "Records", value: number(report.records) },
      { label: "Proven by a later one", value: number(report.proven) },
      { label: "Versions compared", value: number(report.versions) },
      { label: "Gone", value: number(report.gone.length), note: "versions that were deleted" },
    ]),
    report.problems.length > 0 && el("ul", { class: "findings" }, report.problems.map((each) => el("li", {}, el("strong", {}, each.kind), ` ${each.detail}`, each.seq !== null && el("span", { class: "faint" }, ` (record ${each.seq})`)))),
  ];
}
