// What the service itself moves: live rows that keep their place and their focus while they change.

import { get, path, send } from "../core/api.js";
import { el, fill, say } from "../core/dom.js";
import { events } from "../core/events.js";
import { session } from "../core/session.js";
import { panel } from "../parts/bits.js";
import { ask } from "../parts/dialog.js";
import { empty, region } from "../parts/states.js";
import { startForms } from "./transfer_forms.js";
import { TransferRow, isOver } from "./transfer_row.js";

const PAGE = 50;
// Where the stream is silent, the list is asked for: what runs is never shown as it was long ago.
const LOOK_MS = 5_000;

export function show({ signal }) {
  const book = new Book(signal);
  const list = region(signal, () => book.load(), () => book.root, { label: "Transfers" });
  const buttons = el("div", { class: "row" });
  const showButtons = () => fill(buttons, session.may("publisher") ? startForms((view) => book.take(view)) : session.me && el("p", { class: "faint" }, `Starting transfers is for publishers; you are ${session.me.subject} (${session.me.role}).`));
  session.addEventListener("known", showButtons, { signal });
  showButtons();

  events.addEventListener(
    "event",
    ({ detail: { kind, data } }) => {
      if (kind === "resync") list.reload({ quietly: true });
      if (!kind.startsWith("transfer")) return;
      if (data?.id && data.state && data.kind) book.take(data);
      else if (data?.id) book.look(data.id);
    },
    { signal },
  );
  events.addEventListener("state", ({ detail }) => detail.state === "live" && detail.before !== "off" && list.reload({ quietly: true }), { signal });
  const timer = setInterval(() => events.state !== "live" && navigator.onLine && list.reload({ quietly: true }), LOOK_MS);
  signal.addEventListener("abort", () => clearInterval(timer));
  return { title: "Transfers", content: [buttons, panel("All transfers", list.root)] };
}

/** The rows, by id, the newest first. */
class Book {
  constructor(signal) {
    this.signal = signal;
    this.rows = new Map();
    this.asked = new Set();
    this.list = el("ol", { class: "transfers" });
    this.more = el("div", { class: "pager" });
    this.none = el("div");
    this.root = el("div", {}, this.none, this.list, this.more);
  }

  async load() {
    const page = await get("transfers", { limit: PAGE }, { signal: this.signal });
    for (const view of [...page.items].reverse()) this.take(view, { quietly: true });
    if (this.cursor === undefined) this.cursor = page.next_cursor ?? null;
    this.showRest();
  }

  /** Takes what a transfer is now. */
  take(view, { quietly = false } = {}) {
    const known = this.rows.get(view.id);
    if (known) {
      const before = known.view.state;
      known.update(view);
      if (!quietly && before !== view.state && isOver(view)) say(`${known.words()}: ${view.state}`);
      return;
    }
    const row = new TransferRow(view, () => this.cancel(view.id));
    this.rows.set(view.id, row);
    this.list.insertBefore(row.root, this.firstOlder(view));
    this.showRest();
  }

  firstOlder(view) {
    for (const node of this.list.children) {
      const row = this.rows.get(node.dataset.id);
      if (row && row.view.created_at <= view.created_at) return node;
    }
    return null;
  }

  /** Asks for one transfer, of which something was heard; not twice at a time. */
  async look(id) {
    if (this.asked.has(id)) return;
    this.asked.add(id);
    try {
      this.take(await get(path("transfers", id), {}, { signal: this.signal }));
    } catch (error) {
      if (!this.signal.aborted && error.status !== 404) console.warn(`transfer ${id}: ${error.message}`);
    } finally {
      this.asked.delete(id);
    }
  }

  cancel(id) {
    const row = this.rows.get(id);
    return ask({
      title: "Cancel this transfer?",
      words: [`${row.words()} stops at the next step. What was uploaded is kept: the same transfer started again goes on from there.`],
      yes: "Cancel the transfer",
      danger: true,
      act: async () => {
        const view = await send("POST", path("transfers", id, "cancel"));
        if (view?.id) this.take(view);
        else await this.look(id);
      },
    });
  }

  showRest() {
    fill(
      this.none,
      this.rows.size === 0 &&
        empty("No transfers yet", "Start one above. Transfers that the service does itself are listed here; what the command line moves is not.", "textnlp-fast push my-model/ my-model@1.0.0"),
    );
    fill(this.more, this.cursor && el("button", { type: "button", onclick: () => this.older() }, "Show older ones"));
  }

  async older() {
    const page = await get("transfers", { limit: PAGE, cursor: this.cursor }, { signal: this.signal });
    this.cursor = page.next_cursor ?? null;
    for (const view of page.items) this.take(view, { quietly: true });
    this.showRest();
  }
}
