"""Who may see what: tokens, roles, services that are away or not ready. Said in place, with a way out."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from service.dashboard.auditing import contrast_wrongs, structure_wrongs
from service.dashboard.browsing import BrowserThread, Opener
from service.dashboard.house import MODEL, Served, serving
from textnlp_fast.service.auth.principals import Role
from textnlp_fast.service.auth.tokens import new_token


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    path = tmp_path_factory.mktemp("tokens") / "tokens.yaml"
    made = {role.word: new_token(path, f"a-{role.word}", role) for role in (Role.READER, Role.OPERATOR)}
    return {**made, "file": str(path)}


@pytest.fixture(scope="module")
def guarded(house: Path, tokens: dict[str, str]) -> Iterator[Served]:
    """The same house, where everybody has to say who they are."""
    with serving(house, tokens=Path(tokens["file"])) as service:
        yield service


def test_a_token_is_asked_for_kept_in_the_tab_and_given_up(
    browser: BrowserThread, opened: Opener, guarded: Served, tokens: dict[str, str]
) -> None:
    watched = opened(guarded.base)
    watched.expected = {401}
    page = watched.goto(f"#/models/{MODEL}")
    failure = page.locator(".failure").first
    assert "Sign in to see this" in failure.inner_text()
    assert MODEL not in page.locator("table").all_inner_texts()
    assert not structure_wrongs(page) + contrast_wrongs(page)

    failure.get_by_label("Token").fill("tnf_not-one-of-theirs")
    failure.get_by_role("button", name="Sign in").click()
    page.get_by_text("The service does not know this token.").first.wait_for()
    assert page.evaluate("sessionStorage.length") == 0

    failure.get_by_label("Token").fill(tokens["reader"])
    page.keyboard.press("Enter")
    page.wait_for_selector("svg.graph .node")
    assert not page.locator(".failure").count()
    assert page.locator("#who").inner_text().startswith("a-reader (reader)")
    assert page.evaluate("Object.values(sessionStorage)") == [tokens["reader"]]
    assert tokens["reader"] not in page.evaluate("JSON.stringify(localStorage) + document.cookie + location")
    page.locator("#live[data-state=live]").wait_for()

    page.reload()  # the tab still has it
    page.wait_for_selector("svg.graph .node")
    page.get_by_role("button", name="Sign out").click()
    page.locator(".failure").first.wait_for()
    assert not page.locator("svg.graph").count()
    assert page.evaluate("sessionStorage.length") == 0
    page.locator("#live[data-state=refused]").wait_for()


def test_a_reader_is_told_what_is_for_others(
    browser: BrowserThread, opened: Opener, guarded: Served, tokens: dict[str, str]
) -> None:
    watched = opened(guarded.base)
    watched.expected = {403}
    watched.context.add_init_script(f"sessionStorage.setItem('textnlp-fast.token', {tokens['reader']!r})")
    page = watched.goto("#/deployments")
    page.get_by_role("link", name="eu-serving").wait_for()
    assert not page.get_by_role("button", name="Roll back").count()
    page = watched.goto("#/transfers")
    page.get_by_text("Starting transfers is for publishers; you are a-reader (reader).").wait_for()
    assert not page.get_by_role("button", name="Push a folder").count()
    page = watched.goto(f"#/models/{MODEL}/versions/1.2.0")
    assert not page.get_by_role("button", name="Move to a stage").count()
    page = watched.goto("#/audit")
    page.get_by_text("for operators; you are a-reader (reader)").first.wait_for()

    # What a page did not offer, the service refuses; and where the service refuses to show, the page says so.
    headers = {"Authorization": f"Bearer {tokens['reader']}"}
    url = f"{guarded.base}/api/v1/models/{MODEL}/deployments/eu-serving/rollback"
    assert httpx.post(url, json={}, headers=headers).status_code == 403

    def refuse(route: object) -> None:
        answer = route.fetch(method="POST", post_data="{}", url=url)  # type: ignore[attr-defined]
        route.fulfill(response=answer)  # type: ignore[attr-defined]

    watched.context.route("**/api/v1/deployments*", refuse)
    page = watched.goto("#/deployments")
    failure = page.locator(".failure")
    assert "Not for this token" in failure.inner_text()
    assert "You are a-reader (reader)." in failure.inner_text()
    watched.context.unroute("**/api/v1/deployments*")
    failure.get_by_label("Token").fill(tokens["operator"])
    failure.get_by_role("button", name="Use another token").click()
    page.get_by_role("link", name="eu-serving").wait_for()
    page.get_by_role("button", name="Roll back eu-serving of tiny-llama").wait_for()


def test_a_repository_that_is_away_is_said_and_asked_for_again(
    browser: BrowserThread, opened: Opener, tmp_path: Path, house: Path
) -> None:
    with serving(tmp_path) as service:
        watched = opened(service.base)
        watched.expected = {0, 503}
        page = watched.goto("#/")
        failure = page.locator(".failure", has_text="Models")
        failure.wait_for()
        assert "The service is not ready" in failure.inner_text()
        assert failure.get_by_role("button", name="Try again").count()
        shutil.copytree(house / "repository", tmp_path / "repository")
        # It is asked for again without anybody's doing.
        page.get_by_role("link", name=MODEL, exact=True).first.wait_for()


def test_a_service_that_went_away_comes_back(browser: BrowserThread, opened: Opener, house: Path) -> None:
    with serving(house) as service:
        watched = opened(service.base)
        watched.expected = {0}
        page = watched.goto("#/deployments")
        page.locator("#live[data-state=live]").wait_for()
        port = service.port
    page.locator("#live[data-state=waiting]").wait_for()
    assert "connecting again" in page.locator("#live").inner_text()
    page.get_by_role("link", name="Overview").click()
    failure = page.locator(".failure").first
    failure.wait_for()
    assert "does not answer" in failure.inner_text() and "textnlp-fast serve" in failure.inner_text()
    with serving(house, port=port):
        page.locator("#live[data-state=live]").wait_for()
        page.get_by_role("link", name=MODEL, exact=True).first.wait_for()


def test_offline_is_said_and_mends_itself(browser: BrowserThread, opened: Opener, served: Served) -> None:
    watched = opened(served.base)
    watched.expected = {0}
    page = watched.goto("#/")
    # The page's files are there, whichever of them are asked for.
    watched.goto("#/fleet")
    watched.context.set_offline(True)
    page.get_by_role("link", name="Overview").click()
    failure = page.locator(".failure", has_text="Models")
    failure.wait_for()
    assert "You are offline" in failure.inner_text()
    watched.context.set_offline(False)
    page.get_by_role("link", name=MODEL, exact=True).first.wait_for()


def test_a_model_that_is_not_there(browser: BrowserThread, opened: Opener, served: Served) -> None:
    watched = opened(served.base)
    watched.expected = {404}
    page = watched.goto("#/models/never-pushed")
    failure = page.locator(".failure").first
    assert "never-pushed" in failure.inner_text()
    failure.get_by_role("link", name="Back to the overview").click()
    page.wait_for_function("() => document.querySelector('h1').textContent === 'Overview'")
