"""`shards.json`: what a sharded model says of itself (docs/format.md, "Sharded models"), written and read."""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from textnlp_fast.contents.documents import (
    MAX_SIZE,
    Broken,
    parse_document,
    seal_document,
    take,
    take_size,
)
from textnlp_fast.contents.entries import check_path
from textnlp_fast.errors import CorruptDataError, InvalidInputError
from textnlp_fast.hashing import blake3_hex
from textnlp_fast.storage.sharding.model import MAX_PARTS, Original, ShardPlan, ShardSource
from textnlp_fast.tensors import DTYPE_BITS, parse_header
from textnlp_fast.tensors.parallel import Portion

__all__ = [
    "DAMAGED_HINT",
    "RECORD_NAME",
    "Digests",
    "PartEntry",
    "ShardRecord",
    "TensorEntry",
    "read_record",
    "record_bytes",
]

RECORD_NAME: Final = "shards.json"
# As many as a header may have, with its length, and more than an index ever has.
_MAX_PACKED_BYTES: Final = 256 << 20
_MAX_AXES: Final = 64
_DIGEST_BYTES: Final = 32
#: What to do about a file that is not what the record says.
DAMAGED_HINT: Final = (
    f"Copy it again from where it is whole, or make the shards again. If it was changed on purpose, {RECORD_NAME} "
    "is of another model: remove it (ranks cannot be read without)."
)


@dataclass(frozen=True, slots=True)
class PartEntry:
    """`portion` of a tensor (None: all of it) in file number `file`."""

    file: int
    portion: Portion | None


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """A tensor of the whole model, and which parts of it ranks hold."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    parts: tuple[PartEntry, ...]


@dataclass(frozen=True, slots=True)
class Digests:
    """BLAKE3 digests in hexadecimal digits: of what files of a plan hold, by number and tensor, and of tensors."""

    placed: Mapping[tuple[int, str], str]
    whole: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ShardRecord:
    """What `shards.json` says. `tensors` are there where ranks hold parts of them.

    `digests` of each file are that of its header and those of its tensors, in the order of their bytes; none, if the
    record is of a time that knew none.
    """

    model_id: str
    strategy: str
    reason: str
    parts: int
    files: tuple[tuple[str, int], ...]
    originals: tuple[Original, ...]
    index: bytes | None
    tensors: tuple[TensorEntry, ...]
    digests: tuple[tuple[str, ...], ...]

    @property
    def has_digests(self) -> bool:
        """Whether it says of every file which bytes are right."""
        return all(self.digests)

    def speaks_of(self, weights: Collection[str]) -> bool:
        """Whether these are its files; others were put in their place if not.

        Raises InvalidInputError if some of its files are there and others are missing.
        """
        missing = {path for path, _ in self.files} - set(weights)
        if missing and len(missing) < len(self.files) and len(self.files) == len(weights) + len(missing):
            raise InvalidInputError(
                f"{min(missing)} is not there, which {RECORD_NAME} speaks of",
                hint="All files of all shards are needed.",
            )
        return not missing and len(self.files) == len(weights)

    def expected(self, path: str, header: bytes, names: Sequence[str], where: object) -> dict[str, str]:
        """The digests of a file's tensors, by name; none if it has none. `names` are in the order of their bytes.

        Raises CorruptDataError, naming `where`, if the header is another.
        """
        number = next((number for number, (each, _) in enumerate(self.files) if each == path), None)
        digests = () if number is None else self.digests[number]
        if not digests:
            return {}
        if len(digests) != len(names) + 1 or blake3_hex(header) != digests[0]:
            raise CorruptDataError(
                f"{where}: its header is not the one that {RECORD_NAME} says", hint=DAMAGED_HINT
            )
        return dict(zip(names, digests[1:], strict=True))


def record_bytes(
    plan: ShardPlan, source: ShardSource, model_id: str, digests: Digests | None = None
) -> bytes:
    """The document of a plan, with the digests of what was made: the same for the same plan and bytes."""
    files: list[dict[str, Any]] = []
    for number, file in enumerate(plan.files):
        entry: dict[str, Any] = {"path": file.path, "size": file.size}
        if file.rank is not None:
            entry["rank"] = file.rank
        if file.stage is not None:
            entry["stage"] = file.stage
        if digests is not None:
            names = [info.name for info in parse_header(file.header, file.size).tensors]
            found = [digests.placed[number, name] for name in names]
            entry["digests"] = _joined([blake3_hex(file.header), *found])
        files.append(entry)
    document: dict[str, Any] = {
        "files": files,
        "format": 1,
        "kind": "shards",
        "model_id": model_id,
        "originals": [_original_document(original, digests) for original in source.originals],
        "parts": plan.parts,
        "reason": plan.reason,
        "strategy": plan.strategy,
    }
    if source.originals and source.index is not None:
        document["index"] = _packed(source.index)
    if plan.by_rank:
        document["tensors"] = _tensors_document(plan)
    return seal_document(document) + b"\n"


def _original_document(original: Original, digests: Digests | None) -> dict[str, Any]:
    entry = {"header": _packed(original.header), "path": original.path, "size": original.size}
    if digests is not None:
        names = [info.name for info in parse_header(original.header, original.size).tensors]
        if all(name in digests.whole for name in names):
            entry["digests"] = _joined([digests.whole[name] for name in names])
    return entry


def _joined(digests: Sequence[str]) -> str:
    return base64.b64encode(bytes.fromhex("".join(digests))).decode()


def _packed(data: bytes) -> dict[str, Any]:
    return {"size": len(data), "zlib": base64.b64encode(zlib.compress(data, 6)).decode()}


def _tensors_document(plan: ShardPlan) -> list[dict[str, Any]]:
    tensors: dict[str, dict[str, Any]] = {}
    for number, file in enumerate(plan.files):
        for each in file.placements:
            entry = tensors.setdefault(
                each.tensor.name,
                {
                    "dtype": each.tensor.dtype,
                    "name": each.tensor.name,
                    "parts": [],
                    "shape": list(each.tensor.shape),
                },
            )
            part: dict[str, Any] = {"file": number}
            if each.portion is not None:
                part["axis"] = each.portion.dim
                part["ranges"] = [list(pair) for pair in each.portion.ranges]
            entry["parts"].append(part)
    return list(tensors.values())


def read_record(data: bytes) -> ShardRecord:
    """Reads `shards.json`. Raises CorruptDataError and UnsupportedFormatError."""
    document = parse_document(data.rstrip(b"\n"), RECORD_NAME)
    try:
        if document.get("kind") != "shards":
            raise Broken("it is no record of shards")
        entries = take(document, "files", list, "the record")
        files = tuple(_read_file(each) for each in entries)
        return ShardRecord(
            take(document, "model_id", str, "the record"),
            take(document, "strategy", str, "the record"),
            take(document, "reason", str, "the record"),
            _parts(document),
            files,
            tuple(_read_original(each) for each in take(document, "originals", list, "the record")),
            _unpacked(document["index"], "the index") if "index" in document else None,
            tuple(_read_tensor(each, len(files)) for each in document.get("tensors", [])),
            tuple(_digests(each, f"file {each['path']!r}") for each in entries),
        )
    except (Broken, InvalidInputError) as error:
        raise CorruptDataError(f"{RECORD_NAME}: {error.args[0]}") from error


def _parts(document: Mapping[str, Any]) -> int:
    parts = take_size(document, "parts", "the record")
    if not 1 <= parts <= MAX_PARTS:
        raise Broken(f"{parts} parts")
    return parts


def _read_file(value: object) -> tuple[str, int]:
    if not isinstance(value, dict):
        raise Broken("an entry of files is not an object")
    return check_path(take(value, "path", str, "a file")), take_size(value, "size", "a file")


def _read_original(value: object) -> Original:
    if not isinstance(value, dict):
        raise Broken("an entry of originals is not an object")
    path = check_path(take(value, "path", str, "an original"))
    header = _unpacked(value.get("header"), f"the header of {path!r}")
    size = take_size(value, "size", f"original {path!r}")
    return Original(path, size, header, _digests(value, f"original {path!r}"))


def _digests(value: Mapping[str, Any], where: str) -> tuple[str, ...]:
    """The digests of an entry; none if it has none."""
    if "digests" not in value:
        return ()
    try:
        data = base64.b64decode(take(value, "digests", str, where), validate=True)
    except (binascii.Error, ValueError) as error:
        raise Broken(f"the digests of {where} are not in base 64: {error}") from error
    if len(data) % _DIGEST_BYTES:
        raise Broken(f"the digests of {where} are {len(data)} bytes, no multiple of {_DIGEST_BYTES}")
    return tuple(data[at : at + _DIGEST_BYTES].hex() for at in range(0, len(data), _DIGEST_BYTES))


def _unpacked(value: object, where: str) -> bytes:
    if not isinstance(value, dict):
        raise Broken(f"{where} is not an object")
    length = take_size(value, "size", where, _MAX_PACKED_BYTES)
    try:
        packed = base64.b64decode(take(value, "zlib", str, where), validate=True)
        data = zlib.decompressobj().decompress(packed, length + 1)  # never more than was announced
    except (binascii.Error, ValueError, zlib.error) as error:
        raise Broken(f"{where} is not packed as it should be: {error}") from error
    if len(data) != length:
        raise Broken(f"{where} does not have its {length} bytes")
    return data


def _read_tensor(value: object, files: int) -> TensorEntry:
    if not isinstance(value, dict):
        raise Broken("an entry of tensors is not an object")
    name = take(value, "name", str, "a tensor")
    where = f"tensor {name[:200]!r}"
    dtype = take(value, "dtype", str, where)
    shape = _sizes(value.get("shape"), f"the shape of {where}")
    if dtype not in DTYPE_BITS:
        raise Broken(f"{where} is of type {dtype[:80]!r}, which is not known")
    parts = take(value, "parts", list, where)
    if not parts:
        raise Broken(f"{where} is nowhere")
    return TensorEntry(name, dtype, shape, tuple(_read_part(each, shape, files, where) for each in parts))


def _read_part(value: object, shape: Sequence[int], files: int, where: str) -> PartEntry:
    if not isinstance(value, dict):
        raise Broken(f"a part of {where} is not an object")
    file = take_size(value, "file", where)
    if file >= files:
        raise Broken(f"a part of {where} is in file {file} of {files}")
    if "axis" not in value:
        return PartEntry(file, None)
    axis = take_size(value, "axis", where)
    if axis >= len(shape):
        raise Broken(f"{where} has no axis {axis}")
    rows = take(value, "ranges", list, where)
    ranges = tuple(_sizes(row, f"a range of {where}") for row in rows)
    for pair in ranges:
        if len(pair) != 2 or not pair[0] < pair[1] <= shape[axis]:
            raise Broken(f"{list(pair)} is no range of {where}")
    if not ranges:
        raise Broken(f"a part of {where} is empty")
    return PartEntry(file, Portion(axis, tuple((pair[0], pair[1]) for pair in ranges)))


def _sizes(value: object, what: str) -> tuple[int, ...]:
    if not isinstance(value, list) or len(value) > _MAX_AXES:
        raise Broken(f"{what} is no list of sizes")
    if not all(type(size) is int and 0 <= size <= MAX_SIZE for size in value):
        raise Broken(f"{what} is no list of sizes")
    return tuple(value)
