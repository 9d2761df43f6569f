// Addresses after the "#": they need nothing of the server and survive a reload. Segments are escaped, so that
// "org/model" is one of them.

/** `#/models/org%2Fm/diff?from=1.0.0` -> {segments: ["models", "org/m", "diff"], query: {from: "1.0.0"}}. */
export function parse(hash) {
  const [way, search = ""] = hash.replace(/^#\/?/, "").split("?");
  const segments = way.split("/").filter(Boolean).map(unescaped);
  return { segments, query: Object.fromEntries(new URLSearchParams(search)) };
}

/** The address of a page: `link(["models", name], {page: 2})`. */
export function link(segments, query = {}) {
  const search = new URLSearchParams(
    Object.entries(query).filter(([, value]) => value !== null && value !== undefined && value !== ""),
  ).toString();
  return `#/${segments.map(encodeURIComponent).join("/")}${search ? `?${search}` : ""}`;
}

/** Changes the query of this page without loading it anew. */
export function note(query) {
  const { segments, query: now } = parse(location.hash);
  history.replaceState(null, "", link(segments, { ...now, ...query }));
  shown(location.hash);
}

/** Marks the page of this address as the one that is there. */
export function shown(hash) {
  document.getElementById("main").dataset.address = hash;
}

/** The first route that fits: [["models", ":name"], page]. */
export function match(routes, segments) {
  for (const [pattern, page] of routes) {
    if (pattern.length !== segments.length) continue;
    const params = {};
    const fits = pattern.every((part, place) => {
      if (!part.startsWith(":")) return part === segments[place];
      params[part.slice(1)] = segments[place];
      return true;
    });
    if (fits) return { page, params };
  }
  return null;
}

function unescaped(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
