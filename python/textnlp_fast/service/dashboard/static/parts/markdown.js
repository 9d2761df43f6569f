// Cards, as plain Markdown: headings, paragraphs, lists, quotes, code, tables, links to the web. Everything becomes text
// in elements made here; HTML in a card is shown as it is written, and no picture is ever fetched.

import { el } from "../core/dom.js";

const LONGEST = 200_000;
const HEADING = /^(#{1,6})\s+(.*?)\s*#*$/;
const ITEM = /^\s{0,6}(?:[-*+]|\d{1,3}[.)])\s+(.*)$/;
const RULE = /^\s{0,3}(?:-{3,}|\*{3,}|_{3,})\s*$/;
const INLINE = /(`+)(.+?)\1|\*\*(.+?)\*\*|\*([^*\s][^*]*)\*|!?\[([^\]]*)\]\(([^()\s]*)(?:\s+"[^"]*")?\)|<(https?:\/\/[^>\s]+)>/;

/** The card as elements; its front matter apart, as text. */
export function markdown(text) {
  const whole = text.length > LONGEST;
  const lines = text.slice(0, LONGEST).split(/\r?\n/);
  const parts = [];
  let place = 0;
  if (lines[0]?.trim() === "---") {
    const end = lines.indexOf("---", 1);
    if (end > 0) {
      parts.push(el("details", { class: "front" }, el("summary", {}, "Metadata"), el("pre", {}, lines.slice(1, end).join("\n"))));
      place = end + 1;
    }
  }
  while (place < lines.length) place = block(lines, place, parts);
  if (whole) parts.push(el("p", { class: "faint" }, "The rest of this card is not shown."));
  return el("div", { class: "card-text" }, parts);
}

function block(lines, place, parts) {
  const line = lines[place];
  if (!line.trim()) return place + 1;
  const fence = /^\s{0,3}(```+|~~~+)/.exec(line);
  if (fence) {
    const end = upTo(lines, place + 1, (each) => each.trim().startsWith(fence[1]));
    parts.push(el("pre", { tabindex: "0" }, el("code", {}, lines.slice(place + 1, end).join("\n"))));
    return end + 1;
  }
  const heading = HEADING.exec(line);
  if (heading) {
    // Below the page's own headings.
    parts.push(el(`h${Math.min(6, heading[1].length + 2)}`, {}, inline(heading[2])));
    return place + 1;
  }
  if (RULE.test(line)) {
    parts.push(el("hr"));
    return place + 1;
  }
  if (line.startsWith(">")) {
    const end = upTo(lines, place, (each) => !each.startsWith(">"));
    parts.push(el("blockquote", {}, inline(lines.slice(place, end).map((each) => each.replace(/^>\s?/, "")).join(" "))));
    return end;
  }
  if (ITEM.test(line)) return list(lines, place, parts);
  if (line.includes("|") && /^[\s|:-]+$/.test(lines[place + 1] ?? "") && lines[place + 1].includes("-")) return grid(lines, place, parts);
  const end = upTo(lines, place + 1, (each) => !each.trim() || HEADING.test(each) || ITEM.test(each) || /^\s{0,3}(```|~~~|>)/.test(each));
  parts.push(el("p", {}, inline(lines.slice(place, end).join(" "))));
  return end;
}

function list(lines, place, parts) {
  const ordered = /^\s*\d/.test(lines[place]);
  const end = upTo(lines, place, (each) => !ITEM.test(each) && !/^\s{2,}\S/.test(each));
  const items = [];
  for (const each of lines.slice(place, end)) {
    const item = ITEM.exec(each);
    if (item) items.push(item[1]);
    else items[items.length - 1] += ` ${each.trim()}`;
  }
  parts.push(el(ordered ? "ol" : "ul", {}, items.map((each) => el("li", {}, inline(each)))));
  return end;
}

function grid(lines, place, parts) {
  const cells = (line) => line.trim().replace(/^\||\|$/g, "").split("|").map((each) => each.trim());
  const end = upTo(lines, place + 2, (each) => !each.includes("|"));
  const body = lines.slice(place + 2, end).map((each) => el("tr", {}, cells(each).map((cell) => el("td", {}, inline(cell)))));
  const head = el("tr", {}, cells(lines[place]).map((cell) => el("th", { scope: "col" }, inline(cell))));
  parts.push(el("div", { class: "scroller" }, el("table", {}, el("thead", {}, head), el("tbody", {}, body))));
  return end;
}

function inline(text) {
  const parts = [];
  let rest = text;
  while (rest) {
    const found = INLINE.exec(rest);
    if (!found) {
      parts.push(rest);
      break;
    }
    parts.push(rest.slice(0, found.index), piece(found));
    rest = rest.slice(found.index + found[0].length);
  }
  return parts;
}

function piece([whole, , code, strong, weak, words, target, bare]) {
  if (code !== undefined) return el("code", {}, code);
  if (strong !== undefined) return el("strong", {}, strong);
  if (weak !== undefined) return el("em", {}, weak);
  const address = bare ?? target;
  if (whole.startsWith("!") || !/^https?:\/\//i.test(address)) return words || whole;
  return el("a", { href: address, rel: "noopener noreferrer nofollow", target: "_blank" }, words || address);
}

function upTo(lines, from, stop) {
  let place = from;
  while (place < lines.length && !stop(lines[place])) place += 1;
  return place;
}
