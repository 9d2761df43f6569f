// The service's API: JSON in and out, problems as errors, a time limit on each call, and reads that are tried again.

import { session } from "./session.js";

export const BASE = new URL("api/v1/", document.baseURI);

const LIMIT_MS = 30_000;
const TRIES = 3;
const LONGEST_WAIT_S = 2;
const WORTH_ANOTHER = new Set([502, 503, 504]);

/** What went wrong, as the service said it. `status` is 0 where no answer came. */
export class ApiError extends Error {
  constructor(status, { title = "", detail = "", hint = "", code = "" } = {}, retryAfterS = null) {
    super(detail || title || `status ${status}`);
    Object.assign(this, { status, title, detail, hint, code, retryAfterS });
  }
}

/** Path segments are escaped, slashes of model names are kept: `path("models", "org/model", "versions")`. */
export function path(...parts) {
  return parts.map((part) => String(part).split("/").map(encodeURIComponent).join("/")).join("/");
}

export async function get(where, query = {}, { signal, token, limitMs = LIMIT_MS } = {}) {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await once("GET", where, { query, signal, token, limitMs });
    } catch (error) {
      const again = error instanceof ApiError && (error.status === 0 || WORTH_ANOTHER.has(error.status));
      // Who is told to come back later says so to the person at once.
      if (!again || (error.retryAfterS ?? 0) > LONGEST_WAIT_S || attempt >= TRIES || !navigator.onLine || signal?.aborted) throw error;
      await pause((error.retryAfterS ?? 0.3 * 2 ** attempt) * 1000, signal);
    }
  }
}

/** What changes something is sent once: the person decides whether to send it again. */
export function send(method, where, body, { signal, headers, limitMs = LIMIT_MS } = {}) {
  return once(method, where, { body, signal, headers, limitMs });
}

/** Items of a list, page after page, at most `most`; tells `onPage(items so far, is it all)`. */
export async function all(where, query = {}, { signal, most = 20_000, onPage } = {}) {
  const items = [];
  let cursor = null;
  let note = null;
  do {
    const page = await get(where, { limit: 1000, ...query, cursor }, { signal });
    items.push(...page.items);
    note = page.note ?? note;
    cursor = page.next_cursor ?? null;
    onPage?.(items, cursor === null);
  } while (cursor !== null && items.length < most);
  return { items, note, complete: cursor === null };
}

export function headersOf(extra = {}, token = session.token) {
  return token ? { ...extra, Authorization: `Bearer ${token}` } : { ...extra };
}

export function address(where, query = {}) {
  const url = new URL(where, BASE);
  for (const [name, value] of Object.entries(query)) {
    if (value !== null && value !== undefined && value !== "") url.searchParams.set(name, value);
  }
  return url;
}

async function once(method, where, { query, body, signal, token, headers = {}, limitMs }) {
  const watch = deadline(signal, limitMs);
  try {
    const response = await fetch(address(where, query), {
      method,
      headers: headersOf(body === undefined ? headers : { ...headers, "Content-Type": "application/json" }, token),
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: watch.signal,
      cache: "no-store",
      credentials: "omit",
      redirect: "error",
    });
    if (!response.ok) throw await problem(response);
    if (response.status === 204) return null;
    return await response.json();
  } catch (error) {
    if (error instanceof ApiError || signal?.aborted) throw error;
    if (watch.late()) throw new ApiError(0, { title: "No answer", detail: `No answer within ${limitMs / 1000} s.` });
    throw new ApiError(0, { title: "The service cannot be reached" });
  } finally {
    watch.end();
  }
}

export async function problem(response) {
  let said = {};
  try {
    said = await response.json();
  } catch {
    // Something between here and the service answered, in its own words.
  }
  const retryAfterS = Number(response.headers.get("Retry-After")) || null;
  return new ApiError(response.status, said && typeof said === "object" ? said : {}, retryAfterS);
}

function deadline(outer, limitMs) {
  const controller = new AbortController();
  const stop = () => controller.abort();
  let late = false;
  const timer = setTimeout(() => {
    late = true;
    stop();
  }, limitMs);
  if (outer?.aborted) stop();
  outer?.addEventListener("abort", stop, { once: true });
  return {
    signal: controller.signal,
    late: () => late,
    end() {
      clearTimeout(timer);
      outer?.removeEventListener("abort", stop);
    },
  };
}

export function pause(ms, signal) {
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(new DOMException("stopped", "AbortError"));
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", stop);
      resolve();
    }, ms);
    if (signal?.aborted) stop();
    else signal?.addEventListener("abort", stop, { once: true });
  });
}
