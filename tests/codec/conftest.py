"""Puts `tests/` on the path, for `reference.codec` and `codec.inputs`; restores the instruction set."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from textnlp_fast import _native

TESTS = str(Path(__file__).resolve().parent.parent)
if TESTS not in sys.path:
    sys.path.insert(0, TESTS)


@pytest.fixture(autouse=True)
def same_isa_afterwards() -> Iterator[None]:
    before = _native.isa_name()
    yield
    _native.force_isa(before)
