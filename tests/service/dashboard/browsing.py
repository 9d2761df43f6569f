"""A browser for tests: in a thread of its own, and with its eyes open for what no page may do.

Playwright's synchronous face keeps an event loop running in its thread for as long as the browser lives. In the tests'
own thread that would break every asynchronous test that comes after; so all that touches the browser runs elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar
from urllib.parse import urlsplit

Result = TypeVar("Result")

CHROMIUM = "/usr/bin/chromium"
# For conditions, on a machine that does twenty other things.
PATIENCE_MS = 120_000
# What is there before the page's own scripts: each violation of the policy, and when something was first painted.
_WATCH = """
window.violations = [];
addEventListener("securitypolicyviolation", (e) => violations.push(`${e.violatedDirective} ${e.blockedURI}`));
new PerformanceObserver((list) => {
  for (const each of list.getEntries()) if (each.name === "first-contentful-paint") window.painted = each.startTime;
}).observe({ type: "paint", buffered: true });
"""


class BrowserThread:
    """Chromium, and the one thread that may speak to it."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "browser")
        self.run(self._start)

    def run(self, work: Callable[[], Result]) -> Result:
        return self._thread.submit(work).result()

    def close(self) -> None:
        self.run(self._stop)
        self._thread.shutdown()

    def _start(self) -> None:
        from playwright.sync_api import sync_playwright  # noqa: PLC0415 - may be missing

        self._playwright = sync_playwright().start()
        self.browser = self._playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])

    def _stop(self) -> None:
        self.browser.close()
        self._playwright.stop()


class Watched:
    """A page, and what it did that it should not: errors on the console, requests to others, violations of the policy.

    Answers with a status of `expected` may fail without being held against the page: the browser writes each of them on
    the console.
    """

    def __init__(self, browser: Any, base: str, **context: Any) -> None:
        self.base = base
        self.wrongs: list[str] = []
        self.expected: set[int] = set()
        self._own = urlsplit(base).netloc
        self.context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **context})
        self.context.set_default_timeout(PATIENCE_MS)
        self.context.add_init_script(_WATCH)
        self.context.route(lambda url: urlsplit(url).netloc != self._own, self._refuse)
        self.page = self.context.new_page()
        self.page.on("console", self._heard)
        self.page.on("pageerror", lambda error: self.wrongs.append(f"uncaught: {error}"))

    def goto(self, address: str = "", *, until: str | None = None) -> Any:
        """Opens `#/…` and waits until nothing on the page is loading any more, or for `until`, a selector."""
        self.page.goto(f"{self.base}/{address}")
        self.settled()
        if until:
            self.page.wait_for_selector(until)
        return self.page

    def without_events(self) -> Watched:
        """Told of nothing: what others do meanwhile, or did a moment ago, does not draw its pages anew."""
        self.expected = self.expected | {0}
        self.context.route("**/api/v1/events*", lambda route: route.abort())
        return self

    def settled(self) -> None:
        """Until the page that is asked for is there, and all of its regions have what they wait for."""
        self.page.wait_for_function(
            "() => document.getElementById('main').dataset.address === location.hash"
            " && !document.querySelector('[aria-busy=true]')"
        )

    def check(self) -> None:
        """Fails if the page has done what it may not."""
        violations = [] if self.page.is_closed() else self.page.evaluate("window.violations")
        assert not violations, violations
        assert not self.wrongs, self.wrongs

    def close(self) -> None:
        # What is still on its way through a route would fail whoever asks the browser for something next.
        self.context.unroute_all(behavior="ignoreErrors")
        self.context.close()

    def _refuse(self, route: Any) -> None:
        self.wrongs.append(f"asked {route.request.url}")
        route.abort()

    def _heard(self, message: Any) -> None:
        if message.type not in ("error", "warning"):
            return
        if any(f"status of {status}" in message.text for status in self.expected):
            return
        if 0 in self.expected and "net::ERR" in message.text:
            return
        self.wrongs.append(f"console: {message.text}")


Opener = Callable[..., Watched]
"""Opens a page at a service: `opened(base, color_scheme="dark")`."""
