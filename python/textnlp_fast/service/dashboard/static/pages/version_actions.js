// What publishers may do to a version: move it to a stage, name it, keep it for good.

import { path, send } from "../core/api.js";
import { el } from "../core/dom.js";
import { ask } from "../parts/dialog.js";

/** Buttons; `onDone()` runs after each change. */
export function actionButtons(name, row, onDone) {
  const where = path("models", name, "versions", row.version);
  const done = async (asked) => (await asked) && onDone();
  const what = `${name}@${row.version}`;

  const stage = () =>
    ask({
      title: `Move ${what} to a stage`,
      words: "By default production holds one version: who enters sends the one before to archived.",
      fields: [
        { name: "stage", label: "Stage", value: row.stage === "draft" ? "staging" : "production", required: true, words: "draft, staging, production, archived, or what the rules name" },
        { name: "note", label: "Why" },
      ],
      yes: "Move",
      act: (values) => send("POST", `${where}/stage`, values),
    });
  const alias = () =>
    ask({
      title: `Give ${what} a name`,
      words: "An alias that another version has moves here.",
      fields: [{ name: "alias", label: "Alias", required: true, placeholder: "champion" }],
      yes: "Set the alias",
      act: ({ alias: word }) => send("PUT", path("models", name, "aliases", word.trim()), { version: row.version }),
    });
  const pin = () =>
    ask({
      title: `Keep ${what} for good`,
      words: "No collection removes it as long as it is pinned.",
      fields: [{ name: "reason", label: "Why" }],
      yes: "Pin",
      act: (values) => send("PUT", `${where}/pin`, values),
    });
  const unpin = () =>
    ask({
      title: `Unpin ${what}?`,
      words: "Collections may then remove it, if no rule keeps it.",
      yes: "Unpin",
      danger: true,
      act: () => send("DELETE", `${where}/pin`),
    });
  const button = (words, act) => el("button", { type: "button", onclick: () => done(act()) }, words);
  return [button("Move to a stage", stage), button("Set an alias", alias), row.pinned ? button("Unpin", unpin) : button("Pin", pin)];
}
