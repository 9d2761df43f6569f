"""The worked example of docs/format.md is real."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from codec.inputs import ISAS, decoded, forced
from reference import codec as reference
from textnlp_fast.delta import codec

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "format.md"


def test_worked_example() -> None:
    if not DOCUMENT.exists():
        pytest.skip("no docs beside these tests")
    (block,) = re.findall(r"```hex\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    payload = bytes.fromhex(block)
    base = bytes([7]) * 256
    target = base[:40] + bytes([9]) + base[41:]
    assert reference.decode(payload, 256, base) == target
    for isa in ISAS:
        with forced(isa):
            assert decoded(payload, 256, base) == target
            assert codec.encode(target, base, dtype="U8") == payload
