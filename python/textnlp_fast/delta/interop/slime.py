"""The layout `slime`: a version directory of its disk-level delta sync (docs/guide/interop.md).

An HF index whose metadata tells the encoding, and safetensors files with one U8 tensor for each tensor that changed: a
zstd frame of the XOR with the version before, or of the byte positions that changed and their new bytes. The checksum
of each new tensor is in the metadata of the file that holds its change.
"""

from __future__ import annotations

import importlib
import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Protocol, cast

import numpy as np
import numpy.typing as npt

from textnlp_fast.contents.windows import OpenFiles
from textnlp_fast.delta.interop.changes import Change, FileRange, Place, Scatter
from textnlp_fast.delta.interop.documents import read_object
from textnlp_fast.delta.interop.spool import Spool
from textnlp_fast.delta.interop.updates import Update
from textnlp_fast.delta.interop.zstd_stream import Unpacked, packer
from textnlp_fast.errors import (
    CorruptDataError,
    DigestMismatchError,
    InvalidInputError,
    MissingPackageError,
    UnsupportedFormatError,
)
from textnlp_fast.hashing import Blake3
from textnlp_fast.tensors import SafetensorsFile, TensorInfo

__all__ = ["CHECKSUMS", "DEFAULT_CHECKSUM", "changes", "write"]

Bytes = npt.NDArray[np.uint8]

DEFAULT_CHECKSUM: Final = "xxh3-128"
CHECKSUMS: Final = (DEFAULT_CHECKSUM, "blake3", "adler32")
_INDEX: Final = "model.safetensors.index.json"
_LEVEL: Final = 1
_WRONG_BASE: Final = (
    "SOURCE is not the version that the delta builds on, or the delta was damaged on its way."
)
_LAST_VERSION: Final = 999_999


class _Sum(Protocol):
    def update(self, data: Any, /) -> object: ...
    def hexdigest(self) -> str: ...


class _Adler32:
    def __init__(self) -> None:
        self._value = 1

    def update(self, data: Any, /) -> None:
        self._value = zlib.adler32(data, self._value)

    def hexdigest(self) -> str:
        return f"{self._value:08x}"


def _checksum(name: str) -> Callable[[], _Sum]:
    """Makes checksums of that name. Raises MissingPackageError, UnsupportedFormatError."""
    if name == "blake3":
        return Blake3
    if name == "adler32":
        return _Adler32
    if name != "xxh3-128":
        raise UnsupportedFormatError(
            f"unknown checksum {name[:80]!a}", hint=f"Known are {', '.join(CHECKSUMS)}; upgrade textnlp-fast."
        )
    try:
        module: Any = importlib.import_module("xxhash")
    except ImportError as error:
        raise MissingPackageError(
            "checksums of kind xxh3-128 need xxhash", hint="pip install 'textnlp-fast[interop]'"
        ) from error
    return cast(Callable[[], _Sum], module.xxh3_128)


# --- reading -----------------------------------------------------------------------------------------------


def changes(folder: Path, places: Mapping[str, Place], files: OpenFiles) -> Iterator[tuple[Place, Change]]:
    """What the delta in `folder` does to the tensors at `places`.

    Raises InvalidInputError if there is no delta or it is for other tensors, CorruptDataError if it breaks the
    layout, UnsupportedFormatError for an encoding that is not known, MissingPackageError for want of a package.
    """
    index = read_object(
        folder / _INDEX, f"Name one version's directory, weight_v000001 for example: it has a {_INDEX}."
    )
    metadata, weight_map = index.get("metadata"), index.get("weight_map")
    if not isinstance(metadata, dict) or not isinstance(weight_map, dict):
        raise CorruptDataError(f"{folder / _INDEX} lacks its metadata or its weight_map")
    if "delta_encoding" not in metadata:
        raise InvalidInputError(
            f"{folder} is a whole checkpoint, not a delta",
            hint="Use it as the new model: `textnlp-fast delta create SOURCE ...`.",
        )
    encoding = _said(metadata, "delta_encoding", {"xor": _xor, "overwrite": _overwrite})
    _said(metadata, "compression_format", {"zstd": True})
    new_sum = _checksum(str(metadata.get("checksum_format")))
    for shard in _shards(folder, weight_map):
        for tensor in shard.tensors:
            if tensor.name not in places:
                raise InvalidInputError(
                    f"{folder} changes tensor {tensor.name!r}, which the source does not have",
                    hint="Deltas of this layout are for the model whose tensors have the same names.",
                )
            if tensor.dtype != "U8" or len(tensor.shape) != 1:
                raise CorruptDataError(f"{shard.path}: {tensor.name!r} is {tensor.dtype}, not a row of U8")
            wanted = shard.metadata.get(tensor.name)
            if wanted is None:
                raise CorruptDataError(f"{shard.path} has no checksum for {tensor.name!r}")
            place = places[tensor.name]

            def unpacked(shard: SafetensorsFile = shard, tensor: TensorInfo = tensor) -> Unpacked:
                part = FileRange(files, shard.path, tensor.begin, tensor.size_bytes)
                return Unpacked(part, f"the delta of {tensor.name!r} in {shard.path}")

            yield place, _Checked(encoding(place.tensor, unpacked), new_sum(), wanted, tensor.name)


def _said(metadata: Mapping[str, Any], key: str, known: Mapping[str, Any]) -> Any:
    value = metadata.get(key)
    if not isinstance(value, str) or value not in known:
        raise UnsupportedFormatError(
            f"{key} {value!a:.80} is not read here",
            hint=f"Known are {', '.join(known)}; upgrade textnlp-fast.",
        )
    return known[value]


def _shards(folder: Path, weight_map: Mapping[str, Any]) -> Iterator[SafetensorsFile]:
    """The files of the index, each of which must hold exactly the tensors that the index puts into it."""
    names: dict[str, set[str]] = {}
    for tensor, name in weight_map.items():
        if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
            raise CorruptDataError(
                f"{folder / _INDEX} puts a tensor into {name!a:.80}, which is no file beside it"
            )
        names.setdefault(name, set()).add(tensor)
    for name in sorted(names):
        if not (folder / name).is_file():
            raise InvalidInputError(
                f"{folder} lacks {name}, which its index names",
                hint="The delta is incomplete: fetch it again.",
            )
        shard = SafetensorsFile.open(folder / name)
        if {tensor.name for tensor in shard.tensors} != names[name]:
            raise CorruptDataError(f"{shard.path} holds other tensors than the index says")
        yield shard


class _Checked:
    """A change, and the checksum that the tensor must have behind it."""

    def __init__(self, change: Change, checksum: _Sum, wanted: str, name: str) -> None:
        self._change, self._sum, self._wanted, self._name = change, checksum, wanted, name

    def edit(self, window: Bytes, begin: int) -> None:
        self._change.edit(window, begin)
        self._sum.update(window)

    def finish(self) -> None:
        self._change.finish()
        found = self._sum.hexdigest()
        if found != self._wanted:
            raise DigestMismatchError(
                f"tensor {self._name!r} has checksum {found}, not {self._wanted[:80]!a}", hint=_WRONG_BASE
            )


class _Xor:
    def __init__(self, stream: Unpacked) -> None:
        self._stream = stream

    def edit(self, window: Bytes, begin: int) -> None:
        window ^= np.frombuffer(self._stream.read(len(window)), np.uint8)

    def finish(self) -> None:
        self._stream.check_end()


def _xor(_tensor: TensorInfo, unpacked: Callable[[], Unpacked]) -> Change:
    return _Xor(unpacked())


class _Overwrite(Scatter):
    """Positions and values come one behind the other in one frame, which is therefore read twice at once."""

    def __init__(self, tensor: TensorInfo, unpacked: Callable[[], Unpacked]) -> None:
        positions, self._stream = unpacked(), unpacked()
        count = int.from_bytes(positions.read(4), "little")
        if count > tensor.size_bytes:
            raise CorruptDataError(
                f"the delta of {tensor.name!r} changes {count} of {tensor.size_bytes} bytes"
            )
        self._stream.skip(4 + 4 * count)
        super().__init__(
            f"the bytes of {tensor.name!r}",
            count,
            1,
            lambda some: np.frombuffer(positions.read(4 * some), "<u4").astype(np.uint64),
            self._stream.read,
        )

    def finish(self) -> None:
        super().finish()
        self._stream.check_end()


def _overwrite(tensor: TensorInfo, unpacked: Callable[[], Unpacked]) -> Change:
    return _Overwrite(tensor, unpacked)


# --- writing -----------------------------------------------------------------------------------------------


def write(folder: Path, updates: Iterator[Update], *, version: int, checksum: str | None) -> None:
    """Writes a version's directory, XOR against the version before. Raises InvalidInputError, MissingPackageError."""
    if not 0 < version <= _LAST_VERSION:
        raise InvalidInputError(f"version is {version}; this layout counts from 1 to {_LAST_VERSION}")
    kind = checksum or DEFAULT_CHECKSUM
    if kind not in CHECKSUMS:
        raise InvalidInputError(f"unknown checksum {kind!r}", hint=f"Use one of {', '.join(CHECKSUMS)}.")
    new_sum = _checksum(kind)
    sums: dict[str, str] = {}
    name = "model-00000-of-00001.safetensors"
    with Spool(folder / name) as spool:
        for update in updates:
            frame, made = packer(_LEVEL, update.size_bytes), new_sum()
            before = spool.size_bytes
            for old, new in update.windows():
                spool.append(frame.compress((old ^ new).tobytes()))
                made.update(new)
            spool.append(frame.flush())
            spool.add(update.name, "U8", (spool.size_bytes - before,), before)
            sums[update.name] = made.hexdigest()
        spool.finish(sums)
    if not sums:  # a version without changes has an index alone
        (folder / name).unlink()
    metadata = {
        "version": f"{version:06d}",
        "base_version": f"{version - 1:06d}",
        "delta_encoding": "xor",
        "compression_format": "zstd",
        "checksum_format": kind,
    }
    text = json.dumps({"metadata": metadata, "weight_map": dict.fromkeys(sums, name)})
    (folder / _INDEX).write_text(text, encoding="utf-8")
