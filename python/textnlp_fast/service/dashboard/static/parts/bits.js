// The small pieces that pages are made of.

import { el } from "../core/dom.js";
import { ago, asDate, bytes, moment } from "../core/format.js";
import { link } from "../core/router.js";

/** A section with a heading. */
export function panel(title, ...children) {
  return el("section", { class: "panel", "aria-label": title }, el("h2", {}, title), children);
}

/** A row of figures: [{label, value, note}]. */
export function figures(list) {
  return el(
    "dl",
    { class: "figures" },
    list.map(({ label, value, note }) =>
      el("div", {}, el("dt", {}, label), el("dd", {}, value, note && el("small", {}, note))),
    ),
  );
}

/** Pairs of what and which: [[label, value]]; pairs without a value are left out. */
export function facts(pairs, { wide = false } = {}) {
  const there = pairs.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return el("dl", { class: wide ? "facts wide" : "facts" }, there.map(([label, value]) => el("div", {}, el("dt", {}, label), el("dd", {}, value))));
}

const STAGES = new Set(["draft", "staging", "production", "archived"]);

/** A mark with words; the colour only repeats what the words say. */
export function badge(words, kind = "") {
  return el("span", { class: `badge ${kind}` }, words);
}

export function stageBadge(stage) {
  return stage ? badge(stage, STAGES.has(stage) ? `stage-${stage}` : "") : null;
}

const TONES = {
  good: ["done", "healthy", "active", "running", "live", "ok", "success", "good", "serving", "succeeded", "told"],
  bad: ["failed", "error", "critical", "unhealthy", "bad", "denied", "refused", "fatal", "lost", "failure"],
  warn: ["interrupted", "warning", "degraded", "cancelled", "paused", "stale", "unknown", "pending"],
};

export function stateBadge(state) {
  if (!state) return null;
  const tone = Object.keys(TONES).find((each) => TONES[each].includes(String(state).toLowerCase())) ?? "";
  return badge(state, `tone-${tone || "plain"}`);
}

/** A time as people say it, with the exact one on it. */
export function when(text) {
  const date = asDate(text);
  if (!date) return "–";
  return el("time", { datetime: date.toISOString(), title: moment(text, true) }, ago(text));
}

/** A day and a time that break between, and nowhere else. */
export function stamp(text) {
  const [day, time] = moment(text, true).split(" ");
  return time ? el("span", { class: "stamp" }, el("span", {}, day), " ", el("span", {}, time)) : day;
}

export function modelLink(name, words = name) {
  return el("a", { href: link(["models", name]) }, words);
}

export function versionLink(name, version, words = version) {
  return el("a", { href: link(["models", name, "versions", version]), class: "mono" }, words);
}

/** A size with a bar beside it, of `most`. */
export function sizeBar(value, most) {
  const part = most > 0 && value > 0 ? Math.max(0.01, Math.min(1, value / most)) : 0;
  return el(
    "span",
    { class: "size-bar" },
    el("span", { class: "bar", "aria-hidden": "true" }, el("span", { style: { width: `${(part * 100).toFixed(1)}%` } })),
    el("span", {}, bytes(value)),
  );
}

/** A digest that can be told from another, whole when hovered or copied. */
export function digest(text) {
  if (!text) return "–";
  const bare = String(text);
  return el("code", { class: "digest", title: bare }, bare.length > 20 ? `${bare.slice(0, 16)}…` : bare);
}

/** Tabs of one choice: buttons that say which is pressed. `choices`: [[value, label]]. */
export function choice(label, choices, value, onChange) {
  const buttons = choices.map(([each, words]) =>
    el("button", { type: "button", "aria-pressed": String(each === value), onclick: () => pick(each) }, words),
  );
  function pick(each) {
    choices.forEach(([one], place) => buttons[place].setAttribute("aria-pressed", String(one === each)));
    onChange(each);
  }
  return el("div", { class: "choice", role: "group", "aria-label": label }, buttons);
}

/** A picture's numbers as a table, folded away below it. */
export function asTable(words, content) {
  const details = el("details", { class: "as-table" }, el("summary", {}, words));
  details.addEventListener("toggle", () => details.open && details.children.length === 1 && details.append(content()));
  return details;
}

export function crumbs(...parts) {
  return el("nav", { class: "crumbs", "aria-label": "Where this is" }, el("ol", {}, parts.map((each) => el("li", {}, each))));
}
