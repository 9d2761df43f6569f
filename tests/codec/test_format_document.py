"""The worked examples of docs/format.md are real."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from codec.inputs import ISAS, decoded, forced
from reference import codec as reference
from textnlp_fast.delta import codec

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "format.md"


def test_worked_examples() -> None:
    if not DOCUMENT.exists():
        pytest.skip("no docs beside these tests")
    blocks = re.findall(r"```hex\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    delta, sparse = map(bytes.fromhex, blocks)
    assert (delta[0], sparse[0]) == (0x13, 0x14)
    base = bytes([7]) * 256
    target = base[:40] + bytes([9]) + base[41:]
    for payload in (delta, sparse):
        assert reference.decode(payload, 256, base) == target
    for isa in ISAS:
        with forced(isa):
            assert decoded(delta, 256, base) == target
            assert decoded(sparse, 256, base) == target
            assert codec.encode(target, base, dtype="U8") == sparse
