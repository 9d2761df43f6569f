"""Puts ``tests/`` on the path, for ``reference.blake3``; runs a test once for each instruction set."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from textnlp_fast import _native

TESTS = str(Path(__file__).resolve().parent.parent)
if TESTS not in sys.path:
    sys.path.insert(0, TESTS)


@pytest.fixture(params=_native.available_isas())
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """The name of the instruction set in force."""
    before = _native.isa_name()
    assert _native.force_isa(request.param)
    yield request.param
    assert _native.force_isa(before)
