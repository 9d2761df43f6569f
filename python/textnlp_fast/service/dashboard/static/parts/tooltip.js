// One bubble for whatever is pointed at or focused. It only repeats what is said elsewhere, so it is hidden from those
// who listen.

import { el, fill } from "../core/dom.js";

const bubble = el("div", { class: "tooltip", "aria-hidden": "true", hidden: true });

/** Shows lines of text beside a box on the screen. */
export function showTip(box, lines) {
  if (!bubble.isConnected) document.body.append(bubble);
  fill(bubble, lines.map((line, place) => el("div", { class: place ? "" : "tip-title" }, line)));
  bubble.hidden = false;
  const own = bubble.getBoundingClientRect();
  const left = Math.min(Math.max(8, box.left + box.width / 2 - own.width / 2), innerWidth - own.width - 8);
  const above = box.top - own.height - 8;
  bubble.style.left = `${left}px`;
  bubble.style.top = `${above > 4 ? above : box.bottom + 8}px`;
}

export function hideTip() {
  bubble.hidden = true;
}

addEventListener("hashchange", hideTip);
addEventListener("scroll", hideTip, { capture: true, passive: true });
addEventListener("keydown", (event) => event.key === "Escape" && hideTip());
