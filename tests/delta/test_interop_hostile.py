"""Foreign deltas that are damaged, or made to do harm: a typed error, and nothing is written."""

from __future__ import annotations

import importlib
import json
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from delta.foreign import (
    INDEX,
    applied,
    imported,
    overwrite,
    parsed,
    slime_delta,
    sparse_delta,
    tensors_of,
    xor,
)
from delta.models import Model, Tensor, make, nudged, safetensors_bytes, tree, weights, write
from textnlp_fast.delta.interop import read_foreign, slime, write_foreign, zstd_stream
from textnlp_fast.errors import (
    CorruptDataError,
    DigestMismatchError,
    InvalidInputError,
    MissingPackageError,
    TextnlpFastError,
    UnsupportedFormatError,
)

zstandard = pytest.importorskip("zstandard")


@pytest.fixture
def new(old: Model) -> Model:
    first, second = old["model-1.safetensors"], old["model-2.safetensors"]
    assert isinstance(first, dict)
    assert isinstance(second, dict)
    return {
        "model-1.safetensors": {"q": nudged(first["q"], 5), "norm": nudged(first["norm"], 1)},
        "model-2.safetensors": {"k": nudged(second["k"], 6), "scalar": nudged(second["scalar"], 2)},
        "config.json": b"{}",
    }


@pytest.fixture
def source(tmp_path: Path, old: Model) -> Path:
    return write(old, tmp_path / "old")


def refused(
    error: type[TextnlpFastError], match: str, layout: Any, delta: Path, source: Path, tmp_path: Path
) -> None:
    before = tree(source)
    with pytest.raises(error, match=match) as raised:
        read_foreign(layout, delta, source, tmp_path / "p.tnpatch")
    assert raised.value.hint
    assert not (tmp_path / "p.tnpatch").exists()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    assert tree(source) == before


def lone_sparse(
    path: Path, *, positions: Tensor, values: Tensor, name: str = "norm", **metadata: str
) -> Path:
    content = {f"{name}.indices": positions, f"{name}.values": values}
    path.write_bytes(safetensors_bytes(content, metadata or None))
    return path


def row(dtype: str, code: str, *numbers: int) -> Tensor:
    return Tensor(dtype, (len(numbers),), struct.pack(f"<{len(numbers)}{code}", *numbers))


ONE = Tensor("F32", (1,), bytes(4))
TWO = Tensor("F32", (2,), bytes(8))


@pytest.mark.parametrize(
    ("positions", "values", "error", "match"),
    [
        (row("I32", "i", 3), ONE, CorruptDataError, "position 3 is outside"),
        (row("I64", "q", 2**62), ONE, CorruptDataError, "is outside"),
        (row("I32", "i", -1), ONE, CorruptDataError, "position -1 is outside"),
        (row("I32", "i", 1, 1), TWO, CorruptDataError, "do not rise"),
        (row("I32", "i", 2, 0), TWO, CorruptDataError, "do not rise"),
        (row("I32", "i", 0), TWO, CorruptDataError, "rows of one length"),
        (Tensor("I32", (1, 1), bytes(4)), Tensor("F32", (1, 1), bytes(4)), CorruptDataError, "rows of one"),
        (row("U8", "B", 0), ONE, CorruptDataError, "are U8"),
        (row("I32", "i", 0), Tensor("BF16", (1,), bytes(2)), InvalidInputError, "the source has F32"),
        (row("I32", "i", 0, 1, 2, 3), Tensor("F32", (4,), bytes(16)), CorruptDataError, "changes 4 of 3"),
    ],
)
def test_bad_positions(
    positions: Tensor, values: Tensor, error: Any, match: str, tmp_path: Path, source: Path
) -> None:
    delta = lone_sparse(tmp_path / "d.safetensors", positions=positions, values=values)
    refused(error, match, "sparse", delta, source, tmp_path)


def test_bad_sparse_files(tmp_path: Path, source: Path) -> None:
    fine = row("I32", "i", 0)
    delta = lone_sparse(tmp_path / "d.safetensors", positions=fine, values=ONE, name="gone")
    refused(InvalidInputError, "does not have", "sparse", delta, source, tmp_path)
    lone_sparse(delta, positions=fine, values=ONE, sparse="False")
    refused(InvalidInputError, "anchor", "sparse", delta, source, tmp_path)
    delta.write_bytes(safetensors_bytes({"norm.indices": fine}))
    refused(CorruptDataError, "without 'norm.values'", "sparse", delta, source, tmp_path)
    delta.write_bytes(safetensors_bytes({"norm": ONE}))
    refused(CorruptDataError, "neither positions nor values", "sparse", delta, source, tmp_path)
    both = {"norm.indices": fine, "norm.values": ONE, "norm.idx": row("U16", "H", 0), "norm.val": ONE}
    delta.write_bytes(safetensors_bytes(both))
    refused(CorruptDataError, "twice", "sparse", delta, source, tmp_path)
    coded = {"norm.idx": row("U8", "B", 0), "norm.val": ONE}
    delta.write_bytes(safetensors_bytes(coded, {"encoding": "nvcomp_cascaded"}))
    refused(UnsupportedFormatError, "nvcomp_cascaded", "sparse", delta, source, tmp_path)
    gaps = {"norm.idx": row("U32", "I", 0, 2**32 - 1), "norm.val": TWO}
    delta.write_bytes(safetensors_bytes(gaps))
    refused(CorruptDataError, "is outside", "sparse", delta, source, tmp_path)
    delta.write_bytes(b"\xff" * 100)
    refused(InvalidInputError, "header", "sparse", delta, source, tmp_path)


@pytest.mark.parametrize(
    ("said", "error", "match"),
    [
        ({"delta_encoding": None}, InvalidInputError, "whole checkpoint"),
        ({"delta_encoding": "add"}, UnsupportedFormatError, "delta_encoding 'add'"),
        ({"compression_format": "lz4"}, UnsupportedFormatError, "compression_format"),
        ({"checksum_format": "crc32"}, UnsupportedFormatError, "crc32"),
    ],
)
def test_bad_slime_indexes(
    said: Any, error: Any, match: str, tmp_path: Path, old: Model, new: Model, source: Path
) -> None:
    refused(error, match, "slime", slime_delta(tmp_path / "d", old, new, **said), source, tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "[" * 100_000, '{"metadata": 1, "weight_map": {}}'])
def test_an_index_that_is_none(text: str, tmp_path: Path, source: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / INDEX).write_text(text)
    refused(CorruptDataError, "d/model", "slime", tmp_path / "d", source, tmp_path)


@pytest.mark.parametrize("place", ["../old/model-1.safetensors", "/etc/passwd", 7, "model.bin"])
def test_an_index_that_leads_elsewhere(
    place: Any, tmp_path: Path, old: Model, new: Model, source: Path
) -> None:
    delta = slime_delta(tmp_path / "d", old, new)
    index = json.loads((delta / INDEX).read_text())
    index["weight_map"]["q"] = place
    (delta / INDEX).write_text(json.dumps(index))
    refused(CorruptDataError, "no file beside it", "slime", delta, source, tmp_path)


def test_a_wrong_base_is_found_by_the_checksum(tmp_path: Path, old: Model, new: Model) -> None:
    delta = slime_delta(tmp_path / "d", old, new)
    refused(DigestMismatchError, "has checksum", "slime", delta, write(new, tmp_path / "b"), tmp_path)


def frame(body: bytes) -> bytes:
    return bytes(zstandard.ZstdCompressor(level=1).compress(body))


# A raw block of one byte in a frame whose descriptor asks for a window of 2 GiB.
WIDE = b"\x28\xb5\x2f\xfd" + bytes([0x00, (31 - 10) << 3]) + bytes([0x09, 0, 0, 1])


@pytest.mark.parametrize(
    ("encoding", "body", "error", "match"),
    [
        ("xor", b"no frame at all", CorruptDataError, "no zstd frame"),
        ("xor", frame(bytes(11)), CorruptDataError, "cut short"),
        ("xor", frame(bytes(13)), CorruptDataError, "more bytes"),
        ("xor", frame(bytes(100_000_000)), CorruptDataError, "more bytes"),
        ("xor", frame(b"x" * 5000)[:-3], CorruptDataError, "cut short|no zstd frame|more bytes"),
        ("xor", WIDE, CorruptDataError, "no zstd frame"),
        ("xor", frame(b"x" * 12), DigestMismatchError, "has checksum"),
        ("overwrite", frame(struct.pack("<I", 2**32 - 1)), CorruptDataError, "changes 4294967295 of 12"),
        ("overwrite", frame(struct.pack("<II", 1, 12) + b"x"), CorruptDataError, "position 12 is outside"),
        ("overwrite", frame(struct.pack("<III", 2, 1, 1) + b"xx"), CorruptDataError, "do not rise"),
        ("overwrite", frame(struct.pack("<II", 1, 1)), CorruptDataError, "cut short"),
        ("overwrite", frame(struct.pack("<II", 1, 1) + bytes(50_000_000)), CorruptDataError, "more bytes"),
        ("overwrite", frame(b"xy"), CorruptDataError, "cut short"),
    ],
)
def test_bad_frames(encoding: str, body: bytes, error: Any, match: str, tmp_path: Path, source: Path) -> None:
    delta = slime_delta(tmp_path / "d", {}, {}, delta_encoding=encoding)
    index = json.loads((delta / INDEX).read_text())
    index["weight_map"] = {"norm": "a.safetensors"}
    (delta / INDEX).write_text(json.dumps(index))
    content = {"norm": Tensor("U8", (len(body),), body)}
    (delta / "a.safetensors").write_bytes(safetensors_bytes(content, {"norm": "00000000"}))
    refused(error, match, "slime", delta, source, tmp_path)


def test_bad_slime_shards(tmp_path: Path, old: Model, new: Model, source: Path) -> None:
    delta = slime_delta(tmp_path / "d", old, new)
    (shard,) = delta.glob("*.safetensors")
    good, (header, parts) = shard.read_bytes(), parsed(shard)
    frames = {name: Tensor("U8", (len(part),), part) for name, part in parts.items()}
    shard.write_bytes(safetensors_bytes(frames, {**header["__metadata__"], "q": "0"}))
    refused(DigestMismatchError, "not '0'", "slime", delta, source, tmp_path)
    shard.write_bytes(safetensors_bytes(frames))
    refused(CorruptDataError, "no checksum", "slime", delta, source, tmp_path)
    shard.write_bytes(safetensors_bytes({"q": frames["q"]}, header["__metadata__"]))
    refused(CorruptDataError, "other tensors", "slime", delta, source, tmp_path)
    shard.unlink()
    refused(InvalidInputError, "lacks model-00000", "slime", delta, source, tmp_path)
    shard.write_bytes(good)
    first = old["model-1.safetensors"]
    assert isinstance(first, dict)
    lesser = write({**old, "model-1.safetensors": {"norm": first["norm"]}}, tmp_path / "lesser")
    refused(InvalidInputError, "does not have", "slime", delta, lesser, tmp_path)


def test_a_name_in_two_files(tmp_path: Path, old: Model, new: Model) -> None:
    twice = write({**old, "model-3.safetensors": {"q": weights(3)}}, tmp_path / "twice")
    delta = sparse_delta(tmp_path / "d.safetensors", old, new)
    refused(InvalidInputError, "both have a tensor 'q'", "sparse", delta, twice, tmp_path)


@given(data=st.data())
@settings(max_examples=60)
def test_any_damage_is_a_typed_error(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    root = tmp_path_factory.mktemp("damage")
    old: Model = {"model.safetensors": {"q": weights(1, 1), "b": Tensor("F32", (3,), bytes(12))}}
    new: Model = {"model.safetensors": {"q": nudged(weights(1, 1), 4), "b": nudged(tensors_of(old)["b"], 1)}}
    source = write(old, root / "old")
    kind = data.draw(st.sampled_from(["xor", "overwrite", "indices", "gaps"]))
    if kind in {"xor", "overwrite"}:
        delta = slime_delta(root / "d", old, new, xor if kind == "xor" else overwrite)
        (place,) = delta.glob("*.safetensors")
    else:
        delta = place = sparse_delta(root / "d.safetensors", old, new, kind)
    body = bytearray(place.read_bytes())
    for at in data.draw(st.lists(st.integers(0, len(body) - 1), min_size=1, max_size=3)):
        body[at] ^= data.draw(st.integers(1, 255))
    place.write_bytes(body[: data.draw(st.integers(0, len(body)))] if data.draw(st.booleans()) else body)
    layout: Any = "slime" if delta.is_dir() else "sparse"
    try:
        made = imported(layout, delta, source, root)
    except TextnlpFastError:
        return
    if layout == "slime":  # a checksum lets nothing else pass
        assert made == tree(write(new, root / "new"))


CHILD = """
import os, sys
from textnlp_fast.delta import interop
from textnlp_fast.delta.interop import slime
def die(*_, **__):
    os._exit(9)
which, delta, patch, source, out = sys.argv[1:]
if which == "import":
    interop.create_patch = die
    interop.read_foreign("slime", delta, source, out)
else:
    slime.packer = die
    interop.write_foreign("slime", patch, source, out, checksum="adler32")
"""


def test_what_a_killed_run_left_is_cleared(tmp_path: Path, old: Model, new: Model, source: Path) -> None:
    delta = slime_delta(tmp_path / "d", old, new)
    patch = make(source, write(new, tmp_path / "new"), tmp_path / "first.tnpatch")
    out = {"import": tmp_path / "p.tnpatch", "export": tmp_path / "out"}
    for which, final in out.items():
        words = [sys.executable, "-c", CHILD, which, delta, patch, source, final]
        assert subprocess.run(words, check=False).returncode == 9
        assert not final.exists()
        assert [path for path in tmp_path.iterdir() if path.name.startswith(".")]
        if which == "import":
            assert imported("slime", delta, source, tmp_path) == tree(tmp_path / "new")
        else:
            write_foreign("slime", patch, source, final, checksum="adler32")
            before = {name: tensor.data for name, tensor in tensors_of(old).items()}
            assert applied(final, before)["q"] == tensors_of(new)["q"].data
        assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("missing", ["zstandard", "xxhash"])
def test_a_missing_package_is_named(
    missing: str, tmp_path: Path, old: Model, new: Model, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.import_module

    def without(name: str, package: str | None = None) -> Any:
        if name in {missing, "compression.zstd"}:
            raise ImportError(name)
        return real(name, package)

    delta = slime_delta(tmp_path / "d", old, new, kind="adler32" if missing == "zstandard" else "xxh3-128")
    monkeypatch.setattr("importlib.import_module", without)
    with pytest.raises(MissingPackageError) as raised:
        read_foreign("slime", delta, source, tmp_path / "p")
    assert raised.value.hint == "pip install 'textnlp-fast[interop]'"


def test_wrong_arguments(tmp_path: Path, source: Path) -> None:
    layout: Any = "torch"
    for call in (
        lambda: read_foreign(layout, tmp_path, source, tmp_path / "p"),
        lambda: write_foreign(layout, tmp_path / "p", source, tmp_path / "out"),
        lambda: write_foreign("sparse", tmp_path / "p", source, tmp_path / "out", checksum="blake3"),
        lambda: write_foreign("sparse", tmp_path / "p", source, tmp_path / "out", version=0),
    ):
        with pytest.raises(InvalidInputError):
            call()
    patch = make(source, source, tmp_path / "same")
    for options in ({"checksum": "md5"}, {"checksum": "blake3", "version": 1_000_000}):
        with pytest.raises(InvalidInputError):
            write_foreign("slime", patch, source, tmp_path / "out", **options)
    assert slime.DEFAULT_CHECKSUM in slime.CHECKSUMS
    assert zstd_stream.MAX_WINDOW_BYTES == 1 << 27
