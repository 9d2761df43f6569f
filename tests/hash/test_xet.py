"""The Xet file hash against a reference and, where it is installed, the protocol's own client."""

from __future__ import annotations

import importlib.util
import json
import random
from collections.abc import Sequence
from pathlib import Path

import blake3 as package
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amounts import examples
from reference import xet as reference
from textnlp_fast import hashing
from textnlp_fast.errors import InvalidInputError

GEAR_TABLE = Path(__file__).parents[2].parent / "shared" / "data" / "xet" / "gear_table.json"
needs_gear_table = pytest.mark.skipif(not GEAR_TABLE.exists(), reason=f"no gear table at {GEAR_TABLE}")
needs_chunking = pytest.mark.skipif(
    importlib.util.find_spec("textnlp_fast.chunking") is None,
    reason="textnlp_fast.chunking is not in this build",
)
RANDOM = random.Random(17).randbytes(3_000_000)
SAMPLES: dict[str, bytes] = {
    "empty": b"",
    "one byte": b"x",
    "minimum": RANDOM[:8192],
    "random 100 kB": RANDOM[:100_000],
    "random 3 MB": RANDOM,
    "zeros": bytes(1_500_000),
    "text": b"".join(b"line %d of the file\n" % i for i in range(60_000)),
}


def keyed(data: bytes, key: bytes) -> bytes:
    return package.blake3(data, key=key).digest()


def as_array(ends: Sequence[int]) -> npt.NDArray[np.uint64]:
    return np.array(ends, dtype=np.uint64)


@pytest.fixture(scope="module")
def gear() -> list[int]:
    table: list[int] = json.loads(GEAR_TABLE.read_text())
    return table


def client_hash(path: Path) -> str:
    hf_xet = pytest.importorskip("hf_xet")
    result: str = hf_xet.hash_files([str(path)])[0].hash
    return result


@needs_gear_table
@pytest.mark.parametrize("name", SAMPLES)
def test_tree_against_the_client(name: str, gear: list[int], tmp_path: Path) -> None:
    data = SAMPLES[name]
    ends = reference.boundaries(data, gear)
    path = tmp_path / "file"
    path.write_bytes(data)
    expected = client_hash(path)
    assert reference.file_hash(data, ends, keyed) == expected
    assert hashing.xet_file_hash(data, as_array(ends)) == expected


@needs_chunking
@pytest.mark.parametrize("name", SAMPLES)
def test_files_and_buffers_against_the_client(name: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(SAMPLES[name])
    expected = client_hash(path)
    assert hashing.xet_hash(path) == expected
    assert hashing.xet_hash(str(path), threads=1) == expected
    assert hashing.xet_hash(SAMPLES[name]) == expected


@needs_chunking
def test_a_file_of_several_windows(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(RANDOM * 12)
    expected = client_hash(path)
    assert hashing.xet_hash(path) == expected
    assert hashing.xet_hash(RANDOM * 12) == expected


@needs_gear_table
@pytest.mark.parametrize("window_bytes", [131_073, 300_000, 1_000_000, 4_000_000])
def test_windows_do_not_move_chunks(
    window_bytes: int, gear: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hashing, "_WINDOW_BYTES", window_bytes)
    data = RANDOM[:500_000] + bytes(300_000) + RANDOM[:100_000]
    path = tmp_path / "file"
    path.write_bytes(data)
    expected = reference.file_hash(data, reference.boundaries(data, gear), keyed)
    assert hashing.xet_hash(path) == expected
    assert hashing.xet_hash(data) == expected
    path.write_bytes(b"")
    assert hashing.xet_hash(path) == "0" * 64


# The shape of the tree depends on the hashes, whatever the chunks: short ones make deep trees cheap to try.
@settings(max_examples=examples(60), deadline=None)
@given(
    seed=st.integers(0, 2**32),
    count=st.integers(0, 400),
    longest=st.integers(1, 40),
    threads=st.integers(0, 3),
)
def test_any_tree_against_the_reference(seed: int, count: int, longest: int, threads: int) -> None:
    draw = random.Random(seed)
    ends = [0]
    for _ in range(count):
        ends.append(ends[-1] + draw.randint(1, longest))
    data = RANDOM[: ends[-1]]
    ends = ends[1:]
    assert hashing.xet_file_hash(data, as_array(ends), threads=threads) == reference.file_hash(
        data, ends, keyed
    )


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_chunks_large_enough_for_threads(isa: str, threads: int) -> None:
    ends = [*range(65_536, len(RANDOM), 65_536), len(RANDOM)]
    expected = reference.file_hash(RANDOM, ends, keyed)
    assert hashing.xet_file_hash(RANDOM, as_array(ends), threads=threads) == expected


@pytest.mark.parametrize("ends", [[3, 3, 10], [5, 4, 10], [0, 10], [11], [2**64 - 1]])
def test_ends_that_do_not_rise_within_the_data_are_refused(ends: list[int]) -> None:
    with pytest.raises(InvalidInputError, match="ends"):
        hashing.xet_file_hash(b"0123456789", as_array(ends))


def test_ends_that_leave_bytes_out_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="the length of the data"):
        hashing.xet_file_hash(b"0123456789", as_array([4]))
    with pytest.raises(InvalidInputError, match="the length of the data"):
        hashing.xet_file_hash(b"0123456789", as_array([]))


def test_ends_of_another_type_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="uint64"):
        hashing.xet_file_hash(b"0123456789", np.array([10.0]))
    with pytest.raises(InvalidInputError, match="uint64"):
        hashing.xet_file_hash(b"0123456789", np.array([10], dtype=np.uint32))
