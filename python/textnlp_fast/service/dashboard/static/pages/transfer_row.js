// One transfer as a row: what, how far, how fast, and what came of it. Updated in place.

import { el, fill } from "../core/dom.js";
import { bytes, duration, percent } from "../core/format.js";
import { session } from "../core/session.js";
import { facts, modelLink, stateBadge, versionLink, when } from "../parts/bits.js";

const OVER = new Set(["done", "failed", "cancelled"]);
const NAMES = { push: "Push", pull: "Pull", verify: "Verify", delta: "Patch", dry_run: "Dry run of a push", collect: "Collection" };

export function isOver(view) {
  return OVER.has(view.state);
}

export class TransferRow {
  constructor(view, onCancel) {
    this.onCancel = onCancel;
    this.head = el("div", { class: "transfer-head" });
    this.bar = el("div", { class: "progress", role: "progressbar", "aria-valuemin": 0, "aria-valuemax": 100 }, el("span"));
    this.about = el("div", { class: "transfer-about faint" });
    this.outcome = el("div");
    this.button = el("button", { type: "button", class: "quiet", onclick: () => this.onCancel() }, "Cancel");
    this.more = el("details", { class: "more" });
    const top = el("div", { class: "transfer-top" }, this.head, this.button);
    const below = el("div", { class: "transfer-below" }, this.about, this.more);
    this.root = el("li", { data: { id: view.id } }, top, this.bar, this.outcome, below);
    this.update(view);
  }

  words() {
    const { kind, model, version } = this.view;
    return `${NAMES[kind] ?? kind}${model ? ` of ${model}${version ? `@${version}` : ""}` : ""}`;
  }

  update(view) {
    // An older word may come after a newer one: what is over stays over.
    if (this.view && isOver(this.view) && !isOver(view)) return;
    const before = this.view;
    this.view = view;
    if (!before || before.state !== view.state || before.cancelling !== view.cancelling || before.version !== view.version) this.drawHead();
    this.drawProgress();
    if (!before || before.state !== view.state) this.drawOutcome();
    this.button.hidden = isOver(view) || view.cancelling || !session.may("publisher");
    this.button.setAttribute("aria-label", `Cancel: ${this.words()}`);
    this.bar.setAttribute("aria-label", this.words());
  }

  drawHead() {
    const { kind, model, version, state, cancelling } = this.view;
    fill(
      this.head,
      el("strong", {}, NAMES[kind] ?? kind),
      " ",
      model && (version ? [modelLink(model), " ", versionLink(model, version)] : modelLink(model)),
      " ",
      stateBadge(cancelling && !isOver(this.view) ? "cancelling" : state),
    );
  }

  drawProgress() {
    const { progress, state, created_at: created, ended_at: ended, started_at: started, by, attempts } = this.view;
    const part = state === "done" ? 1 : progress?.total_bytes > 0 ? Math.min(1, progress.done_bytes / progress.total_bytes) : 0;
    const running = state === "running" || state === "queued";
    this.bar.hidden = !running && !(state === "interrupted");
    this.bar.firstElementChild.style.width = `${(part * 100).toFixed(1)}%`;
    this.bar.setAttribute("aria-valuenow", Math.floor(part * 100));
    const far = running && progress ? `${progress.phase.replaceAll("_", " ")}: ${bytes(progress.done_bytes)} of ${bytes(progress.total_bytes)} (${percent(part)})` : "";
    this.bar.setAttribute("aria-valuetext", far || state);
    fill(
      this.about,
      [
        far,
        running && progress?.bytes_per_s ? `${bytes(progress.bytes_per_s)}/s` : "",
        running && progress?.eta_s ? `${duration(progress.eta_s)} left` : "",
        ended && started ? `took ${duration((new Date(ended) - new Date(started)) / 1000)}` : "",
        attempts > 1 ? `attempt ${attempts}` : "",
        `by ${by}`,
      ]
        .filter(Boolean)
        .join(" · "),
      " · ",
      when(created),
    );
  }

  drawOutcome() {
    const { problem, result, request, state } = this.view;
    fill(
      this.outcome,
      problem && el("p", { class: "wrong" }, `${problem.title}: ${problem.detail}`, problem.hint && el("span", { class: "faint" }, ` ${problem.hint}`)),
      state === "interrupted" && el("p", { class: "faint" }, "Its service went away; another goes on with it, or this one when it is back."),
    );
    const told = Object.entries(result ?? {}).map(([key, value]) => [key.replaceAll("_", " "), written(key, value)]);
    fill(this.more, el("summary", {}, "Details"), facts([["Path", request?.path], ...told, ["Id", this.view.id]], { wide: true }));
  }
}

function written(key, value) {
  if (value === null || value === undefined) return null;
  if (typeof value === "number") return key.endsWith("_bytes") ? bytes(value) : key.endsWith("_s") || key === "seconds" ? duration(value) : String(value);
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}
