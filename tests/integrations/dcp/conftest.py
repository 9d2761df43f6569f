"""One launcher for all tests of the folder."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

import pytest

from integrations.dcp.forking import Launcher, launcher


@pytest.fixture(scope="session")
def ranks() -> Iterator[Launcher]:
    if importlib.util.find_spec("torch") is None:
        pytest.skip("needs torch: pip install torch, its CPU build")
    with launcher() as one:
        yield one
