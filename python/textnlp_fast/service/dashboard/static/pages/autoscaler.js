// Fleets that follow their load.

import { all } from "../core/api.js";
import { el } from "../core/dom.js";
import { figure, percent } from "../core/format.js";
import { link } from "../core/router.js";
import { badge, panel, when } from "../parts/bits.js";
import { refreshing } from "../parts/live.js";
import { empty, region } from "../parts/states.js";
import { table } from "../parts/table.js";

export function show({ signal }) {
  const list = region(signal, () => all("autoscaler", {}, { signal }), fleetTable, { label: "Autoscaler" });
  refreshing(signal, ["decision", "autoscaler"], [list]);
  return { title: "Autoscaler", content: panel("Fleets that follow their load", list.root) };
}

function fleetTable({ items, note }) {
  if (!items.length) {
    return empty("No fleet is scaled", note || "Decisions of an autoscaler whose store is this service's are shown here.", "textnlp-fast gpu autoscale aws-asg:llm?region=us-east-1 --store s3://my-bucket/autoscaler");
  }
  return table(
    [
      { key: "name", label: "Fleet", value: (row) => row.name, cell: (row) => el("a", { href: link(["autoscaler", row.name]) }, row.name) },
      { key: "target", label: "Policy", value: (row) => row.target },
      { key: "replicas", label: "Serving", numeric: true, value: (row) => row.replicas, cell: (row) => figure(row.replicas) },
      { key: "starting", label: "Starting", numeric: true, hide: "narrow", value: (row) => row.starting },
      { key: "wanted", label: "Wanted", numeric: true, value: (row) => row.wanted, cell: (row) => figure(row.wanted) },
      { key: "slo", label: "SLO attained", numeric: true, value: (row) => row.slo_attainment, cell: (row) => percent(row.slo_attainment) },
      { key: "state", label: "State", sort: false, class: "badges", cell: (row) => [row.paused ? badge("nobody scales it", "tone-warn") : badge("scaled", "tone-good"), row.alerts.map((each) => badge(each, "tone-bad"))] },
      { key: "updated", label: "Last decision", value: (row) => row.updated_at, cell: (row) => when(row.updated_at) },
    ],
    items,
    { caption: "Fleets", noun: "fleet", filter: (row) => `${row.name} ${row.target}` },
  );
}
