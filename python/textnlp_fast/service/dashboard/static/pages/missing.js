// An address that leads nowhere.

import { el } from "../core/dom.js";

export function show() {
  return {
    title: "No such page",
    content: el("p", {}, "The address may be mistyped. ", el("a", { href: "#/" }, "Back to the overview")),
  };
}
