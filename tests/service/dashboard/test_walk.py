"""Every page on a real repository: what it shows, and that nothing went wrong meanwhile."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.dashboard.auditing import contrast_wrongs, structure_wrongs
from service.dashboard.browsing import BrowserThread, Opener
from service.dashboard.fleet import FLEET
from service.dashboard.house import CARD, HOSTILE, MODEL, Served
from textnlp_fast.storage import Registry, Repository

PAGES = {
    "Overview": "#/",
    MODEL: f"#/models/{MODEL}",
    "org/policy": "#/models/org%2Fpolicy",
    f"{MODEL}@1.5.0": f"#/models/{MODEL}/versions/1.5.0",
    f"{MODEL}: 1.3.0 to 1.5.0": f"#/models/{MODEL}/diff?from=1.3.0&to=1.5.0",
    "Deployments": "#/deployments",
    f"eu-serving: {MODEL}": f"#/deployments/{MODEL}/eu-serving",
    "Transfers": "#/transfers",
    "Fleet": "#/fleet",
    "Autoscaler": "#/autoscaler",
    FLEET: f"#/autoscaler/{FLEET}",
    "Audit": "#/audit",
    "No such page": "#/nowhere/at/all",
}


def api(served: Served, where: str, **query: Any) -> Any:
    answer = httpx.get(f"{served.base}/api/v1/{where}", params=query, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_page_is_there_and_behaves(
    browser: BrowserThread, opened: Opener, served: Served, theme: str
) -> None:
    """With a name, a place and contrast for everything on it. `opened` fails the test for an error, a violation of the
    policy or a request to anybody else."""
    watched = opened(served.base, color_scheme=theme, reduced_motion="reduce")
    wrongs = {}
    for title, address in PAGES.items():
        page = watched.goto(address)
        page.wait_for_function("(title) => document.querySelector('h1').textContent === title", arg=title)
        watched.settled()
        assert page.title() == f"{title} · textnlp-fast"
        assert not page.locator(".failure").count(), page.locator(".failure").first.inner_text()
        assert not page.evaluate("document.documentElement.scrollWidth > innerWidth"), f"{title} is too wide"
        assert page.evaluate("window.hacked") is None
        if page.locator("table.versions").count():
            page.wait_for_selector("svg.graph .node")
        found = structure_wrongs(page) + (contrast_wrongs(page) if title != "No such page" else [])
        if found:
            wrongs[title] = sorted(set(found))
    assert not wrongs, wrongs


def test_the_overview_says_what_the_api_says(browser: BrowserThread, opened: Opener, served: Served) -> None:
    watched = opened(served.base).without_events()
    for _ in range(20):
        # What others of this repository's tests pushed reaches the page and the API a moment apart.
        before = api(served, "storage")
        page = watched.goto()
        page.get_by_text("The same as a table").click()
        rows = page.locator("details table tbody tr")
        rows.first.wait_for()
        storage = api(served, "storage")
        if before == storage and rows.count() == len(storage["points"]):
            break
    figures = dict(
        zip(page.locator("dt").all_inner_texts(), page.locator("dd").all_inner_texts(), strict=True)
    )
    assert figures["Models"].split("\n") == [str(storage["models"]), f"{storage['versions']} versions"]
    assert figures["Ratio"] == f"{storage['logical_bytes'] / storage['stored_bytes']:.1f}×"
    names = page.locator("table tbody th").all_inner_texts()
    assert {row["name"] for row in api(served, "models")["items"]} <= set(names)
    # The picture's numbers, as a table.
    assert rows.count() == len(storage["points"])
    # And from the picture itself, by keys: the cursor says each point.
    chart = page.get_by_role("slider", name="Storage over time")
    chart.focus()
    page.keyboard.press("Home")
    first = storage["points"][0]
    assert f"{first['model']}@{first['version']}" in (chart.get_attribute("aria-valuetext") or "")
    page.keyboard.press("ArrowRight")
    assert chart.get_attribute("aria-valuenow") == "1"


def test_the_graph_has_every_version_and_edge(browser: BrowserThread, opened: Opener, served: Served) -> None:
    page = opened(served.base).goto(PAGES[MODEL])
    graph = api(served, f"models/{MODEL}/graph")
    # It is drawn when the rows have their heights.
    page.wait_for_selector("svg.graph .node")
    shown = page.eval_on_selector_all("svg.graph .node", "(all) => all.map((each) => each.dataset.version)")
    assert shown == [f"1.{number}.0" for number in range(5, -1, -1)]
    edges = page.eval_on_selector_all(
        "svg.graph .edge", "(all) => all.map((each) => ({...each.dataset}))"
    )  # from the newer to the older
    assert sorted((each["to"], each["from"], each["kind"]) for each in edges) == sorted(
        (each["from"], each["to"], each["kind"]) for each in graph["edges"]
    )
    row = page.locator("tr", has=page.get_by_role("link", name="1.2.0", exact=True)).filter(
        has_text="production"
    )
    assert {"production", "champion", "serves eu-serving"} <= set(row.locator(".badge").all_inner_texts())
    assert "pinned" in page.locator("table.versions tbody tr").last.inner_text()


def test_a_version_shows_its_parts(browser: BrowserThread, opened: Opener, served: Served) -> None:
    page = opened(served.base).goto(PAGES[f"{MODEL}@1.5.0"])
    detail = api(served, f"models/{MODEL}/versions/1.5.0")
    files = page.get_by_role("region", name="Files").last
    assert files.locator("tbody tr").count() == len(detail["files"])
    tensors = page.get_by_role("region", name="Tensors").last
    assert tensors.locator("tbody tr").count() == detail["tensors"]
    card = page.locator(".card-text")
    assert card.locator("h3").inner_text() == "Tiny Llama"
    assert card.locator("li").all_inner_texts() == ["first", f"second {HOSTILE}"]
    assert card.locator("td").all_inner_texts() == ["mmlu", "0.71"]
    # The web, and not a script, is linked; no picture is fetched.
    assert [link.get_attribute("href") for link in card.locator("a").all()] == ["https://example.org/x"]
    assert not page.locator("main img, main script, main iframe").count()
    assert page.get_by_text("What changed since 1.4.0").get_attribute("href") == (
        f"#/models/{MODEL}/diff?from=1.4.0&to=1.5.0"
    )


def test_the_heat_map_is_what_the_diff_says(browser: BrowserThread, opened: Opener, served: Served) -> None:
    page = opened(served.base).goto(PAGES[f"{MODEL}: 1.3.0 to 1.5.0"])
    diff = api(served, f"models/{MODEL}/diff", **{"from": "1.3.0", "to": "1.5.0"})
    assert page.locator(".cell").count() == len(diff["cells"])
    steps = dict(
        page.eval_on_selector_all(
            ".cell",
            "(all) => all.map((each) => [each.getAttribute('aria-label'), Number(each.classList[1].slice(5))])",
        )
    )
    # A greater change is never lighter.
    most = sorted(
        (cell["changed_fraction"] or 0.0, step)
        for cell in diff["cells"]
        for label, step in steps.items()
        if label.startswith(f"{cell['layer']}, {cell['part']}, ")
    )
    assert len(most) == len(diff["cells"])
    assert [step for _, step in most] == sorted(step for _, step in most)
    assert most[0] == (0.0, 0) and most[-1][1] == 9

    for name, words in (("Norm", "L2 norm"), ("Bytes", "bytes that")):
        page.locator(".choice").get_by_role("button", name=name).click()
        assert words in page.get_by_role("grid").get_attribute("aria-label")
    assert page.url.endswith("by=bytes")  # and so it is when the address is passed on
    page.get_by_text("The same as a table").click()
    rows = page.get_by_role("region", name="Layers by parts").last.locator("tbody tr")
    rows.first.wait_for()  # the table is made when the browser gets round to saying that it was opened
    assert rows.count() == len(diff["cells"])


def test_decisions_are_told_with_their_reasons(
    browser: BrowserThread, opened: Opener, served: Served
) -> None:
    page = opened(served.base).goto(PAGES[FLEET])
    decisions = api(served, f"autoscaler/{FLEET}/decisions", limit=1000)["items"]
    reasons = page.get_by_role("region", name="Why")
    assert decisions[0]["reasons"][0] in reasons.inner_text()
    chart = page.get_by_role("slider")
    assert chart.get_attribute("aria-valuemax") == str(len(decisions) - 1)
    chart.focus()
    page.keyboard.press("Home")
    assert decisions[-1]["reasons"][0] in reasons.inner_text()
    box = chart.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + 80)
    shown = page.locator(".tooltip").inner_text()
    assert re.search(r"wanted: \d", shown) and re.search(r"forecast: [\d.]+", shown)
    page.wait_for_selector(".sentences")  # what the service makes of it in full


def test_fleet_and_audit_have_their_rows(browser: BrowserThread, opened: Opener, served: Served) -> None:
    watched = opened(served.base)
    page = watched.goto("#/fleet")
    instances = api(served, "fleet/instances")["items"]
    machines = page.get_by_role("region", name="Machines").last.locator("tbody tr")
    assert machines.count() == len(instances) == 3
    saved = next(dd for dd in page.locator("dd").all_inner_texts() if "of on demand" in dd)
    assert float(saved.split("\n")[0].lstrip("$")) == pytest.approx(
        api(served, "fleet/costs")["saved_usd"], abs=0.5
    )
    page = watched.goto("#/audit")
    records = api(served, "audit", limit=1000)["items"]
    table = page.get_by_role("region", name="Audit records")
    assert table.locator("tbody tr").count() == min(100, len(records))
    page.get_by_label("Filter Audit records").fill("deploy")
    assert table.locator("tbody tr").count() == sum("deploy" in json.dumps(each) for each in records)
    page.get_by_role("button", name="Verify the log").click()
    page.get_by_text("The log is whole.").wait_for()


def test_hostile_words_stay_words(browser: BrowserThread, opened: Opener, served: Served) -> None:
    """Every text of every real answer is made a hostile one, model names and versions too."""
    watched = opened(served.base)
    watched.expected = {404, 422}  # the service knows no model of such a name

    def poisoned(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {name: poisoned(each, name) for name, each in value.items()}
        if isinstance(value, list):
            return [poisoned(each, key) for each in value]
        # What the pages reckon with, they would not show otherwise.
        if not isinstance(value, str) or key.endswith("_at") or key in {"at", "since", "role", "next_cursor"}:
            return value
        return f"{HOSTILE}{value}"

    def poison(route: Any) -> None:
        if "/events" in route.request.url or "/me" in route.request.url:
            route.continue_()
            return
        answer = route.fetch()
        body = answer.text()
        route.fulfill(response=answer, body=json.dumps(poisoned(json.loads(body))) if body else body)

    watched.context.route("**/api/v1/**", poison)
    for address in PAGES.values():
        page = watched.goto(address)
        assert not page.locator("main img, main script, main iframe").count()
        assert page.evaluate("window.hacked") is None
    page = watched.goto("#/")
    assert HOSTILE in page.locator("main").inner_text()
    # And where such a name leads: an address that finds its way back to the same name.
    page.locator("table tbody th a").first.click()
    page.wait_for_function("() => document.querySelector('h1').textContent.includes('onerror')")
    assert page.evaluate("window.hacked") is None


def test_empty_houses_say_what_to_do_next(
    browser: BrowserThread, opened: Opener, bare: Served, tmp_path: Path
) -> None:
    watched = opened(bare.base)
    commands = set()
    for address in ("#/", "#/deployments", "#/transfers", "#/fleet", "#/autoscaler", "#/audit"):
        page = watched.goto(address)
        assert not page.locator(".failure").count()
        assert page.locator(".empty").count(), address
        commands |= set(page.locator(".empty code").all_inner_texts())
    assert len(commands) >= 5


def test_a_deployment_goes_back_after_a_question(
    browser: BrowserThread, opened: Opener, served: Served, house: Path
) -> None:
    registry = Registry(Repository.open(house / "repository"), actor="alice")
    registry.deploy("tiny-llama", "1.3.0", "roll-back-me")
    registry.deploy("tiny-llama", "1.4.0", "roll-back-me")
    watched = opened(served.base)
    page = watched.goto("#/deployments")
    button = page.get_by_role("button", name="Roll back roll-back-me of tiny-llama")
    button.wait_for()
    button.click()
    dialog = page.get_by_role("dialog")
    assert "tiny-llama@1.3.0" in dialog.inner_text() and "instead of 1.4.0" in dialog.inner_text()
    page.keyboard.press("Escape")
    dialog.wait_for(state="detached")
    assert registry.deployments("tiny-llama")["tiny-llama"]["roll-back-me"].version == "1.4.0"
    button.click()
    dialog.get_by_label("Why").fill(HOSTILE)
    dialog.get_by_role("button", name="Roll back").click()
    dialog.wait_for(state="detached")
    assert registry.deployments("tiny-llama")["tiny-llama"]["roll-back-me"].version == "1.3.0"
    page = watched.goto("#/deployments/tiny-llama/roll-back-me")
    assert HOSTILE in page.get_by_role("region", name="History").inner_text()


def test_a_publisher_moves_names_and_pins(
    browser: BrowserThread, opened: Opener, served: Served, house: Path
) -> None:
    watched = opened(served.base)
    watched.expected = {422, 409, 403}
    page = watched.goto("#/models/org%2Fpolicy/versions/0.1.0")
    dialog = page.get_by_role("dialog")
    page.get_by_role("button", name="Move to a stage").click()
    dialog.get_by_label("Stage").fill("nowhere")
    dialog.get_by_role("button", name="Move").click()
    # What is wrong is said where it was asked for, and can be mended there.
    page.wait_for_function("() => document.querySelector('dialog .wrong').textContent")
    dialog.get_by_label("Stage").fill("staging")
    dialog.get_by_role("button", name="Move").click()
    page.locator(".lead .badge", has_text="staging").wait_for()
    page.get_by_role("button", name="Set an alias").click()
    dialog.get_by_label("Alias").fill("candidate")
    dialog.get_by_role("button", name="Set the alias").click()
    page.locator(".lead .badge", has_text="candidate").wait_for()
    page.get_by_role("button", name="Pin", exact=True).click()
    dialog.get_by_role("button", name="Pin").click()
    page.get_by_role("button", name="Unpin").wait_for()
    references = Registry(Repository.open(house / "repository"), actor="alice").references("org/policy")
    assert references.aliases["candidate"].version == "0.1.0"
    assert CARD  # the other model has it; this one says how to push one
    assert "textnlp-fast card org/policy@0.1.0" in page.locator("main").inner_text()
