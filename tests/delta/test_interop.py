"""Foreign deltas, written here byte by byte from the layouts that the guide states, not by the code under test."""

from __future__ import annotations

import importlib
import json
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import blake3
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from delta.models import Model, Tensor, make, nudged, safetensors_bytes, size_of, tree, weights, write
from textnlp_fast.delta import apply_patch
from textnlp_fast.delta.interop import LAYOUTS, changes, read_foreign, slime, write_foreign, zstd_stream
from textnlp_fast.errors import (
    CorruptDataError,
    DigestMismatchError,
    InvalidInputError,
    MissingPackageError,
    TextnlpFastError,
    UnsupportedFormatError,
    WrongBaseError,
)

zstandard = pytest.importorskip("zstandard")

INDEX = "model.safetensors.index.json"


# --- the oracle: foreign deltas as their own projects write them -------------------------------------------------


def adler32(data: bytes) -> str:
    return f"{zlib.adler32(data):08x}"


def xor(old: bytes, new: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(old, new, strict=True))


def overwrite(old: bytes, new: bytes) -> bytes:
    at = [i for i, (a, b) in enumerate(zip(old, new, strict=True)) if a != b]
    return struct.pack(f"<{1 + len(at)}I", len(at), *at) + bytes(new[i] for i in at)


def tensors_of(model: Model) -> dict[str, Tensor]:
    return {
        name: tensor
        for content in model.values()
        if not isinstance(content, bytes)
        for name, tensor in content.items()
    }


def slime_delta(
    folder: Path,
    old: Model,
    new: Model,
    encode: Callable[[bytes, bytes], bytes] = xor,
    *,
    checksum: Callable[[bytes], str] = adler32,
    kind: str = "adler32",
    shards: int = 1,
    **said: str | None,
) -> Path:
    """A version's directory; `said` replaces what the index says, None leaves it out."""
    before, after = tensors_of(old), tensors_of(new)
    changed = [name for name in before if before[name].data != after[name].data]
    folder.mkdir(parents=True)
    weight_map: dict[str, str] = {}
    for shard in range(shards):
        names = changed[shard::shards]
        if not names:
            continue
        frames = {
            name: zstandard.ZstdCompressor(level=1).compress(encode(before[name].data, after[name].data))
            for name in names
        }
        file = f"model-{shard:05d}-of-{shards:05d}.safetensors"
        content = {name: Tensor("U8", (len(frame),), frame) for name, frame in frames.items()}
        sums = {name: checksum(after[name].data) for name in names}
        (folder / file).write_bytes(safetensors_bytes(content, sums))
        weight_map |= dict.fromkeys(names, file)
    metadata = {
        "version": "000007",
        "base_version": "000006",
        "delta_encoding": encode.__name__,
        "compression_format": "zstd",
        "checksum_format": kind,
        **said,
    }
    metadata = {key: value for key, value in metadata.items() if value is not None}
    (folder / INDEX).write_text(json.dumps({"metadata": metadata, "weight_map": weight_map}))
    return folder


def elements(tensor: Tensor) -> list[bytes]:
    item = size_of(tensor.dtype, ())
    return [tensor.data[i : i + item] for i in range(0, len(tensor.data), item)]


def sparse_delta(path: Path, old: Model, new: Model, form: str = "indices") -> Path:
    """`form`: indices (I32), long (I64), idx (.idx and .val, raw), gaps (U16), wide (gaps in U32)."""
    before, after = tensors_of(old), tensors_of(new)
    content: dict[str, Tensor] = {}
    for name, tensor in after.items():
        pairs = list(zip(elements(before[name]), elements(tensor), strict=True))
        at = [i for i, (a, b) in enumerate(pairs) if a != b]
        if not at:
            continue
        gaps = [b - a - 1 for a, b in zip([-1, *at], at, strict=False)]
        code, dtype, numbers = {
            "indices": ("i", "I32", at),
            "long": ("q", "I64", at),
            "idx": ("i", "I32", at),
            "gaps": ("H", "U16", gaps),
            "wide": ("I", "U32", gaps),
        }[form]
        first, second = (".indices", ".values") if form in {"indices", "long"} else (".idx", ".val")
        content[name + first] = Tensor(dtype, (len(at),), struct.pack(f"<{len(at)}{code}", *numbers))
        content[name + second] = Tensor(tensor.dtype, (len(at),), b"".join(pairs[i][1] for i in at))
    encoding = "gap_delta" if form in {"gaps", "wide"} else "raw"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(
        safetensors_bytes(content, {"sparse": "True", "encoding": encoding, "model_version": "7"})
    )
    return path


def applied(delta: Path, source: dict[str, bytes]) -> dict[str, bytes]:
    """What the receivers of both layouts make of a delta: tensors by name, from those of the source."""
    made = dict(source)
    if (delta / INDEX).exists():
        index = json.loads((delta / INDEX).read_text())
        assert index["metadata"]["delta_encoding"] == "xor"
        for file in set(index["weight_map"].values()):
            header, frames = parsed(delta / file)
            for name, frame in frames.items():
                assert header[name]["dtype"] == "U8"
                made[name] = xor(source[name], zstandard.ZstdDecompressor().decompress(frame))
                sums = {"adler32": adler32, "blake3": lambda data: blake3.blake3(data).hexdigest()}
                assert sums[index["metadata"]["checksum_format"]](made[name]) == header["__metadata__"][name]
        return made
    header, parts = parsed(delta / "delta_sparse.safetensors")
    assert header["__metadata__"]["sparse"] == "True"
    for name in json.loads(header["__metadata__"]["changed_params"]):
        at = np.frombuffer(parts[f"{name}.indices"], "<i4")
        item = len(parts[f"{name}.values"]) // len(at)
        assert header[f"{name}.values"]["data_offsets"][0] % item == 0
        rows = np.frombuffer(source[name], np.uint8).reshape(-1, item).copy()
        rows[at] = np.frombuffer(parts[f"{name}.values"], np.uint8).reshape(-1, item)
        made[name] = rows.tobytes()
    return made


def parsed(path: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    places = {name: entry["data_offsets"] for name, entry in header.items() if name != "__metadata__"}
    return header, {name: body[begin:end] for name, (begin, end) in places.items()}


# --- fixtures ------------------------------------------------------------------------------------------------


@pytest.fixture
def old() -> Model:
    return {
        "model-1.safetensors": {"q": weights(1), "norm": Tensor("F32", (3,), bytes(12))},
        "model-2.safetensors": {"k": weights(2), "scalar": Tensor("I64", (), bytes(8))},
        "config.json": b"{}",
    }


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


def imported(layout: Any, delta: Path, source: Path, tmp_path: Path) -> dict[str, bytes]:
    """The model that a delta leads to, by way of a patch."""
    report = read_foreign(layout, delta, source, tmp_path / "p.tnpatch", threads=2)
    assert report.path == str(tmp_path / "p.tnpatch")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    apply_patch(tmp_path / "p.tnpatch", source, tmp_path / "made")
    return tree(tmp_path / "made")


# --- there -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encode", [xor, overwrite])
@pytest.mark.parametrize("shards", [1, 3])
def test_slime_is_read(
    encode: Any, shards: int, tmp_path: Path, old: Model, new: Model, source: Path
) -> None:
    delta = slime_delta(tmp_path / "weight_v000007", old, new, encode, shards=shards)
    assert imported("slime", delta, source, tmp_path) == tree(write(new, tmp_path / "new"))


def test_slime_checksums(tmp_path: Path, old: Model, new: Model, source: Path) -> None:
    def blake(data: bytes) -> str:
        return str(blake3.blake3(data).hexdigest())

    delta = slime_delta(tmp_path / "b", old, new, checksum=blake, kind="blake3")
    assert imported("slime", delta, source, tmp_path) == tree(write(new, tmp_path / "new"))


def test_slime_with_its_default_checksum(tmp_path: Path, old: Model, new: Model, source: Path) -> None:
    xxhash = pytest.importorskip("xxhash")

    def xxh3(data: bytes) -> str:
        return str(xxhash.xxh3_128(data).hexdigest())

    delta = slime_delta(tmp_path / "x", old, new, checksum=xxh3, kind="xxh3-128")
    assert imported("slime", delta, source, tmp_path) == tree(write(new, tmp_path / "new"))
    report = write_foreign("slime", tmp_path / "p.tnpatch", source, tmp_path / "out")
    index = json.loads((Path(report.path) / INDEX).read_text())
    assert index["metadata"]["checksum_format"] == "xxh3-128"
    header, _ = parsed(Path(report.path) / index["weight_map"]["q"])
    assert header["__metadata__"]["q"] == xxh3(tensors_of(new)["q"].data)


def test_slime_without_changes(tmp_path: Path, old: Model, source: Path) -> None:
    delta = slime_delta(tmp_path / "weight_v000001", old, old)
    assert imported("slime", delta, source, tmp_path) == tree(source)
    made = write_foreign("slime", tmp_path / "p.tnpatch", source, tmp_path / "out", checksum="adler32")
    assert made.changed_tensors == 0
    assert sorted(tree(tmp_path / "out")) == [INDEX]
    assert applied(tmp_path / "out", {}) == {}


@pytest.mark.parametrize("form", ["indices", "long", "idx", "gaps", "wide"])
def test_sparse_is_read(form: str, tmp_path: Path, old: Model, new: Model, source: Path) -> None:
    delta = sparse_delta(tmp_path / "deltas" / "step_000011.safetensors", old, new, form)
    assert imported("sparse", delta, source, tmp_path) == tree(write(new, tmp_path / "new"))


def test_a_model_of_one_file(tmp_path: Path) -> None:
    old: Model = {"model.safetensors": {"q": weights(1)}}
    new: Model = {"model.safetensors": {"q": nudged(weights(1), 4)}}
    one, two = write(old, tmp_path / "a.safetensors"), write(new, tmp_path / "b.safetensors")
    read_foreign("sparse", sparse_delta(tmp_path / "d.safetensors", old, new), one, tmp_path / "p")
    apply_patch(tmp_path / "p", one, tmp_path / "c.safetensors")
    assert (tmp_path / "c.safetensors").read_bytes() == two.read_bytes()


@pytest.mark.parametrize("layout", ["slime", "sparse"])
def test_a_tensor_of_many_windows(layout: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "WINDOW_BYTES", 1 << 10)
    monkeypatch.setattr(changes, "_BATCH", 7)
    monkeypatch.setattr("textnlp_fast.delta.interop.updates._WINDOW_BYTES", 1 << 10)
    old: Model = {"model.safetensors": {"q": weights(1, 32)}}
    new: Model = {"model.safetensors": {"q": nudged(nudged(weights(1, 32), 4), 9)}}
    root, wanted = write(old, tmp_path / "old"), tree(write(new, tmp_path / "new"))
    for number, make_delta in enumerate(
        (lambda p: slime_delta(p, old, new, overwrite), lambda p: sparse_delta(p, old, new, "gaps"))
    ):
        if (layout == "slime") != (number == 0):
            continue
        assert imported(layout, make_delta(tmp_path / "delta"), root, tmp_path) == wanted
    write_foreign(layout, tmp_path / "p.tnpatch", root, tmp_path / "out", **sums(layout))
    assert applied(tmp_path / "out", {"q": weights(1, 32).data})["q"] == tensors_of(new)["q"].data


# --- and back --------------------------------------------------------------------------------------------------


def sums(layout: str) -> dict[str, Any]:
    return {"checksum": "blake3"} if layout == "slime" else {}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_patch_is_written_and_read_again(
    layout: Any, tmp_path: Path, old: Model, new: Model, source: Path
) -> None:
    target = write(new, tmp_path / "new")
    patch = make(source, target, tmp_path / "first.tnpatch")
    report = write_foreign(layout, patch, source, tmp_path / "out", version=7, **sums(layout))
    assert report.changed_tensors == 4
    assert report.left_out == []
    assert report.foreign_bytes == sum(map(len, tree(tmp_path / "out").values()))
    before = {name: tensor.data for name, tensor in tensors_of(old).items()}
    after = {name: tensor.data for name, tensor in tensors_of(new).items()}
    assert applied(tmp_path / "out", before) == after
    assert imported(layout, tmp_path / "out", source, tmp_path) == tree(target)


@given(data=st.data())
def test_any_tensor_there_and_back(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    root = tmp_path_factory.mktemp("any")
    layout: Any = data.draw(st.sampled_from(LAYOUTS))
    dtype = data.draw(st.sampled_from(["U8", "F8_E4M3", "BF16", "F32", "I64"]))
    shape = data.draw(st.lists(st.integers(0, 6), max_size=3).map(tuple))
    size = size_of(dtype, shape)
    one, two = (data.draw(st.binary(min_size=size, max_size=size)) for _ in range(2))
    old: Model = {"model.safetensors": {"größe": Tensor(dtype, shape, one), "b": weights(1, 1)}}
    new: Model = {"model.safetensors": {"größe": Tensor(dtype, shape, two), "b": weights(1, 1)}}
    source, target = write(old, root / "old"), write(new, root / "new")
    patch = make(source, target, root / "p")
    write_foreign(layout, patch, source, root / "out", **sums(layout))
    assert applied(root / "out", {"größe": one, "b": weights(1, 1).data})["größe"] == two
    assert imported(layout, root / "out", source, root) == tree(target)


def test_what_no_layout_can_say(tmp_path: Path, old: Model, source: Path) -> None:
    first = old["model-1.safetensors"]
    assert isinstance(first, dict)
    others: dict[str, dict[str, Tensor]] = {
        "in one of the two": {"q": first["q"]},
        "after; foreign": {**first, "q": Tensor("F16", (64, 128), first["q"].data)},
    }
    for number, (message, content) in enumerate(others.items()):
        target = write({**old, "model-1.safetensors": content}, tmp_path / f"new{number}")
        patch = make(source, target, tmp_path / f"{number}.tnpatch")
        with pytest.raises(InvalidInputError, match=message):
            write_foreign("sparse", patch, source, tmp_path / "out")
        assert not (tmp_path / "out").exists()


def test_other_files_are_named(tmp_path: Path, old: Model, source: Path) -> None:
    target = write({**old, "config.json": b"{ }", "more.txt": b"x"}, tmp_path / "new")
    patch = make(source, target, tmp_path / "x.tnpatch")
    report = write_foreign("sparse", patch, source, tmp_path / "out")
    assert report.left_out == ["config.json", "more.txt"]
    with pytest.raises(InvalidInputError, match="exists already"):
        write_foreign("sparse", patch, source, tmp_path / "out")
    with pytest.raises(WrongBaseError):
        write_foreign("sparse", patch, target, tmp_path / "out2")


# --- hostile input -----------------------------------------------------------------------------------------------


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
