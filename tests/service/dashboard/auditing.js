// Reckoned in the browser from what it has really drawn; auditing.py asks.

// Of every text that is seen: its colour on what is really behind it, by WCAG's formula. Of lines and edges the same.
const contrast = () => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const parsed = new Map();
  const rgba = (text) => {
    if (!parsed.has(text)) {
      canvas.clearRect(0, 0, 1, 1);
      canvas.fillStyle = text;
      canvas.fillRect(0, 0, 1, 1);
      const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
      parsed.set(text, [r, g, b, a / 255]);
    }
    return parsed.get(text);
  };
  const over = ([r, g, b, a], [R, G, B]) => [r * a + R * (1 - a), g * a + G * (1 - a), b * a + B * (1 - a), 1];
  const behind = (element) => {
    if (!element) return rgba(getComputedStyle(document.documentElement).backgroundColor)[3]
      ? rgba(getComputedStyle(document.documentElement).backgroundColor) : [255, 255, 255, 1];
    const own = rgba(getComputedStyle(element).backgroundColor);
    return own[3] === 1 ? own : over(own, behind(element.parentElement));
  };
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const ratio = (a, b) => {
    const [x, y] = [light(a), light(b)].sort((p, q) => q - p);
    return (x + 0.05) / (y + 0.05);
  };
  const wrongs = [];
  let seen = 0;
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || element.closest(".only-heard, [disabled]") || !element.checkVisibility()) continue;
    const style = getComputedStyle(element);
    const drawn = element instanceof SVGElement;
    const square = drawn && element.closest(".cell")?.querySelector("rect");
    const back = square ? rgba(getComputedStyle(square).fill) : behind(element);
    const found = ratio(over(rgba(drawn ? style.fill : style.color), back), back);
    seen += 1;
    const large = parseFloat(style.fontSize) >= 24;
    if (found < (large ? 3 : 4.5)) wrongs.push(`${found.toFixed(2)}: ${element.className.baseVal ?? element.className} ${walker.currentNode.data.slice(0, 40)}`);
  }
  for (const element of document.querySelectorAll(".line, .node, .edge-parent, .axis:not(svg *), input, select, button:not(.quiet, .sorter, .as-link, .danger, .primary)")) {
    if (!element.checkVisibility() || element.disabled) continue;
    const style = getComputedStyle(element);
    const line = element instanceof SVGElement ? style.stroke : style.borderTopColor;
    const back = behind(element.parentElement);
    const found = ratio(over(rgba(line), back), back);
    seen += 1;
    if (found < 3) wrongs.push(`${found.toFixed(2)}: edge of ${element.tagName} ${element.className.baseVal ?? element.className}`);
  }
  return { seen, wrongs };
};

// Names, roles, landmarks, headings, tables, lists.
const structure = () => {
  const wrongs = [];
  const visible = (element) => element.checkVisibility();
  const count = (selector) => [...document.querySelectorAll(selector)].filter(visible).length;
  if (count("h1") !== 1) wrongs.push(`${count("h1")} first headings`);
  if (count("main") !== 1 || count("header") < 1) wrongs.push("landmarks");
  let before = 0;
  for (const heading of document.querySelectorAll("h1, h2, h3, h4, h5, h6")) {
    const level = Number(heading.tagName[1]);
    if (level > before + 1) wrongs.push(`a heading ${level} after a ${before}: ${heading.textContent}`);
    before = level;
  }
  const ids = [...document.querySelectorAll("[id]")].map((each) => each.id);
  for (const id of new Set(ids)) if (ids.filter((each) => each === id).length > 1) wrongs.push(`two of #${id}`);
  for (const each of document.querySelectorAll("[aria-labelledby], [aria-controls]"))
    for (const id of (each.getAttribute("aria-labelledby") ?? each.getAttribute("aria-controls")).split(" "))
      if (!document.getElementById(id)) wrongs.push(`nothing is #${id}`);
  const named = (element) => element.getAttribute("aria-label")?.trim() || element.textContent.trim()
    || element.closest("label")?.textContent.trim() || element.labels?.[0]?.textContent.trim();
  for (const each of document.querySelectorAll("a, button, input, select, textarea, summary, [role=slider], [role=grid], [role=region], [role=progressbar], [role=gridcell], nav, dialog"))
    if (visible(each) && !named(each) && !each.getAttribute("aria-labelledby")) wrongs.push(`nameless ${each.outerHTML.slice(0, 80)}`);
  for (const each of document.querySelectorAll("[tabindex]")) if (Number(each.getAttribute("tabindex")) > 0) wrongs.push("a tab order of its own");
  for (const each of document.querySelectorAll("table")) {
    if (!each.closest(".card-text") && !each.caption) wrongs.push("a table without a caption");
    if (!each.querySelector("th[scope=col]")) wrongs.push("a table without heads");
  }
  for (const each of document.querySelectorAll("main svg"))
    if (!each.closest("[aria-hidden=true], [aria-label]")) wrongs.push(`a picture without words: ${each.outerHTML.slice(0, 60)}`);
  for (const each of document.querySelectorAll("[role=grid] [role=gridcell], [role=grid] [role=columnheader]"))
    if (each.parentElement.getAttribute("role") !== "row") wrongs.push("a cell outside of rows");
  for (const each of document.querySelectorAll("[aria-hidden=true] a, [aria-hidden=true] button, [aria-hidden=true] [tabindex]"))
    wrongs.push(`hidden, and yet in the tab order: ${each.outerHTML.slice(0, 60)}`);
  for (const each of document.querySelectorAll("ul, ol")) for (const child of each.children)
    if (child.tagName !== "LI") wrongs.push(`a ${child.tagName} in a list`);
  if (!document.documentElement.lang) wrongs.push("no language");
  return wrongs;
};

// What has the focus, and whether one can see that it has.
const focus = () => {
  const element = document.activeElement;
  const style = getComputedStyle(element);
  const square = element.matches(".cell") && getComputedStyle(element.querySelector("rect"));
  const seen = square ? square.strokeWidth === "3px" && square.stroke !== "none"
    : style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2;
  const label = element.getAttribute("aria-label") ?? element.textContent.trim();
  return { tag: element.tagName, role: element.getAttribute("role"), name: label.slice(0, 80), seen,
    href: element.getAttribute("href"), inside: Boolean(element.closest("main")) };
};
