"""For those who use keys, who listen, who see little or few colours, who want no motion, on small screens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from service.dashboard.auditing import contrast_wrongs, focus_of, structure_wrongs
from service.dashboard.browsing import BrowserThread, Opener
from service.dashboard.house import MODEL, Served
from service.dashboard.test_walk import PAGES


def test_the_reckoning_itself_sees_what_is_wrong(
    browser: BrowserThread, opened: Opener, served: Served
) -> None:
    page = opened(served.base).goto("#/audit")
    assert not structure_wrongs(page) + contrast_wrongs(page)
    page.evaluate(
        """() => {
          const main = document.getElementById("main");
          const add = (tag, attributes, text = "") => {
            const element = document.createElement(tag);
            for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
            element.textContent = text;
            main.append(element);
            return element;
          };
          add("p", { id: "pale" }, "pale words").style.color = "rgb(170, 175, 180)";
          add("button", {});
          add("h5", {}, "too deep");
          add("p", { id: "main" }, "twice");
          add("table", {}, "");
          document.querySelector("table button").style.outline = "none";
        }"""
    )
    assert any("pale words" in each for each in contrast_wrongs(page))
    found = " ".join(structure_wrongs(page))
    for expected in ("nameless <button", "a heading 5", "two of #main", "a table without a caption"):
        assert expected in found
    page.locator("table button").first.focus()
    assert not focus_of(page)["seen"]


def test_a_small_screen_has_all_of_it(browser: BrowserThread, opened: Opener, served: Served) -> None:
    watched = opened(served.base, viewport={"width": 390, "height": 844})
    for title, address in PAGES.items():
        page = watched.goto(address)
        assert not page.evaluate("document.documentElement.scrollWidth > innerWidth"), f"{title} is too wide"
        assert not structure_wrongs(page), title
    menu = page.get_by_role("button", name="Menu")
    assert not page.get_by_role("link", name="Fleet").is_visible()
    menu.press("Enter")
    assert menu.get_attribute("aria-expanded") == "true"
    page.get_by_role("link", name="Fleet").press("Enter")
    page.wait_for_function("() => document.querySelector('h1').textContent === 'Fleet'")
    assert not page.get_by_role("link", name="Fleet").is_visible()  # the menu has made room


class Keys:
    """Nothing but a keyboard. Every stop must be one that can be seen."""

    def __init__(self, page: Any) -> None:
        self.page = page

    def to(self, fits: Callable[[dict[str, Any]], bool], *, most: int = 80) -> dict[str, Any]:
        """Presses Tab until what has the focus fits."""
        seen = []
        for _ in range(most):
            self.page.keyboard.press("Tab")
            now = focus_of(self.page)
            if now["tag"] == "BODY":
                continue
            assert now["seen"], f"the focus cannot be seen on {now}"
            seen.append(now["name"])
            if fits(now):
                return dict(now)
        raise AssertionError(f"no way there by Tab: {seen}")

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)


def test_the_main_journey_by_keys_alone(browser: BrowserThread, opened: Opener, served: Served) -> None:
    watched = opened(served.base)
    page = watched.goto()
    keys = Keys(page)

    # Past the navigation, into a model.
    assert keys.to(lambda now: True)["name"] == "Skip to the content"
    keys.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    assert "#main" not in page.url  # what follows the "#" is the router's
    keys.to(lambda now: now["name"] == MODEL and now["inside"])
    keys.press("Enter")
    page.wait_for_function("(name) => document.querySelector('h1').textContent === name", arg=MODEL)
    watched.settled()
    assert page.evaluate("document.activeElement.tagName") == "H1"
    assert page.evaluate("document.getElementById('said').textContent") == MODEL

    # Two versions compared; the squares of the heat map walked.
    keys.to(lambda now: now["name"] == "Show the difference")
    keys.press("Enter")
    page.wait_for_function("() => document.querySelector('h1').textContent.includes('1.4.0 to 1.5.0')")
    watched.settled()
    keys.to(lambda now: now["name"] == "Norm")
    keys.press("Space")
    keys.to(lambda now: now["role"] == "gridcell")
    walked = {focus_of(page)["name"]}
    for key in ("ArrowDown", "ArrowDown", "ArrowRight", "ArrowUp", "Control+End", "Control+Home"):
        keys.press(key)
        now = focus_of(page)
        assert now["role"] == "gridcell" and now["seen"], key
        assert page.locator(".tooltip").is_visible()
        walked.add(now["name"])
    assert len(walked) >= 5
    assert page.locator(".cell[tabindex='0']").count() == 1  # one stop for Tab, wherever one is
    keys.press("Escape")
    assert not page.locator(".tooltip").is_visible()

    # A question is asked, and left; the focus is where it was.
    page.keyboard.press("Shift+Tab")
    watched.goto("#/transfers")
    keys.to(lambda now: now["name"] == "Pull a version")
    keys.press("Enter")
    page.get_by_role("dialog").wait_for()
    assert page.evaluate("document.activeElement.name") == "model"
    for _ in range(12):  # the focus cannot leave the question
        keys.press("Tab")
        inside = page.evaluate(
            "document.activeElement.closest('dialog') !== null || document.activeElement === document.body"
        )
        assert inside
    keys.press("Escape")
    page.get_by_role("dialog").wait_for(state="detached")
    assert focus_of(page)["name"] == "Pull a version"


def test_tables_are_sorted_and_turned_by_keys(browser: BrowserThread, opened: Opener, served: Served) -> None:
    page = opened(served.base).goto(f"#/models/{MODEL}/versions/1.5.0")
    table = page.get_by_role("region", name="Tensors").last
    table.get_by_role("button", name="Stored").press("Enter")
    head = table.locator("th[aria-sort]")
    assert head.get_attribute("aria-sort") == "descending"
    assert page.evaluate("document.activeElement.textContent") == "Stored"  # where it was
    largest = table.locator("tbody tr th").first.inner_text()
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "ascending"
    assert table.locator("tbody tr th").last.inner_text() == largest


def test_the_theme_is_the_systems_until_one_is_chosen(
    browser: BrowserThread, opened: Opener, served: Served
) -> None:
    watched = opened(served.base, color_scheme="dark")
    page = watched.goto()

    def background() -> str:
        return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))

    dark = background()
    button = page.get_by_role("button", name="Theme")
    button.press("Enter")
    light = background()
    assert button.inner_text() == "Theme: light" and light != dark
    watched.goto("#/fleet")
    page.reload()
    watched.settled()
    assert background() == light  # it is remembered, and there before the first paint
    button.press("Enter")
    assert button.inner_text() == "Theme: dark" and background() == dark
    button.press("Enter")
    assert button.inner_text() == "Theme: system" and background() == dark
    page.emulate_media(color_scheme="light")
    assert background() == light


def test_nothing_moves_for_those_who_ask_for_that(
    browser: BrowserThread, opened: Opener, served: Served
) -> None:
    moving = "document.getAnimations().length"
    still = opened(served.base, reduced_motion="reduce")
    still.context.route("**/api/v1/models*", lambda route: None)  # it never comes: the page waits
    still.page.goto(served.base)
    still.page.wait_for_selector(".skeleton")
    assert still.page.evaluate(moving) == 0
    other = opened(served.base)
    other.context.route("**/api/v1/models*", lambda route: None)
    other.page.goto(served.base)
    other.page.wait_for_function(f"() => {moving} > 0")
