"""Chromium and a furnished house, made once for the tests that want them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the service's packages are not installed")
pytest.importorskip("uvicorn", reason="the service's packages are not installed")

from service.dashboard.browsing import CHROMIUM, BrowserThread, Opener, Watched
from service.dashboard.fleet import rent, scale
from service.dashboard.house import Served, furnish, serving
from textnlp_fast.storage import Repository


@pytest.fixture(scope="session")
def browser() -> Iterator[BrowserThread]:
    pytest.importorskip("playwright", reason="Playwright is not installed")
    if not Path(CHROMIUM).exists():
        pytest.skip(f"there is no browser at {CHROMIUM}")
    thread = BrowserThread()
    yield thread
    thread.close()


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Tests with a browser run in its thread."""
    browser = pyfuncitem.funcargs.get("browser")
    if not isinstance(browser, BrowserThread):
        return None
    names = pyfuncitem._fixtureinfo.argnames
    browser.run(lambda: pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names}))
    return True


@pytest.fixture(scope="session")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a repository, a fleet and folders of models: something of everything."""
    root = tmp_path_factory.mktemp("house")
    furnish(root, Repository.open(root / "repository", create=True))
    rent(root / "fleet")
    scale(root / "fleet")
    return root


@pytest.fixture(scope="session")
def served(house: Path) -> Iterator[Served]:
    """The service in the house, open to whoever reaches it."""
    with serving(house) as service:
        yield service


@pytest.fixture(scope="session")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The service in a house where nothing has happened yet."""
    root = tmp_path_factory.mktemp("bare")
    Repository.open(root / "repository", create=True)
    with serving(root) as service:
        yield service


@pytest.fixture
def opened(browser: BrowserThread) -> Iterator[Opener]:
    """Opens pages that are looked at, and asked in the end whether they behaved."""
    pages: list[Watched] = []

    def open_page(base: str, **context: Any) -> Watched:
        page = Watched(browser.browser, base, **context)  # a test's own thread is the browser's
        pages.append(page)
        return page

    def finish() -> None:
        for page in pages:
            try:
                page.check()
            finally:
                page.close()

    yield open_page
    browser.run(finish)
