// Regions that load again when something happened to what they show: at most once in a while, however much happens.

import { events } from "../core/events.js";

const CALM_MS = 800;

/** `kinds`: beginnings of the events' names (`registry`, `transfer`, `decision`). */
export function refreshing(signal, kinds, regions) {
  let timer = null;
  const soon = () => {
    timer ??= setTimeout(() => {
      timer = null;
      if (!signal.aborted) for (const each of regions) each.reload({ quietly: true });
    }, CALM_MS);
  };
  events.addEventListener("event", ({ detail }) => (detail.kind === "resync" || kinds.some((kind) => detail.kind.startsWith(kind))) && soon(), { signal });
  // What happened while nobody listened may not be told again.
  events.addEventListener("state", ({ detail }) => detail.state === "live" && detail.before !== "off" && soon(), { signal });
}
