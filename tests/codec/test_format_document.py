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
    payloads = [bytes.fromhex(block) for block in blocks]
    assert [payload[0] for payload in payloads] == [0x13, 0x14, 0x16]
    base = bytes([7]) * 256
    target = base[:40] + bytes([9]) + base[41:]
    for payload in payloads:
        assert reference.decode(payload, 256, base) == target
    for isa in ISAS:
        with forced(isa):
            assert all(decoded(payload, 256, base) == target for payload in payloads)
            assert codec.encode(target, base, dtype="U8") == payloads[-1]
