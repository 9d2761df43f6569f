// The stream of events, by fetch: EventSource sends no Authorization. One connection for the whole page, which comes
// back by itself and tells what it missed (Last-Event-ID).

import { address, headersOf, pause, problem } from "./api.js";
import { session } from "./session.js";

const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 20_000;
// The service sends comments while nothing happens; a connection that is silent for so long is dead.
const SILENCE_MS = 45_000;
const LONGEST_LINE = 1 << 20;

/** Cuts text of server-sent events into `{id, event, data, retry}`. Fed as it comes, in any pieces. */
export class EventParser {
  #rest = "";
  #event = {};
  lastId = "";

  feed(text) {
    const found = [];
    const lines = (this.#rest + text).split(/\r\n|\n|\r(?!$)/);
    this.#rest = lines.pop();
    if (this.#rest.length > LONGEST_LINE) throw new Error("an event is longer than any that the service sends");
    for (const line of lines) {
      if (line === "") {
        if (this.#event.data !== undefined) found.push({ event: "message", ...this.#event, id: this.lastId });
        this.#event = {};
      } else if (!line.startsWith(":")) this.#field(line);
    }
    return found;
  }

  #field(line) {
    const colon = line.indexOf(":");
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (name === "data") this.#event.data = this.#event.data === undefined ? value : `${this.#event.data}\n${value}`;
    else if (name === "event") this.#event.event = value;
    else if (name === "id" && !value.includes("\0")) this.lastId = value;
  }
}

class Events extends EventTarget {
  state = "off"; // off, connecting, live, waiting, refused
  #stop = null;
  #lastId = "";

  start() {
    if (this.#stop) return;
    this.#stop = new AbortController();
    this.#run(this.#stop.signal);
  }

  restart() {
    this.#stop?.abort();
    this.#stop = null;
    this.start();
  }

  async #run(signal) {
    let wait = FIRST_WAIT_MS;
    while (!signal.aborted) {
      this.#become("connecting");
      try {
        if (await this.#listen(signal)) wait = FIRST_WAIT_MS;
      } catch (error) {
        if (signal.aborted) return;
        if ([401, 403, 404].includes(error.status)) {
          this.#become("refused");
          return; // another token starts it again
        }
      }
      if (signal.aborted) return;
      this.#become("waiting");
      await Promise.race([pause(wait * (0.75 + Math.random() / 2), signal), online(signal)]).catch(() => {});
      wait = Math.min(wait * 2, LONGEST_WAIT_MS);
    }
  }

  /** Reads one connection to its end; whether anything came. */
  async #listen(signal) {
    const mine = new AbortController();
    const stop = () => mine.abort();
    signal.addEventListener("abort", stop, { once: true });
    let timer = setTimeout(stop, SILENCE_MS);
    let heard = false;
    try {
      const last = this.#lastId ? { "Last-Event-ID": this.#lastId } : {};
      const response = await fetch(address("events"), {
        headers: headersOf({ Accept: "text/event-stream", ...last }),
        signal: mine.signal,
        cache: "no-store",
        credentials: "omit",
      });
      if (!response.ok) throw await problem(response);
      this.#become("live");
      const parser = new EventParser();
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return heard;
        clearTimeout(timer);
        timer = setTimeout(stop, SILENCE_MS);
        heard = true;
        for (const one of parser.feed(value)) this.#tell(one);
      }
    } finally {
      clearTimeout(timer);
      signal.removeEventListener("abort", stop);
      mine.abort();
    }
  }

  #tell(one) {
    if (one.id) this.#lastId = one.id;
    let data = null;
    try {
      data = JSON.parse(one.data);
    } catch {
      return; // not ours
    }
    this.dispatchEvent(new CustomEvent("event", { detail: { kind: one.event, data } }));
  }

  #become(state) {
    if (state === this.state) return;
    const before = this.state;
    this.state = state;
    this.dispatchEvent(new CustomEvent("state", { detail: { state, before } }));
  }
}

function online(signal) {
  return new Promise((resolve) => {
    window.addEventListener("online", resolve, { once: true, signal });
  });
}

export const events = new Events();
session.addEventListener("change", () => events.restart());
