// Asking before something is done: the browser's own dialog, which holds the focus and gives it back.

import { el, freshId } from "../core/dom.js";

/**
 * Asks; resolves to the values of the fields, or to null. `act(values)`, if there is one, does it while the dialog
 * stays, so that what goes wrong is said where it was asked for.
 */
export function ask({ title, words, fields = [], yes, danger = false, act }) {
  const id = freshId("dialog");
  const wrong = el("p", { class: "wrong", role: "alert" });
  const confirm = el("button", { type: "submit", class: danger ? "danger" : "primary" }, yes);
  const cancel = el("button", { type: "button", onclick: () => dialog.close() }, "Cancel");
  const form = el(
    "form",
    { method: "dialog" },
    el("h2", { id }, title),
    [words].flat().map((each) => (typeof each === "string" ? el("p", {}, each) : each)),
    fields.map(fieldOf),
    wrong,
    el("div", { class: "row end" }, cancel, confirm),
  );
  const dialog = el("dialog", { "aria-labelledby": id }, form);
  return new Promise((resolve) => {
    let result = null;
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      const values = Object.fromEntries(new FormData(form));
      confirm.disabled = true;
      wrong.textContent = "";
      try {
        if (act) await act(values);
        result = values;
        dialog.close();
      } catch (error) {
        wrong.textContent = [error.message, error.hint].filter(Boolean).join(" ");
        confirm.disabled = false;
        confirm.focus();
      }
    });
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(result);
    });
    document.body.append(dialog);
    dialog.showModal();
    (form.querySelector("input, select, textarea") ?? cancel).focus();
  });
}

/** A field under its label; what else is said of it is its description, not its name. */
function fieldOf({ name, label, value = "", options, required = false, placeholder = "", words, onChange }) {
  const [id, about] = [freshId("field"), freshId("about")];
  const shared = { id, name, required, "aria-describedby": words ? about : null, onchange: onChange && ((event) => onChange(event.target.value)) };
  const chosen = (each) => (each.value ?? each) === value;
  const main = options
    ? el("select", shared, options.map((each) => el("option", { value: each.value ?? each, selected: chosen(each) }, each.label ?? each)))
    : el("input", { ...shared, type: "text", value, placeholder, spellcheck: "false", autocomplete: "off" });
  return el("div", { class: "field" }, el("label", { for: id }, label), main, words && el("small", { class: "faint", id: about }, words));
}
