// Starting transfers: what is asked for, and a key for it, so that the same asked twice starts one.

import { get, send } from "../core/api.js";
import { el } from "../core/dom.js";
import { session } from "../core/session.js";
import { ask } from "../parts/dialog.js";

const PATH_WORDS = "On the service's machine.";

const FORMS = [
  {
    kind: "push",
    label: "Push a folder",
    title: "Push a folder as a version",
    fields: [
      { name: "path", label: "Folder or file", required: true, placeholder: "/srv/models/my-model", words: PATH_WORDS },
      { name: "model", label: "Model", required: true, placeholder: "my-model" },
      { name: "version", label: "Version", required: true, placeholder: "1.0.0" },
      { name: "parent", label: "Parent", value: "auto", words: "auto, a version, or none" },
      { name: "message", label: "Note" },
    ],
    yes: "Push",
    body: ({ parent, ...rest }) => ({ ...rest, parent: parent === "none" || !parent ? null : parent }),
  },
  {
    kind: "pull",
    label: "Pull a version",
    title: "Pull a version into a folder",
    fields: [
      { name: "model", label: "Model", required: true, placeholder: "my-model" },
      { name: "version", label: "Version", placeholder: "the latest" },
      { name: "path", label: "Folder", required: true, placeholder: "/srv/models/my-model", words: PATH_WORDS },
    ],
    yes: "Pull",
    body: ({ version, ...rest }) => ({ ...rest, version: version || null }),
  },
  {
    kind: "verify",
    label: "Verify",
    title: "Check that everything is there and unharmed",
    fields: [
      { name: "model", label: "Model", placeholder: "all of them" },
      { name: "version", label: "Version", placeholder: "all of them" },
      { name: "deep", label: "How", options: [{ value: "yes", label: "decode every byte" }, { value: "no", label: "objects and sizes alone" }], value: "yes" },
    ],
    yes: "Verify",
    body: ({ model, version, deep }) => ({ model: model || null, version: version || null, deep: deep === "yes" }),
  },
  {
    kind: "collect",
    role: "operator",
    label: "Look for garbage",
    title: "Tell what nothing needs any more",
    words: "This only looks; nothing is deleted. The command line deletes: textnlp-fast gc --delete",
    fields: [],
    yes: "Look",
    body: () => ({ delete: false }),
  },
];

/** Buttons that start transfers; `onStarted(view)` hears of each. */
export function startForms(onStarted) {
  return FORMS.filter(({ role }) => session.may(role ?? "publisher")).map((form) =>
    el("button", { type: "button", class: form.kind === "push" ? "primary" : null, onclick: () => start(form, onStarted) }, form.label),
  );
}

async function start(form, onStarted) {
  const key = keys();
  return ask({
    ...form,
    words: [form.words, form.fields.some(({ name }) => name === "path") && (await roots())].filter(Boolean),
    act: async (values) => {
      const trimmed = Object.fromEntries(Object.entries(values).map(([name, value]) => [name, value.trim()]));
      const body = { kind: form.kind, ...form.body(trimmed) };
      onStarted(await send("POST", "transfers", body, { headers: { "Idempotency-Key": key(body) } }));
    },
  });
}

/** Where files may lie. */
async function roots() {
  try {
    const { items, note } = await get("transfers/roots");
    if (items.length) return `Folders that the service may use: ${items.join(", ")}`;
    return note ? `The service may use no folder: ${note}.` : null;
  } catch {
    return null; // what it may not use it says when it is asked to
  }
}

/** Keys of this form: the same for the same request, sent again because no answer came; another for another. */
function keys() {
  const known = new Map();
  return (body) => {
    const asked = JSON.stringify(body);
    if (!known.has(asked)) {
      const bytes = crypto.getRandomValues(new Uint8Array(16));
      known.set(asked, Array.from(bytes, (each) => each.toString(16).padStart(2, "0")).join(""));
    }
    return known.get(asked);
  };
}
