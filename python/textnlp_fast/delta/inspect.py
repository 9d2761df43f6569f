"""What is in a patch, without its models: both ends, every tensor's recipe and frames, what it takes."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from textnlp_fast.contents.windows import OpenFiles
from textnlp_fast.delta import codec
from textnlp_fast.delta.patch import End, Stored
from textnlp_fast.delta.patch_file import PatchFile, read_patch
from textnlp_fast.delta.patch_promise import PatchPromise
from textnlp_fast.delta.recipe import Recipe, Whole
from textnlp_fast.errors import CorruptDataError
from textnlp_fast.tensors import DTYPE_BITS

__all__ = ["EndSummary", "PatchSummary", "TensorSummary", "inspect_patch"]


@dataclass(frozen=True, slots=True)
class EndSummary:
    """One of the two models; sizes in bytes."""

    version: str | None
    digest: str
    files: int
    raw_bytes: int


@dataclass(frozen=True, slots=True)
class TensorSummary:
    """A tensor of the target, or everything else of a file if `name` is empty. Sizes in bytes.

    `recipe` says how it is made: "source" (it is in the source as it is), "alone", or the kind of its base.
    `frames` counts frames by mode. `dtype` is the one it is coded in; `bits_per_weight` is None where that has no
    elements.
    """

    name: str
    file: str
    dtype: str
    size: int
    recipe: str
    frames: Mapping[str, int]
    stored_bytes: int
    bits_per_weight: float | None
    shared: bool = False
    """An earlier row has the same content, and what it takes."""


@dataclass(frozen=True, slots=True)
class PatchSummary:
    """A patch. `index_bytes` and `payload_bytes` make up the file."""

    path: str
    strategy: str
    source: EndSummary
    target: EndSummary
    tensors: tuple[TensorSummary, ...]
    window_bytes: int
    index_bytes: int
    payload_bytes: int
    other_contents: int
    """Stored contents that only others are made of, and what they take."""
    other_bytes: int
    metadata: Mapping[str, str]
    approximate: str | None = None
    """What was asked for, where the target is approximate; `promise` says how far off each tensor is."""
    promise: Mapping[str, Any] = field(default_factory=dict)
    max_ulp: int = 0
    dropped_share: float = 0.0

    @property
    def patch_bytes(self) -> int:
        return self.index_bytes + self.payload_bytes

    @property
    def bits_per_weight(self) -> float | None:
        """Bits of the whole file for each weight of the target."""
        weights = sum(_elements(row.dtype, row.size) or 0 for row in self.tensors if row.name)
        return 8 * self.patch_bytes / weights if weights else None


def inspect_patch(patch: str | os.PathLike[str] | PatchFile) -> PatchSummary:
    """Looks at every frame's header. Raises what `read_patch` does, and CorruptDataError for a damaged payload."""
    file = patch if isinstance(patch, PatchFile) else read_patch(patch)
    inside = file.patch
    rows: list[TensorSummary] = []
    seen: set[str] = set()
    with OpenFiles() as files:
        file.check_payload(files)
        for entry in inside.target.files:
            named = list(zip(entry.names, entry.parts[1:], strict=True)) if entry.names else []
            rows += (_tensor(file, files, name, entry.path, digest, seen) for name, digest in named)
            others = [digest for digest in entry.parts if digest not in {digest for _, digest in named}]
            rows.append(_others(file, files, entry.path, others, seen))
    spare = inside.contents.keys() - inside.target.parts().keys()
    return PatchSummary(
        str(file.path),
        inside.strategy,
        _end(inside.source),
        _end(inside.target),
        tuple(rows),
        inside.window_bytes,
        file.payload_offset,
        inside.payload_bytes,
        len(spare),
        sum(inside.contents[digest].stored_bytes for digest in spare),
        inside.metadata,
        **_promised(inside.promise),
    )


def _promised(promise: PatchPromise | None) -> dict[str, Any]:
    if promise is None:
        return {}
    return {
        "approximate": str(promise.asked),
        "promise": promise.tensors.to_json(),
        "max_ulp": promise.tensors.max_ulp,
        "dropped_share": promise.dropped_share,
    }


def _end(end: End) -> EndSummary:
    return EndSummary(end.version, end.digest, len(end.files), end.raw_bytes)


def _elements(dtype: str, size: int) -> int | None:
    bits = DTYPE_BITS.get(dtype)
    return size * 8 // bits if bits else None


def _tensor(
    file: PatchFile, files: OpenFiles, name: str, path: str, digest: str, seen: set[str]
) -> TensorSummary:
    shared = digest in seen
    seen.add(digest)
    held = file.patch.held.get(digest)
    if held is not None:
        bits = 0.0 if _elements(held.dtype, held.size) else None
        return TensorSummary(name, path, held.dtype, held.size, "source", {}, 0, bits, shared)
    stored = file.patch.contents[digest]
    taken = 0 if shared else stored.stored_bytes
    elements = _elements(stored.dtype, stored.size)
    bits = 8 * taken / elements if elements else None
    frames = _frames(file, files, stored)
    return TensorSummary(
        name, path, stored.dtype, stored.size, _kind(stored.base), frames, taken, bits, shared
    )


def _others(
    file: PatchFile, files: OpenFiles, path: str, digests: list[str], seen: set[str]
) -> TensorSummary:
    """A file's header, or all its chunks, in one row."""
    stored = [file.patch.contents[digest] for digest in digests if digest in file.patch.contents]
    new = [content for content in stored if content.digest not in seen]
    seen.update(digests)
    kinds = dict.fromkeys(_kind(content.base) for content in stored) or {"source": None}
    frames: Counter[str] = Counter()
    for content in stored:
        frames.update(_frames(file, files, content))
    return TensorSummary(
        "",
        path,
        "OPAQUE",
        sum(map(file.patch.size_of, digests)),
        ", ".join(kinds),
        dict(frames),
        sum(content.stored_bytes for content in new),
        None,
    )


def _kind(base: Recipe | None) -> str:
    if base is None:
        return "alone"
    if isinstance(base, Whole):
        return "content"
    return str(next(iter(base.to_json())))


def _frames(file: PatchFile, files: OpenFiles, stored: Stored) -> dict[str, int]:
    """Frames by mode, in the order of `codec.MODES`."""
    counts: Counter[str] = Counter()
    for number, (offset, length) in enumerate(stored.extents):
        payload = memoryview(bytearray(length))
        file.read_payload(files, payload, offset)
        found = codec.frames(payload)
        size = min(file.patch.window_bytes, stored.size - number * file.patch.window_bytes)
        if sum(frame.decoded_bytes for frame in found) != size:
            raise CorruptDataError(f"the frames of content {stored.digest} do not make its {size} bytes")
        counts.update(frame.mode for frame in found)
    return {mode: counts[mode] for mode in codec.MODES if counts[mode]}
