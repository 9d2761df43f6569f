// Elements out of values. Text is only ever set as text: whatever users named their models stays what it is.

const SVG = "http://www.w3.org/2000/svg";

/** `el("p", {class: "faint", onclick: f}, "text", child)`: null, false and undefined children are left out. */
export function el(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/** The same for SVG. */
export function svg(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    // By the object model: a style attribute is what the content security policy refuses.
    else if (name === "style") for (const [key, one] of Object.entries(value)) element.style.setProperty(key, one);
    else if (name === "data") Object.assign(element.dataset, value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  append(element, children);
  return element;
}

export function append(parent, children) {
  for (const child of [children].flat(Infinity)) {
    if (child === null || child === undefined || child === false || child === "") continue;
    parent.append(child instanceof Node ? child : String(child));
  }
}

/** Puts children in place of what `parent` has. */
export function fill(parent, ...children) {
  parent.replaceChildren();
  append(parent, children);
}

let numbers = 0;
/** An id that nothing else on the page has. */
export function freshId(stem) {
  numbers += 1;
  return `${stem}-${numbers}`;
}

/** Says something to those who listen to the page. */
export function say(text) {
  const said = document.getElementById("said");
  if (said) said.textContent = text;
}
