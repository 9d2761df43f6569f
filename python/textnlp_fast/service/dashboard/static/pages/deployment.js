// One target: what it serves, and what it has served.

import { all, get, path } from "../core/api.js";
import { el } from "../core/dom.js";
import { session } from "../core/session.js";
import { crumbs, facts, modelLink, panel, stateBadge, versionLink, when } from "../parts/bits.js";
import { refreshing } from "../parts/live.js";
import { empty, region } from "../parts/states.js";
import { changeRows } from "./changes.js";
import { rollbackButton } from "./deployments.js";

export function show({ params: { name, target }, signal }) {
  const now = region(signal, () => current(name, target, signal), (row) => nowParts(row, () => [now, history].forEach((each) => each.reload())), { label: "Deployment" });
  const history = region(signal, () => get(path("models", name, "deployments", target, "history"), { limit: 100 }, { signal }), (page) => changeRows(page.items), { label: "History" });
  refreshing(signal, ["registry", "deployment"], [now, history]);
  session.addEventListener("known", () => now.reload({ quietly: true }), { signal });
  return {
    title: `${target}: ${name}`,
    content: [crumbs(el("a", { href: "#/deployments" }, "Deployments"), modelLink(name), el("span", { "aria-current": "page" }, target)), now.root, panel("History", history.root)],
  };
}

async function current(name, target, signal) {
  const { items } = await all("deployments", {}, { signal });
  return items.find((row) => row.model === name && row.target === target) ?? null;
}

function nowParts(row, reload) {
  if (!row) return empty("It serves nothing now", "Its history is below.");
  const before = [...new Set(row.previous)];
  return panel(
    "Now",
    facts([
      ["Version", versionLink(row.model, row.version)],
      ["State", stateBadge(row.state)],
      ["Since", when(row.since)],
      ["By", row.by],
      ["Note", row.note],
      ["Before", before.length > 0 && before.slice(0, 20).map((each, place) => [place > 0 && ", ", versionLink(row.model, each)])],
    ]),
    el("div", { class: "row" }, rollbackButton(row, reload)),
  );
}
