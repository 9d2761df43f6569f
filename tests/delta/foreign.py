"""Foreign deltas, written byte by byte from the layouts that the guide states, not by the code under test."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import blake3
import numpy as np
import pytest

from delta.models import Model, Tensor, safetensors_bytes, size_of, tree
from textnlp_fast.delta import apply_patch
from textnlp_fast.delta.interop import read_foreign

zstandard = pytest.importorskip("zstandard")

INDEX = "model.safetensors.index.json"


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


def sums(layout: str) -> dict[str, Any]:
    return {"checksum": "blake3"} if layout == "slime" else {}


def imported(layout: Any, delta: Path, source: Path, tmp_path: Path) -> dict[str, bytes]:
    """The model that a delta leads to, by way of a patch."""
    report = read_foreign(layout, delta, source, tmp_path / "p.tnpatch", threads=2)
    assert report.path == str(tmp_path / "p.tnpatch")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    apply_patch(tmp_path / "p.tnpatch", source, tmp_path / "made")
    return tree(tmp_path / "made")
