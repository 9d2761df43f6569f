"""Fixtures for every folder of tests. What starts server processes lives in ``servers.py``."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from textnlp_fast import _native

# Tests import `faults.proxy`, `servers`, `attacks`, `guard` and `reference` by name.
sys.path.insert(0, str(Path(__file__).parent))

pytest_plugins = ["servers"]

# A busy machine is no reason to fail; a failure prints what to paste to see it again.
settings.register_profile(
    "any machine", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
# Continuous integration tries fewer where a test does not say how many and the same: to say what a change broke.
# A developer's run and the nightly try others each time, and all of them: they say what was broken all along.
settings.register_profile(
    "same", settings.get_profile("any machine"), max_examples=40, derandomize=True, database=None
)
_SAME = os.environ.get("CI") and "TEXTNLP_FAST_NIGHTLY" not in os.environ
settings.load_profile("same" if _SAME else "any machine")


@pytest.fixture(scope="session", autouse=True)
def state_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What this package remembers of logs in buckets is not kept among the user's own."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(params=_native.available_isas())
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Runs a test once for each instruction set; its value is the name of the one in force."""
    before = _native.isa_name()
    assert _native.force_isa(request.param)
    yield request.param
    assert _native.force_isa(before)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where one instruction set is forced, tests that force one themselves run on that one only.

    `make test` has run them on all.
    """
    forced = os.environ.get("TEXTNLP_FAST_ISA")
    if not forced:
        return
    others = [item for item in items if _isa_of(item) not in (None, forced)]
    if others:
        config.hook.pytest_deselected(items=others)
        items[:] = [item for item in items if _isa_of(item) in (None, forced)]


def _isa_of(item: pytest.Item) -> object:
    callspec = getattr(item, "callspec", None)
    return callspec.params.get("isa") if callspec is not None else None
