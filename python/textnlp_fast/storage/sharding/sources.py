"""Reads what is to be sharded: a safetensors file, a Hugging Face directory, or ranks that were made here before."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from textnlp_fast.contents.inventory import scan_model
from textnlp_fast.errors import CorruptDataError, InvalidInputError, SafetensorsError
from textnlp_fast.storage.sharding.layout import INDEX_NAME
from textnlp_fast.storage.sharding.model import Original, Piece, ShardSource, ShardTensor, SourceFile
from textnlp_fast.storage.sharding.record import RECORD_NAME, ShardRecord, read_record
from textnlp_fast.tensors import ModelFiles, SafetensorsFile, parse_header
from textnlp_fast.tensors.architecture import Architecture, parse_architecture

__all__ = [
    "CONFIG_NAME",
    "check_names",
    "in_order",
    "matching_originals",
    "notes_of",
    "read_source",
    "weights_of",
    "with_digests",
]

CONFIG_NAME: Final = "config.json"
_MAX_CONFIG_BYTES: Final = 16 << 20
_MAX_RECORD_BYTES: Final = 512 << 20
#: What transformers asks of the metadata of a file before it reads it.
_METADATA: Final = {"format": "pt"}


def read_source(path: str | os.PathLike[str]) -> ShardSource:
    """The model at `path`: a safetensors file, a Hugging Face directory, or a directory of ranks.

    Of weights only the headers are read. Raises what `ModelFiles.scan` raises, InvalidInputError if a tensor is there
    twice, and CorruptDataError if the directory's record does not fit its files.
    """
    place = Path(path)
    model = scan_model(place)
    record = _record_of(model)
    config = (place if place.is_dir() else place.parent) / CONFIG_NAME
    architecture = _architecture(config)
    if record is not None and record.tensors:
        return _of_ranks(place, model, record, architecture)
    weights = weights_of([file.name for file in model.safetensors])
    files = [file for file in model.safetensors if file.name in weights]
    spoken = record if record is not None and record.speaks_of(weights) else None
    tensors = []
    for number, file in enumerate(files):
        known = expected_digests(spoken, file)
        for info in file.tensors:
            piece = Piece(number, info.begin, digest=known.get(info.name))
            tensors.append(ShardTensor(info.name, info.dtype, info.shape, (piece,)))
    check_names(tensors, str(place))
    originals, index = matching_originals(record, tensors)
    tensors = with_digests(tensors, originals if spoken is not None else ())
    if not originals:
        originals = tuple(Original(file.name, file.size, file.header_bytes) for file in files)
        index = _index_of(model)
    return ShardSource(
        str(place),
        tuple(map(_source_file, files)),
        in_order(tensors, originals),
        originals,
        _others(model, weights),
        _metadata(file.metadata for file in files),
        index,
        architecture,
        notes_of(spoken, record),
    )


def notes_of(spoken: ShardRecord | None, record: ShardRecord | None) -> tuple[str, ...]:
    """What is to be said where there is a record and bytes are not held against it."""
    if record is None or (spoken is not None and spoken.has_digests):
        return ()
    if spoken is None:
        return (f"{RECORD_NAME} is of other files than those that are there: their bytes were not checked",)
    return (f"{RECORD_NAME} was written without digests: bytes were not checked",)


def expected_digests(record: ShardRecord | None, file: SafetensorsFile) -> dict[str, str]:
    """What the record says of a file's tensors. Raises CorruptDataError if its header is another."""
    if record is None:
        return {}
    names = [info.name for info in file.tensors]
    return record.expected(file.name, file.header_bytes, names, file.path)


def with_digests(tensors: Sequence[ShardTensor], originals: Sequence[Original]) -> list[ShardTensor]:
    """The tensors with the digests that the originals had of them. Raises CorruptDataError if these do not fit."""
    known: dict[str, str] = {}
    for original in originals:
        names = [info.name for info in parse_header(original.header, original.size).tensors]
        if original.digests and len(names) != len(original.digests):
            raise CorruptDataError(
                f"{RECORD_NAME} has {len(original.digests)} digests of {original.path!r} and {len(names)} tensors"
            )
        if original.digests:
            known.update(zip(names, original.digests, strict=True))
    return [replace(tensor, digest=known.get(tensor.name)) for tensor in tensors]


def weights_of(names: Sequence[str]) -> set[str]:
    """Which safetensors files of a model are its weights: those of the top folder, if there are any.

    Where the names of a sharded model and a single file are both there, the sharded one is a copy: of these the files
    that loaders look for first count (`model.safetensors`).
    """
    top = [name for name in names if "/" not in name] or list(names)
    if not top:
        raise InvalidInputError("there are no safetensors files", hint="Only safetensors can be sharded.")
    if "model.safetensors" in top:
        return {"model.safetensors"}
    numbered = {name for name in top if name.startswith("model-")}
    return numbered or set(top)


def check_names(tensors: Iterable[ShardTensor], what: str) -> None:
    """Raises InvalidInputError if two tensors have one name."""
    seen: set[str] = set()
    for tensor in tensors:
        if tensor.name in seen:
            raise InvalidInputError(
                f"tensor {tensor.name!r} is in two files of {what}",
                hint="Leave one copy of the weights in the directory.",
            )
        seen.add(tensor.name)


def matching_originals(
    record: ShardRecord | None, tensors: Sequence[ShardTensor]
) -> tuple[tuple[Original, ...], bytes | None]:
    """The record's original files and their index, if these tensors, and no others, make them; else none."""
    if record is None:
        return (), None
    known = {tensor.name: (tensor.dtype, tensor.shape) for tensor in tensors}
    found: dict[str, tuple[str, tuple[int, ...]]] = {}
    for original in record.originals:
        try:
            header = parse_header(original.header, original.size)
        except SafetensorsError:
            return (), None
        found.update((info.name, (info.dtype, info.shape)) for info in header.tensors)
    return (record.originals, record.index) if found == known else ((), None)


def in_order(tensors: Sequence[ShardTensor], originals: Sequence[Original]) -> tuple[ShardTensor, ...]:
    """The tensors as the originals had them: so the same layout comes out whatever it is made from."""
    places: dict[str, int] = {}
    for original in originals:
        for info in parse_header(original.header, original.size).tensors:
            places[info.name] = len(places)
    return tuple(sorted(tensors, key=lambda tensor: places.get(tensor.name, len(places))))


def _others(model: ModelFiles, weights: set[str]) -> dict[str, Path | None]:
    others: dict[str, Path | None] = {each.name: each.path for each in model.others}
    others.pop(INDEX_NAME, None)
    others.pop(RECORD_NAME, None)
    others.update((file.name, file.path) for file in model.safetensors if file.name not in weights)
    return others


def _index_of(model: ModelFiles) -> bytes | None:
    return next((other.path.read_bytes() for other in model.others if other.name == INDEX_NAME), None)


def _source_file(file: SafetensorsFile) -> SourceFile:
    return SourceFile(file.name, file.size, file.path, file.path.stat().st_mtime_ns)


def _metadata(found: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """What all files say, and what loaders ask for."""
    merged: dict[str, str] = {}
    for each in found:
        merged.update({key: value for key, value in each.items() if key not in merged})
    return {**_METADATA, **merged}


def _architecture(config: Path) -> Architecture:
    if not config.is_file():
        return Architecture()
    if config.stat().st_size > _MAX_CONFIG_BYTES:
        raise InvalidInputError(f"{config} is too large for a configuration")
    return parse_architecture(config.read_bytes())


def _record_of(model: ModelFiles) -> ShardRecord | None:
    for other in model.others:
        if other.name == RECORD_NAME:
            if other.size > _MAX_RECORD_BYTES:
                raise CorruptDataError(f"{other.path} is too large for a record of shards")
            return read_record(other.path.read_bytes())
    return None


# --- ranks -------------------------------------------------------------------------------------------------


def _of_ranks(place: Path, model: ModelFiles, record: ShardRecord, architecture: Architecture) -> ShardSource:
    by_name = {file.name: file for file in model.safetensors}
    files: list[SafetensorsFile] = []
    for name, size in record.files:
        file = by_name.get(name)
        if file is None:
            raise InvalidInputError(
                f"{place / name} is not there", hint="The directories of all ranks are needed."
            )
        if file.size != size:
            raise CorruptDataError(f"{file.path} has {file.size} bytes; {RECORD_NAME} says {size}")
        files.append(file)
    infos = [{info.name: info for info in file.tensors} for file in files]
    known = [expected_digests(record, file) for file in files]
    tensors = []
    for entry in record.tensors:
        pieces = []
        for part in entry.parts:
            info = infos[part.file].pop(entry.name, None)
            shape = entry.shape if part.portion is None else part.portion.shape(entry.shape)
            if info is None or (info.dtype, info.shape) != (entry.dtype, shape):
                raise CorruptDataError(
                    f"{files[part.file].path} does not hold tensor {entry.name!r} as {RECORD_NAME} says: "
                    f"{entry.dtype} {list(shape)}"
                )
            pieces.append(Piece(part.file, info.begin, part.portion, known[part.file].get(entry.name)))
        tensors.append(ShardTensor(entry.name, entry.dtype, entry.shape, tuple(pieces)))
    left = next((name for each in infos for name in each), None)
    if left is not None:
        raise CorruptDataError(f"{RECORD_NAME} does not speak of tensor {left!r}")
    check_names(tensors, str(place))
    weights = {file.name for file in files}
    others = {
        name: path
        for name, path in _others(model, weights).items()
        if not (name.endswith(f"/{INDEX_NAME}") and name.startswith("rank-"))
    }
    originals, index = matching_originals(record, tensors)
    tensors = with_digests(tensors, originals)
    return ShardSource(
        str(place),
        tuple(map(_source_file, files)),
        in_order(tensors, originals),
        originals,
        others,
        _metadata(file.metadata for file in files),
        index,
        architecture,
        notes_of(record, record),
    )
