"""What changes while one looks: transfers begun from the page, events, and the stream's own words."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.nvml.mock import MockNvml
from service.dashboard.browsing import BrowserThread, Opener
from service.dashboard.house import MODEL, Served, first_weights, serving, write
from textnlp_fast.gpu.health.agent import Agent
from textnlp_fast.gpu.health.collector import Collector
from textnlp_fast.storage import Registry, Repository


def test_a_push_is_begun_and_ends_before_ones_eyes(
    browser: BrowserThread, opened: Opener, served: Served, house: Path
) -> None:
    folder = write(house / "to-push", first_weights(seed=9))
    page = opened(served.base).goto("#/transfers")
    page.locator("#live[data-state=live]").wait_for()
    page.get_by_role("button", name="Push a folder").click()
    dialog = page.get_by_role("dialog")
    assert str(house) in dialog.inner_text()  # where folders may lie
    dialog.get_by_label("Folder or file").fill(str(folder))
    dialog.get_by_label("Model").fill("pushed-here")
    dialog.get_by_label("Version").fill("1.0.0")
    dialog.get_by_label("Note").fill("from the page")
    dialog.get_by_role("button", name="Push").click()
    dialog.wait_for(state="detached")
    row = page.locator(".transfers li").first
    row.locator(".badge", has_text="done").wait_for()
    assert "pushed-here" in row.inner_text() and "took" in row.inner_text()
    assert "done" in page.locator("#said").inner_text()  # and is said to those who listen
    assert [each.version for each in Repository.open(house / "repository").log("pushed-here")] == ["1.0.0"]


def test_what_others_begin_shows_by_itself(
    browser: BrowserThread, opened: Opener, served: Served, house: Path
) -> None:
    page = opened(served.base).goto("#/transfers")
    page.locator("#live[data-state=live]").wait_for()
    before = page.locator(".transfers li").count()
    body = {"kind": "pull", "model": MODEL, "version": "1.0.0", "path": str(house / "pulled")}
    made = httpx.post(f"{served.base}/api/v1/transfers", json=body, timeout=60).json()
    row = page.locator(f".transfers li[data-id='{made['id']}']")
    row.locator(".badge", has_text="done").wait_for()
    assert page.locator(".transfers li").count() == before + 1
    assert (house / "pulled" / "model.safetensors").exists()
    row.locator("summary").press("Enter")
    assert str(house / "pulled") in row.inner_text()


def test_a_failed_one_says_why_and_one_is_cancelled_after_a_question(
    browser: BrowserThread, opened: Opener, served: Served, house: Path
) -> None:
    watched = opened(served.base)
    watched.expected = {403, 404, 422}
    page = watched.goto("#/transfers")
    page.get_by_role("button", name="Push a folder").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Folder or file").fill("/etc")
    dialog.get_by_label("Model").fill("m")
    dialog.get_by_label("Version").fill("1.0.0")
    dialog.get_by_role("button", name="Push").click()
    # Said where it was asked for; nothing that was typed is lost.
    page.wait_for_function("() => document.querySelector('dialog .wrong').textContent")
    assert dialog.get_by_label("Model").input_value() == "m"
    page.keyboard.press("Escape")

    # A running one, as the service tells of it: the event is the service's own, its state held back.
    body = {"kind": "verify", "model": MODEL}
    made = httpx.post(f"{served.base}/api/v1/transfers", json=body, timeout=60).json()
    running = {**made, "state": "running", "started_at": made["created_at"]}
    running["progress"] = {
        "phase": "reading",
        "done_bytes": 250,
        "total_bytes": 1000,
        "bytes_per_s": 50.0,
        "eta_s": 15,
    }
    page.evaluate(
        """async (view) => {
          const { events } = await import(new URL("dashboard/core/events.js", document.baseURI));
          events.dispatchEvent(new CustomEvent("event", { detail: { kind: "transfer", data: view } }));
        }""",
        {**running, "id": "0" * 24},
    )
    row = page.locator(f".transfers li[data-id='{'0' * 24}']")
    bar = row.get_by_role("progressbar")
    assert bar.get_attribute("aria-valuenow") == "25"
    assert "250 B of 1.00 kB (25 %)" in row.inner_text() and "15 s left" in row.inner_text()
    row.get_by_role("button", name="Cancel").click()
    assert "Cancel this transfer?" in dialog.inner_text()
    dialog.get_by_role("button", name="Cancel the transfer").click()
    # The service knows of none with this id, and says so in the question.
    page.wait_for_function("() => document.querySelector('dialog .wrong').textContent")
    dialog.get_by_role("button", name="Cancel", exact=True).click()
    dialog.wait_for(state="detached")


def test_changes_of_others_show_without_a_reload(
    browser: BrowserThread, opened: Opener, served: Served, house: Path
) -> None:
    page = opened(served.base).goto(f"#/models/{MODEL}")
    page.locator("#live[data-state=live]").wait_for()
    Registry(Repository.open(house / "repository"), actor="bob").set_alias(MODEL, "shown-at-once", "1.3.0")
    page.locator(".badge", has_text="shown-at-once").first.wait_for()


@given(
    events=st.lists(
        st.fixed_dictionaries(
            {
                "id": st.text("abc123-", max_size=6),
                "event": st.sampled_from(["transfer", "registry", "resync"]),
                "data": st.dictionaries(st.text(max_size=5), st.text(max_size=12), max_size=3),
            }
        ),
        max_size=6,
    ),
    cuts=st.lists(st.integers(0, 400), max_size=8),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
)
@settings(max_examples=25)
def check_the_parser(page: Any, events: list[dict[str, Any]], cuts: list[int], end: str) -> None:
    lines = ["retry: 2000", ""]
    for each in events:
        lines += [f"id: {each['id']}", ": a comment", f"event: {each['event']}"]
        lines += [f"data: {line}" for line in json.dumps(each["data"], indent=1).split("\n")]
        lines += [""]
    text = end.join(lines) + end
    places = sorted({min(cut, len(text)) for cut in cuts} | {0, len(text)})
    pieces = [text[begin:stop] for begin, stop in pairwise(places)]
    # A lone "\r" at the very end may yet become "\r\n": the next line shows which.
    told = page.evaluate(
        """async (pieces) => {
          const { EventParser } = await import(new URL("dashboard/core/events.js", document.baseURI));
          const parser = new EventParser();
          return [...pieces, ": the end\\n"].flatMap((piece) => parser.feed(piece));
        }""",
        pieces,
    )
    assert [(each["event"], json.loads(each["data"]), each["id"]) for each in told] == [
        (each["event"], each["data"], each["id"]) for each in events
    ]


def test_events_are_read_however_they_are_cut(browser: BrowserThread, opened: Opener, served: Served) -> None:
    check_the_parser(opened(served.base).goto())


def test_a_sick_gpu_is_told_of_with_what_to_do(
    browser: BrowserThread, opened: Opener, house: Path, tmp_path: Path
) -> None:
    """A real agent on a mock of the driver, asked by the service."""
    nvml = MockNvml(tmp_path / "nvml", gpus=4)
    collector = Collector(library=nvml.library, kernel_log=None, period_s=0, machine="node-1")
    try:
        collector.sample()
        with (
            Agent(collector, port=0) as agent,
            serving(house, health_agents={"node-1": agent.url}) as service,
        ):
            watched = opened(service.base)
            watched.expected = {0}
            page = watched.goto("#/fleet")
            nvml.xid(2, 79)
            # The page asks every half minute by itself; who cannot wait opens it again.
            finding = page.locator(".findings li", has_text="79")
            for _ in range(120):
                watched.goto("#/deployments")
                watched.goto("#/fleet")
                if finding.count():
                    break
                page.wait_for_timeout(500)
            shown = page.get_by_role("region", name="Health").inner_text()
            assert "node-1" in shown and "4 GPUs" in shown
            assert "critical" in finding.first.inner_text() and "To do: " in finding.first.inner_text()
    finally:
        collector.close()
