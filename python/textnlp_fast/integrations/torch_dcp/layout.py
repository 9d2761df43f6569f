"""`torch_dcp.json`: which file of a version has which piece of which tensor, and the values that are no tensors.

`docs/format.md` ("Distributed checkpoints") states the document. It comes out of a bucket: nothing in it is believed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from textnlp_fast.contents.documents import MAX_SIZE, Broken, parse_document, seal_document, take
from textnlp_fast.errors import CorruptDataError, InvalidInputError, UnsupportedFormatError
from textnlp_fast.integrations.torch_dcp.regions import Box, Stored, is_covered
from textnlp_fast.integrations.torch_dcp.values import decode_value
from textnlp_fast.storage.manifest import Manifest
from textnlp_fast.tensors import DTYPE_BITS, TensorInfo

__all__ = ["RECORD_NAME", "Layout", "Place", "TensorLayout", "layout_bytes", "layout_of_files", "read_layout"]

RECORD_NAME: Final = "torch_dcp.json"
_KIND: Final = "torch_dcp"
_MOST_AXES: Final = 64


@dataclass(frozen=True, slots=True)
class Place:
    """Where something is: under `name` in file number `file`."""

    file: int
    name: str


@dataclass(frozen=True, slots=True)
class TensorLayout:
    """A tensor of the whole checkpoint. `pieces` do not overlap and leave nothing out; `dtype` is safetensors' name."""

    dtype: str
    shape: tuple[int, ...]
    pieces: tuple[tuple[Box, Place], ...]

    @property
    def element_bytes(self) -> int:
        return DTYPE_BITS[self.dtype] // 8


@dataclass(frozen=True, slots=True)
class Layout:
    """What a version is as a distributed checkpoint.

    `values` are encoded (`values.py`); `pickles` are torch's own files, kept as tensors of bytes; `planner` is what the
    planner wanted to know again, encoded.
    """

    files: tuple[str, ...]
    tensors: Mapping[str, TensorLayout]
    values: Mapping[str, Any]
    pickles: Mapping[str, Place]
    planner: Any = None

    def digests(self, manifest: Manifest) -> dict[Place, str]:
        """The content at each place. Raises CorruptDataError for a file or tensor that the version does not have."""
        entries = {entry.path: entry for entry in manifest.files}
        found: dict[Place, str] = {}
        for number, path in enumerate(self.files):
            entry = entries.get(path)
            if entry is None or entry.kind != "safetensors":
                raise CorruptDataError(f"{RECORD_NAME}: the version has no weights at {path!r}")
            for name, digest in zip(entry.names, entry.parts[1:], strict=True):
                found[Place(number, name)] = digest
        return found

    def stored(self, manifest: Manifest) -> dict[str, tuple[TensorLayout, tuple[Stored, ...]]]:
        """Each tensor's pieces as contents of the manifest. Raises CorruptDataError where they do not fit."""
        digests = self.digests(manifest)
        result: dict[str, tuple[TensorLayout, tuple[Stored, ...]]] = {}
        for name, tensor in self.tensors.items():
            pieces: list[Stored] = []
            for box, place in tensor.pieces:
                digest = digests.get(place)
                if digest is None:
                    raise CorruptDataError(f"{RECORD_NAME}: there is no {place.name!r} for {name!r}")
                if manifest.contents[digest].size != box.volume * tensor.element_bytes:
                    raise CorruptDataError(
                        f"{RECORD_NAME}: a piece of {name!r} has another size than it says"
                    )
                pieces.append(Stored(box, digest))
            result[name] = tensor, tuple(pieces)
        return result


def layout_bytes(layout: Layout) -> bytes:
    """The document: the same for the same layout."""
    tensors = [
        [
            name,
            tensor.dtype,
            list(tensor.shape),
            [
                [place.file, list(box.offsets), list(box.sizes), None if place.name == name else place.name]
                for box, place in sorted(tensor.pieces, key=lambda pair: (pair[0].offsets, pair[1].file))
            ],
        ]
        for name, tensor in sorted(layout.tensors.items())
    ]
    return seal_document(
        {
            "files": list(layout.files),
            "format": 1,
            "kind": _KIND,
            "pickles": [[name, place.file, place.name] for name, place in sorted(layout.pickles.items())],
            "planner": layout.planner,
            "tensors": tensors,
            "values": [list(pair) for pair in sorted(layout.values.items())],
        }
    )


def read_layout(data: bytes) -> Layout:
    """Reads what `layout_bytes` wrote. Raises CorruptDataError and UnsupportedFormatError."""
    document = parse_document(data, RECORD_NAME)
    if document.get("kind") != _KIND:
        raise UnsupportedFormatError(f"{RECORD_NAME} is of another kind than this version knows")
    try:
        return _build(document)
    except (Broken, InvalidInputError) as error:
        raise CorruptDataError(f"{RECORD_NAME}: {error.args[0]}") from None


def layout_of_files(manifest: Manifest, headers: Mapping[str, Mapping[str, TensorInfo]]) -> Layout:
    """A version that was pushed as files, as a checkpoint: each tensor in one piece.

    Raises InvalidInputError if files have tensors of one name.
    """
    files = tuple(entry.path for entry in manifest.files if entry.kind == "safetensors")
    tensors: dict[str, TensorLayout] = {}
    for number, path in enumerate(files):
        for name, info in headers[path].items():
            if name in tensors:
                raise InvalidInputError(
                    f"{manifest.model}@{manifest.version} has several tensors {name!r}, and no {RECORD_NAME} that "
                    "says which parts of which tensor they are"
                )
            box = Box.whole(info.shape)
            tensors[name] = TensorLayout(info.dtype, box.sizes, ((box, Place(number, name)),))
    return Layout(files, tensors, {}, {})


# --- parts ------------------------------------------------------------------------------------------------


def _build(document: Mapping[str, Any]) -> Layout:
    files = _texts(take(document, "files", list, "the record"))
    tensors: dict[str, TensorLayout] = {}
    for row in take(document, "tensors", list, "the record"):
        name, tensor = _tensor(row, len(files))
        if name in tensors:
            raise Broken(f"tensor {name!r} appears twice")
        tensors[name] = tensor
    values: dict[str, Any] = {}
    for row in take(document, "values", list, "the record"):
        name, encoded = _row(row, 2, "a value")
        decode_value(encoded)
        values[_text(name)] = encoded
    pickles: dict[str, Place] = {}
    for row in take(document, "pickles", list, "the record"):
        name, file, stored = _row(row, 3, "a pickle")
        pickles[_text(name)] = Place(_number(file, len(files)), _text(stored))
    if len({*tensors, *values, *pickles}) != len(tensors) + len(values) + len(pickles):
        raise Broken("a name stands for two things")
    planner = document.get("planner")
    decode_value(planner)
    return Layout(files, tensors, values, pickles, planner)


def _tensor(row: object, files: int) -> tuple[str, TensorLayout]:
    name, dtype, shape, rows = _row(row, 4, "a tensor")
    name = _text(name)
    if not isinstance(dtype, str) or DTYPE_BITS.get(dtype, 4) % 8 or dtype not in DTYPE_BITS:
        raise Broken(f"tensor {name!r} is of a type that is not known")
    shape = _numbers(shape)
    if not isinstance(rows, list):
        raise Broken(f"tensor {name!r} has no pieces")
    pieces: list[tuple[Box, Place]] = []
    for each in rows:
        file, offsets, sizes, stored = _row(each, 4, f"a piece of {name!r}")
        box = Box(_numbers(offsets), _numbers(sizes))
        if not box.fits(shape):
            raise Broken(f"a piece of {name!r} is not inside it")
        pieces.append((box, Place(_number(file, files), name if stored is None else _text(stored))))
    if not is_covered(shape, [box for box, _ in pieces]):
        raise Broken(f"the pieces of {name!r} do not make it")
    return name, TensorLayout(dtype, shape, tuple(pieces))


def _row(value: object, length: int, what: str) -> list[Any]:
    if not isinstance(value, list) or len(value) != length:
        raise Broken(f"{what} is no list of {length}")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise Broken("a name is no text")
    return value


def _texts(values: Sequence[object]) -> tuple[str, ...]:
    return tuple(_text(value) for value in values)


def _number(value: object, limit: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < limit:
        raise Broken(f"{value!r} is no number below {limit}")
    return value


def _numbers(values: object) -> tuple[int, ...]:
    if not isinstance(values, list) or len(values) > _MOST_AXES:
        raise Broken("a shape is no list")
    return tuple(_number(value, MAX_SIZE) for value in values)
