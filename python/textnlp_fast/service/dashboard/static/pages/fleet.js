// The machines: which there are, how they are, what they cost.

import { costChart } from "../charts/costs.js";
import { all, get } from "../core/api.js";
import { el } from "../core/dom.js";
import { count, dollars, moment, number } from "../core/format.js";
import { asTable, badge, figures, panel, stateBadge, when } from "../parts/bits.js";
import { empty, region } from "../parts/states.js";
import { table } from "../parts/table.js";

const LOOK_MS = 30_000;

export function show({ signal }) {
  const costs = region(signal, () => get("fleet/costs", {}, { signal }), costParts, { label: "Costs" });
  const machines = region(signal, () => all("fleet/instances", {}, { signal }), machineTable, { label: "Machines" });
  const health = region(signal, () => get("fleet/health", {}, { signal }), healthParts, { label: "Health" });
  // Machines say nothing by themselves.
  const timer = setInterval(() => navigator.onLine && [costs, machines, health].forEach((each) => each.reload({ quietly: true })), LOOK_MS);
  signal.addEventListener("abort", () => clearInterval(timer));
  return { title: "Fleet", content: [costs.root, panel("Health", health.root), panel("Machines", machines.root)] };
}

function costParts(costs) {
  if (!costs.points.length && !costs.by_provider.length) return costs.note ? el("p", { class: "faint" }, costs.note) : null;
  const onDemand = costs.spent_usd + costs.saved_usd;
  return [
    figures([
      { label: "An hour, now", value: dollars(costs.usd_per_hour), note: costs.budget_usd_per_hour === null ? count(costs.running, "machine") : `of ${dollars(costs.budget_usd_per_hour)}` },
      { label: "Spent", value: dollars(costs.spent_usd), note: costs.budget_usd === null ? "" : `of ${dollars(costs.budget_usd)}` },
      { label: "Saved by spot", value: dollars(costs.saved_usd), note: onDemand > 0 ? `${((100 * costs.saved_usd) / onDemand).toFixed(0)} % of on demand` : "" },
      { label: "Running", value: number(costs.running) },
    ]),
    costs.points.length > 1 && panel("Spending over time", costChart(costs.points), asTable("The same as a table", () => costTable(costs.points))),
    costs.by_provider.length > 1 && panel("By provider", providerTable(costs.by_provider)),
  ];
}

const MONEY = [
  { key: "hour", label: "An hour", numeric: true, value: (row) => row.usd_per_hour, cell: (row) => dollars(row.usd_per_hour, 3) },
  { key: "spent", label: "Spent", numeric: true, value: (row) => row.spent_usd, cell: (row) => dollars(row.spent_usd) },
  { key: "saved", label: "Saved", numeric: true, value: (row) => row.saved_usd, cell: (row) => dollars(row.saved_usd) },
];

function costTable(points) {
  return table([{ key: "at", label: "Time", value: (row) => row.at, cell: (row) => moment(row.at) }, ...MONEY], points, {
    caption: "Spending over time",
    pageSize: 50,
    sort: { key: "at", descending: true },
  });
}

function providerTable(rows) {
  return table([{ key: "provider", label: "Provider", value: (row) => row.provider }, { key: "running", label: "Running", numeric: true, value: (row) => row.running }, ...MONEY], rows, { caption: "Costs by provider" });
}

function machineTable({ items, note }) {
  if (!items.length) return empty("No machines", note || "Machines that were rented by this fleet's journal are shown here.", "textnlp-fast gpu launch --gpu l4 --market spot-first --dry-run");
  return table(
    [
      { key: "id", label: "Machine", value: (row) => row.id, class: "mono" },
      { key: "place", label: "Where", value: (row) => `${row.provider} ${row.zone ?? row.region}` },
      { key: "type", label: "Type", hide: "narrow", value: (row) => row.instance_type, class: "mono" },
      { key: "gpus", label: "GPUs", value: (row) => row.gpu_type, cell: (row) => `${number(row.gpus, 2)} × ${row.gpu_type}` },
      { key: "market", label: "Market", value: (row) => row.market, cell: (row) => badge(row.market, row.market === "spot" ? "spot" : "") },
      { key: "state", label: "State", value: (row) => row.state, cell: (row) => stateBadge(row.state) },
      { key: "health", label: "Health", value: (row) => row.health, cell: (row) => stateBadge(row.health) ?? el("span", { class: "faint" }, "not watched") },
      ...MONEY,
      { key: "launched", label: "Since", hide: "narrow", value: (row) => row.launched_at, cell: (row) => when(row.launched_at) },
    ],
    items,
    { caption: "Machines", noun: "machine", filter: (row) => Object.values(row).join(" "), filterWords: "Filter by any word" },
  );
}

function healthParts({ verdict, machines, note }) {
  if (verdict === null) return empty("Nobody is watched", note || "Run an agent on each machine, and tell the service where they are.", "textnlp-fast gpu agent --port 9401");
  return [
    el("p", {}, "All in all: ", stateBadge(verdict), " ", el("span", { class: "faint" }, count(machines.length, "machine"))),
    note && el("p", { class: "faint" }, note),
    el("ul", { class: "machines" }, machines.map(machineItem)),
  ];
}

function machineItem(machine) {
  return el(
    "li",
    {},
    el("div", { class: "row" }, el("strong", {}, machine.name), stateBadge(machine.state), el("span", { class: "faint" }, count(machine.gpu_count, "GPU"), machine.action && machine.action !== "none" ? ` · ${machine.action.replaceAll("_", " ")}` : "")),
    machine.note && el("p", { class: "faint" }, machine.note),
    machine.findings.length > 0 &&
      el(
        "ul",
        { class: "findings" },
        machine.findings.map((each) =>
          el(
            "li",
            {},
            badge(each.severity, `severity-${each.severity}`),
            " ",
            each.what,
            each.gpu !== null && el("span", { class: "faint" }, ` on ${each.gpu}`),
            el("div", { class: "faint" }, [each.action && `To do: ${each.action.replaceAll("_", " ")}`, each.evidence, each.count > 1 && `${each.count} times`, `rule ${each.rule}`, each.source].filter(Boolean).join(" · "), ", since ", when(each.since)),
          ),
        ),
      ),
  );
}
