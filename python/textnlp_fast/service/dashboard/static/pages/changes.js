// Changes of the registry in words.

import { el } from "../core/dom.js";
import { modelLink, versionLink, when } from "../parts/bits.js";
import { empty } from "../parts/states.js";

/** A list of changes, the newest first; rows with a `model` name it. */
export function changeRows(rows) {
  if (!rows.length) {
    return empty("No changes yet", "Stages, aliases, tags, pins and deployments leave their traces here.", "textnlp-fast stage my-model@1.0.0 staging");
  }
  return el(
    "ol",
    { class: "changes" },
    rows.map((row) =>
      el(
        "li",
        {},
        el("span", { class: "what" }, el("strong", {}, row.kind.replaceAll("_", " ")), subject(row), details(row)),
        el("span", { class: "faint by" }, row.actor, ", ", when(row.at)),
      ),
    ),
  );
}

function subject(row) {
  const version = row.version && (row.model ? versionLink(row.model, row.version) : el("span", { class: "mono" }, row.version));
  return [row.model && modelLink(row.model), row.model && row.version && " ", version];
}

function details(row) {
  const pairs = Object.entries(row.detail ?? {}).filter(([key, value]) => key !== "version" && value !== "");
  return pairs.length > 0 && el("span", { class: "faint" }, pairs.map(([key, value]) => `${key.replaceAll("_", " ")}: ${value}`).join(" · "));
}
