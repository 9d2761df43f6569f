// The shell: which page is shown, who is signed in, whether events come live.

import { get } from "./core/api.js";
import { el, fill, say } from "./core/dom.js";
import { events } from "./core/events.js";
import { match, parse, shown } from "./core/router.js";
import { session } from "./core/session.js";
import { themeSwitch } from "./core/theme.js";
import * as audit from "./pages/audit.js";
import * as autoscaler from "./pages/autoscaler.js";
import * as decisions from "./pages/decisions.js";
import * as deployment from "./pages/deployment.js";
import * as deployments from "./pages/deployments.js";
import * as diff from "./pages/diff.js";
import * as fleet from "./pages/fleet.js";
import * as missing from "./pages/missing.js";
import * as model from "./pages/model.js";
import * as overview from "./pages/overview.js";
import * as transfers from "./pages/transfers.js";
import * as version from "./pages/version.js";
import { tokenForm } from "./parts/states.js";

const ROUTES = [
  [[], overview],
  [["models", ":name"], model],
  [["models", ":name", "versions", ":version"], version],
  [["models", ":name", "diff"], diff],
  [["deployments"], deployments],
  [["deployments", ":name", ":target"], deployment],
  [["transfers"], transfers],
  [["fleet"], fleet],
  [["autoscaler"], autoscaler],
  [["autoscaler", ":name"], decisions],
  [["audit"], audit],
];

const LIVE = {
  off: "",
  connecting: "Connecting",
  live: "Live",
  waiting: "Not live: connecting again",
  refused: "Not live",
};

const main = document.getElementById("main");
let leave = new AbortController();
let first = true;

function show() {
  leave.abort();
  leave = new AbortController();
  const { segments, query } = parse(location.hash);
  const found = match(ROUTES, segments);
  markNav(segments[0] ?? "models");
  closeMenu();
  const page = (found?.page ?? missing).show({ params: found?.params ?? {}, query, signal: leave.signal });
  const heading = el("h1", { tabindex: "-1" }, page.title);
  fill(main, heading, page.content);
  // Where this is stands above the heading; the heading is what is read first.
  const crumbs = main.querySelector(".crumbs");
  if (crumbs) heading.before(crumbs);
  document.title = `${page.title} · textnlp-fast`;
  shown(location.hash);
  if (!first) {
    heading.focus({ preventScroll: true });
    scrollTo(0, 0);
    say(page.title);
  }
  first = false;
}

function markNav(page) {
  for (const each of document.querySelectorAll("#nav a")) {
    if (each.dataset.page === page) each.setAttribute("aria-current", "page");
    else each.removeAttribute("aria-current");
  }
}

// --- who --------------------------------------------------------------------------------------------------------

const who = document.getElementById("who");

async function meet() {
  try {
    session.know(await get("me"));
  } catch {
    session.know(null); // the page says what is wrong, in place
  }
}

function showWho() {
  const { me } = session;
  if (!me) return fill(who);
  const out = session.token && el("button", { type: "button", class: "quiet", onclick: () => session.use(null) }, "Sign out");
  const another = !session.token && el("details", { class: "sign-in" }, el("summary", {}, "Use a token"), tokenForm("Sign in"));
  fill(who, el("span", { class: "subject", title: `${me.subject}, ${me.role}` }, `${me.subject} (${me.role})`), out || another);
}

session.addEventListener("change", meet);
session.addEventListener("known", showWho);

// --- live -------------------------------------------------------------------------------------------------------

const live = document.getElementById("live");

function showLive() {
  live.dataset.state = events.state;
  const words = LIVE[events.state];
  if (live.textContent !== words) live.textContent = words;
}

events.addEventListener("state", showLive);

// --- menu, skip link ---------------------------------------------------------------------------------------------

const menu = document.getElementById("menu");

function closeMenu() {
  menu.setAttribute("aria-expanded", "false");
}

menu.addEventListener("click", () => {
  menu.setAttribute("aria-expanded", String(menu.getAttribute("aria-expanded") !== "true"));
});
document.getElementById("nav").addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || menu.getAttribute("aria-expanded") !== "true") return;
  closeMenu();
  menu.focus();
});
// The address after the "#" is the router's: the link moves the focus itself.
document.getElementById("skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});

themeSwitch(document.getElementById("theme"));
addEventListener("hashchange", show);
meet();
events.start();
show();
