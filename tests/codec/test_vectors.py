"""The golden vectors: every instruction set reads them, and writes those of the core's encoder again."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest

from codec.inputs import DTYPES, INTEGER_BYTES, ISAS, coders, decoded, forced, modes
from reference import codec as reference
from reference.codec import AS_STEPS, BY_BITS, IN_LANES, PAIRED, STEP_TYPES
from textnlp_fast.delta import codec

VECTORS = Path(__file__).resolve().parent.parent / "vectors"
INDEX: list[dict[str, Any]] = json.loads((VECTORS / "codec" / "index.json").read_text())
BLOB = (VECTORS / "codec" / "vectors.bin").read_bytes()


def part(place: list[int]) -> bytes:
    return zlib.decompress(BLOB[place[0] : place[0] + place[1]])


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("vector", INDEX, ids=lambda vector: vector["name"])
def test_vector(vector: dict[str, Any], isa: str) -> None:
    payload, target = part(vector["payload"]), part(vector["target"])
    base = None if vector["base"] is None else part(vector["base"])
    with forced(isa):
        out = decoded(payload, vector["size"], base)
        assert hashlib.sha256(out).hexdigest() == vector["sha256"]
        assert out == target
        assert sorted(set(modes(payload))) == vector["modes"]
        if vector["encode"]:
            frame_size = vector["frame_size"]
            made = codec.encode(target, base, dtype=vector["dtype"], frame_size_bytes=frame_size)
            assert made == payload


@pytest.mark.parametrize("vector", INDEX, ids=lambda vector: vector["name"])
def test_the_reference_reads_it(vector: dict[str, Any]) -> None:
    if vector["size"] > 1 << 16:
        pytest.skip("long; its twin of one segment is read")
    base = None if vector["base"] is None else part(vector["base"])
    found = reference.decode(part(vector["payload"]), vector["size"], base)
    assert hashlib.sha256(found).hexdigest() == vector["sha256"]


def test_every_mode_and_dtype_is_pinned() -> None:
    found = {mode for vector in INDEX for mode in vector["modes"]}
    assert found == {"same", "raw", "planes", "delta", "sparse", "difference", "learned"}
    for mode in ("planes", "delta", "sparse", "learned"):
        assert {vector["dtype"] for vector in INDEX if mode in vector["modes"]} == set(DTYPES)
    for made in (False, True):
        pinned = {
            vector["dtype"]
            for vector in INDEX
            if "difference" in vector["modes"] and vector["encode"] == made
        }
        assert pinned >= set(INTEGER_BYTES)
    assert len({vector["name"] for vector in INDEX}) == len(INDEX)


def test_every_coder_of_sparse_frames_is_pinned() -> None:
    """Each as the core's encoder writes it, too."""
    found = {
        (coder, vector["encode"], vector["dtype"])
        for vector in INDEX
        if {"sparse", "learned"} & set(vector["modes"])
        for coder in coders(part(vector["payload"]))
    }
    for coder in (PAIRED, IN_LANES, BY_BITS):
        assert {dtype for told, _, dtype in found if told == coder} == set(DTYPES)
    for dtype in STEP_TYPES:
        assert {(AS_STEPS, True, dtype), (AS_STEPS, False, dtype)} <= found
    assert {coder for coder, made, _ in found if made} == {PAIRED, IN_LANES, AS_STEPS, BY_BITS}


def test_vectors_are_not_replaced_by_accident() -> None:
    before = (VECTORS / "codec" / "vectors.bin").read_bytes()
    run = subprocess.run(
        [sys.executable, str(VECTORS / "make_codec.py")],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert run.returncode == 1
    assert "--force" in run.stderr
    assert (VECTORS / "codec" / "vectors.bin").read_bytes() == before
