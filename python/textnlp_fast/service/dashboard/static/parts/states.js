// What stands where content will be, could not be, or is not yet: always with a way on.

import { ApiError, get } from "../core/api.js";
import { el, fill, say } from "../core/dom.js";
import { session } from "../core/session.js";

/**
 * A region that loads, shows, and can load again. `load(signal)` brings data, `show(data)` makes elements. What is loaded
 * again `quietly` and is what is shown already stays: where somebody is in it, they stay there.
 */
export function region(signal, load, show, { label = "" } = {}) {
  const root = el("div", { class: "region", "aria-busy": "true" }, skeleton());
  let turn = 0;
  let known = null; // what is shown, as text
  async function reload({ quietly = false } = {}) {
    const mine = ++turn;
    root.setAttribute("aria-busy", "true");
    if (!quietly && !root.querySelector(".loaded")) fill(root, skeleton());
    try {
      const data = await load(signal);
      if (mine !== turn || signal.aborted) return;
      const text = JSON.stringify(data);
      if (quietly && text === known && root.querySelector(".loaded")) return;
      const content = await show(data);
      if (mine !== turn || signal.aborted) return;
      known = text;
      fill(root, el("div", { class: "loaded" }, content));
    } catch (error) {
      if (signal.aborted || mine !== turn) return;
      if (!(error instanceof ApiError)) console.error(error);
      const denied = error.status === 401 || error.status === 403;
      const shown = root.querySelector(".failure");
      if (!denied && quietly && root.querySelector(".loaded")) return;
      if (shown?.dataset.status !== String(error.status) || !quietly) {
        fill(root, failure(error, () => reload(), label));
        root.firstElementChild.dataset.status = error.status;
      }
      if (error.status === 0 || error.status === 503) later(error);
    } finally {
      if (mine === turn) root.setAttribute("aria-busy", "false");
    }
  }

  /** What is away may come back: it is asked for again as long as that is what is shown. */
  function later(error) {
    const seconds = Math.max(3, Math.min(60, error.retryAfterS ?? 5));
    const timer = setTimeout(() => root.querySelector(".failure") && reload({ quietly: true }), seconds * 1000);
    signal.addEventListener("abort", () => clearTimeout(timer), { once: true });
  }

  session.addEventListener("change", () => reload(), { signal });
  window.addEventListener("online", () => root.querySelector(".failure") && reload(), { signal });
  reload();
  return { root, reload };
}

function skeleton() {
  return el("div", { class: "skeleton" }, el("span", { class: "only-heard" }, "Loading"));
}

/** Says what went wrong, in place, and what to do. */
export function failure(error, retry, label = "") {
  const status = error.status ?? -1;
  const what = label ? `${label}: ` : "";
  if (status === 401) return signIn(error);
  if (status === 403) return notAllowed(error, what);
  const [title, words] = reasons(error, status);
  say(`${what}${title}`);
  return el(
    "div",
    { class: "failure", role: "group", "aria-label": "Problem" },
    el("p", { class: "failure-title" }, what, title),
    words && el("p", {}, words),
    error.hint && el("p", { class: "faint" }, error.hint),
    el(
      "p",
      { class: "row" },
      retry && el("button", { type: "button", onclick: retry }, "Try again"),
      status === 404 && el("a", { href: "#/" }, "Back to the overview"),
    ),
  );
}

function reasons(error, status) {
  if (status === 0 && !navigator.onLine)
    return ["You are offline", "This is shown again as soon as the machine is back on the network."];
  if (status === 0)
    return [
      "The service does not answer",
      `${error.detail ? `${error.detail} ` : ""}It may be starting, or stopped: textnlp-fast serve starts it.`,
    ];
  if (status === 503)
    return ["The service is not ready", error.detail || "What it reads from, its repository for instance, does not answer."];
  if (status === 404) return [error.title || "Not found", error.detail];
  if (status === -1) return ["This page cannot show what came", "The service may be of another version. Reload the page."];
  return [error.title || `The service answered ${status}`, error.detail];
}

function notAllowed(error, what) {
  const me = session.me;
  return el(
    "div",
    { class: "failure", role: "group", "aria-label": "Problem" },
    el("p", { class: "failure-title" }, what, "Not for this token"),
    el("p", {}, error.detail || "This needs another role."),
    me && el("p", { class: "faint" }, `You are ${me.subject} (${me.role}).`),
    error.hint && el("p", { class: "faint" }, error.hint),
    tokenForm("Use another token"),
  );
}

function signIn(error) {
  const known = Boolean(session.token);
  return el(
    "div",
    { class: "failure", role: "group", "aria-label": "Sign in" },
    el("p", { class: "failure-title" }, known ? "This token is not accepted" : "Sign in to see this"),
    el("p", {}, known && error.detail ? error.detail : "Paste a token of this service. It is kept until this tab is closed."),
    tokenForm("Sign in"),
  );
}

export function tokenForm(words) {
  const field = el("input", {
    type: "password",
    name: "token",
    autocomplete: "off",
    spellcheck: "false",
    required: true,
    "aria-label": "Token",
    placeholder: "Token",
  });
  const wrong = el("p", { class: "wrong", role: "alert" });
  const submit = async (event) => {
    event.preventDefault();
    const token = field.value.trim();
    if (!/^[\x21-\x7e]+$/.test(token)) {
      wrong.textContent = "A token has neither spaces nor letters beyond ASCII.";
      return;
    }
    try {
      await get("me", {}, { token });
      session.use(token); // whatever was refused is asked for again
    } catch (error) {
      wrong.textContent = error.status === 401 ? "The service does not know this token." : error.message;
    }
  };
  return el("form", { class: "row token", onsubmit: submit }, field, el("button", { type: "submit" }, words), wrong);
}

/** Nothing there yet: what it would be, and the command that makes it so. */
export function empty(title, words, command = "") {
  return el(
    "div",
    { class: "empty" },
    el("p", { class: "empty-title" }, title),
    words && el("p", {}, words),
    command && commandLine(command),
  );
}

export function commandLine(command) {
  const copied = el("span", { class: "faint", role: "status" });
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(command);
      copied.textContent = "copied";
    } catch {
      copied.textContent = "select it to copy";
    }
  };
  return el(
    "div",
    { class: "command" },
    el("code", { tabindex: "0" }, command),
    navigator.clipboard && el("button", { type: "button", class: "quiet", onclick: copy }, "Copy"),
    copied,
  );
}
