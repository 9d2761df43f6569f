// What serves where.

import { all, path, send } from "../core/api.js";
import { el, fill } from "../core/dom.js";
import { link } from "../core/router.js";
import { session } from "../core/session.js";
import { modelLink, panel, stateBadge, versionLink, when } from "../parts/bits.js";
import { ask } from "../parts/dialog.js";
import { refreshing } from "../parts/live.js";
import { empty, region } from "../parts/states.js";
import { table } from "../parts/table.js";

export function show({ signal }) {
  const list = region(signal, () => all("deployments", {}, { signal }), (data) => deploymentTable(data, () => list.reload()), { label: "Deployments" });
  refreshing(signal, ["registry", "deployment"], [list]);
  session.addEventListener("known", () => list.reload({ quietly: true }), { signal });
  return { title: "Deployments", content: panel("What serves where", list.root) };
}

function deploymentTable({ items, complete }, reload) {
  if (!items.length) {
    return empty("Nothing is noted to serve", "Note what serves where, and the way back is one command.", "textnlp-fast deployments record my-model@1.0.0 eu-serving");
  }
  return table(
    [
      { key: "target", label: "Target", class: "name", value: (row) => row.target, cell: (row) => el("a", { href: link(["deployments", row.model, row.target]) }, row.target) },
      { key: "model", label: "Model", class: "name", value: (row) => row.model, cell: (row) => modelLink(row.model) },
      { key: "version", label: "Version", value: (row) => row.version, cell: (row) => versionLink(row.model, row.version) },
      { key: "state", label: "State", value: (row) => row.state, cell: (row) => stateBadge(row.state) ?? "–" },
      { key: "since", label: "Since", value: (row) => row.since, cell: (row) => when(row.since) },
      { key: "by", label: "By", hide: "narrow", value: (row) => row.by },
      { key: "before", label: "Before", hide: "narrow", value: (row) => row.previous[0] ?? null, cell: (row) => (row.previous[0] ? versionLink(row.model, row.previous[0]) : "–") },
      { key: "do", label: "", sort: false, cell: (row) => rollbackButton(row, reload) ?? "" },
    ],
    items,
    { caption: "Deployments", noun: "deployment", complete, sort: { key: "target", descending: false }, filter: (row) => `${row.target} ${row.model} ${row.version} ${row.state} ${row.by}` },
  );
}

/** A button for operators, where there is a version to go back to. */
export function rollbackButton(row, onDone) {
  if (!row.previous.length || !session.may("operator")) return null;
  return el("button", { type: "button", class: "quiet", "aria-label": `Roll back ${row.target} of ${row.model}`, onclick: () => rollBack(row, onDone) }, "Roll back");
}

async function rollBack(row, onDone) {
  const effect = el("p");
  const say = (to) => fill(effect, el("strong", {}, row.target), " will be noted to serve ", el("strong", {}, `${row.model}@${to}`), ` instead of ${row.version}.`);
  say(row.previous[0]);
  const done = await ask({
    title: `Roll back ${row.target}?`,
    words: [effect, el("p", { class: "faint" }, "This changes the record; what acts on the record changes what serves.")],
    fields: [
      { name: "to", label: "Back to", options: [...new Set(row.previous)], value: row.previous[0], onChange: say },
      { name: "note", label: "Why" },
    ],
    yes: "Roll back",
    danger: true,
    act: ({ to, note }) => send("POST", path("models", row.model, "deployments", row.target, "rollback"), { to, note }),
  });
  if (done) onDone();
}
