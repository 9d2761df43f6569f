"""Restores the instruction set after each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from textnlp_fast import _native


@pytest.fixture(autouse=True)
def same_isa_afterwards() -> Iterator[None]:
    before = _native.isa_name()
    yield
    assert _native.force_isa(before)
