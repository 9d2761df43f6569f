"""From groups of tensors to files: how many, how they are called, and their headers. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from textnlp_fast.errors import InvalidInputError
from textnlp_fast.storage.sharding.model import FilePlan, Group, Placement
from textnlp_fast.tensors import DTYPE_BITS

__all__ = ["INDEX_NAME", "build_header", "files_of", "index_document"]

INDEX_NAME: Final = "model.safetensors.index.json"
_ALIGNMENT: Final = 8


def build_header(placements: Sequence[Placement], metadata: Mapping[str, str]) -> bytes:
    """The first bytes of a safetensors file with these tensors, in this order, padded to eight bytes."""
    document: dict[str, Any] = {}
    if metadata:
        document["__metadata__"] = dict(sorted(metadata.items()))
    position = 0
    for each in placements:
        end = position + each.size_bytes
        document[each.tensor.name] = {
            "dtype": each.tensor.dtype,
            "shape": list(each.shape),
            "data_offsets": [position, end],
        }
        position = end
    text = json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


def files_of(
    groups: Iterable[Group], *, max_shard_bytes: int, metadata: Mapping[str, str], folder: str = ""
) -> list[FilePlan]:
    """Files of at most `max_shard_bytes` of tensors each, named as others name them.

    A tensor that has more gets a file of its own, and what comes after it goes on where it was: as Hugging Face's own
    functions do.
    """
    if max_shard_bytes < 1:
        raise InvalidInputError(f"a shard of {max_shard_bytes} bytes holds nothing")
    closed: list[tuple[Group, list[Placement]]] = []
    members: list[Placement] = []
    current: Group | None = None
    size = 0

    def close() -> None:
        nonlocal members, size
        if members and current is not None:
            closed.append((current, members))
        members, size = [], 0

    for group in groups:
        # A group that begins where another ends stays whole if it can.
        if not (group.joins and size + group.size_bytes <= max_shard_bytes):
            close()
        current = group
        for each in group.placements:
            if each.size_bytes > max_shard_bytes:
                closed.append((group, [each]))
                continue
            if size + each.size_bytes > max_shard_bytes:
                close()
            members.append(each)
            size += each.size_bytes
    close()
    prefix = f"{folder}/" if folder else ""
    files: list[FilePlan] = []
    for number, (group, inside) in enumerate(closed, 1):
        count = len(closed)
        name = "model.safetensors" if count == 1 else f"model-{number:05}-of-{count:05}.safetensors"
        # As the format's own writer has it, largest elements first: so each lies where its type may lie.
        ordered = sorted(inside, key=lambda each: -DTYPE_BITS[each.tensor.dtype])
        header = build_header(ordered, metadata)
        files.append(FilePlan(prefix + name, header, tuple(ordered), group.rank, group.stage))
    return files


def index_document(files: Sequence[FilePlan]) -> bytes:
    """What a Hugging Face directory says of its shards, by tensor: the files are those of one folder."""
    weight_map = {
        each.tensor.name: file.path.rpartition("/")[2] for file in files for each in file.placements
    }
    total = sum(each.size_bytes for file in files for each in file.placements)
    document = {"metadata": {"total_size": total}, "weight_map": weight_map}
    return (json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()
