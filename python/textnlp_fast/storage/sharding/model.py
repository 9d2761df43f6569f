"""What is sharded, as planners see it: tensors, where their bytes are, and where these are to go. Pure data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from textnlp_fast.errors import InvalidInputError
from textnlp_fast.tensors import DTYPE_BITS
from textnlp_fast.tensors.architecture import Architecture
from textnlp_fast.tensors.parallel import Portion

__all__ = [
    "MAX_PARTS",
    "FilePlan",
    "Group",
    "Original",
    "Piece",
    "Placement",
    "ShardPlan",
    "ShardSource",
    "ShardTensor",
    "SourceFile",
    "check_parts",
]

#: Ranks or stages that a model may be dealt out to.
MAX_PARTS: Final = 4096


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes of a tensor in the source: `portion` of it (None: all) begins at byte `begin` of file number `file`.

    `digest` is the BLAKE3 digest, in hexadecimal digits, that it has to have; None if nothing says it.
    """

    file: int
    begin: int
    portion: Portion | None = None
    digest: str | None = None


@dataclass(frozen=True, slots=True)
class ShardTensor:
    """A tensor of the whole model; `shape` counts elements. Where there are several pieces, ranks hold parts of it.

    `digest` is what all of it has to have, as in `Piece`.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    pieces: tuple[Piece, ...]
    digest: str | None = None

    @property
    def size_bytes(self) -> int:
        return math.prod(self.shape) * DTYPE_BITS[self.dtype] // 8


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file that holds tensors. `path` is where to read it; a version in a repository has none."""

    name: str
    size: int
    path: Path | None = None
    mtime_ns: int = 0


@dataclass(frozen=True, slots=True)
class Original:
    """A safetensors file as the model first had it: `header` are its first bytes, the rest follows from those.

    `digests` are those of its tensors, in the order of their bytes; empty if nothing says them.
    """

    path: str
    size: int
    header: bytes
    digests: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ShardSource:
    """A model to be sharded. `tensors` are in the order of their files and of their bytes in these."""

    name: str
    files: tuple[SourceFile, ...]
    tensors: tuple[ShardTensor, ...]
    originals: tuple[Original, ...]
    others: Mapping[str, Path | None] = field(default_factory=dict)
    """Files that are copied as they are, by their names in the model."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    index: bytes | None = None
    """The index that the originals had, if they had one."""
    architecture: Architecture = field(default_factory=Architecture)
    notes: tuple[str, ...] = ()
    """What to know of it: that nothing says which bytes are right, say."""

    @property
    def total_bytes(self) -> int:
        return sum(tensor.size_bytes for tensor in self.tensors)


@dataclass(frozen=True, slots=True)
class Placement:
    """A tensor, or `portion` of it, that a file of the result holds under the tensor's name."""

    tensor: ShardTensor
    portion: Portion | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return self.tensor.shape if self.portion is None else self.portion.shape(self.tensor.shape)

    @property
    def size_bytes(self) -> int:
        return math.prod(self.shape) * DTYPE_BITS[self.tensor.dtype] // 8


@dataclass(frozen=True, slots=True)
class Group:
    """Placements that belong together: they begin a file of their own unless `joins`, and go on in others if need be.

    `rank` and `stage` say who reads them, where somebody does.
    """

    placements: tuple[Placement, ...]
    rank: int | None = None
    stage: int | None = None
    joins: bool = False

    @property
    def size_bytes(self) -> int:
        return sum(each.size_bytes for each in self.placements)


@dataclass(frozen=True, slots=True)
class FilePlan:
    """A file of the result; `header` are its first bytes and the placements follow each other behind it."""

    path: str
    header: bytes
    placements: tuple[Placement, ...]
    rank: int | None = None
    stage: int | None = None

    @property
    def size(self) -> int:
        return len(self.header) + sum(each.size_bytes for each in self.placements)


@dataclass(frozen=True, slots=True)
class ShardPlan:
    """Where every byte of a model is to go. `parts` are the ranks or stages that it is dealt out to."""

    strategy: str
    reason: str
    files: tuple[FilePlan, ...]
    parts: int = 1
    notes: tuple[str, ...] = ()

    @property
    def by_rank(self) -> bool:
        """Whether ranks have directories of their own, with parts of tensors in them."""
        return any("/" in file.path for file in self.files if file.rank is not None)


def check_parts(parts: int, what: str) -> int:
    """The number of ranks or stages. Raises InvalidInputError if it is none."""
    if not 1 <= parts <= MAX_PARTS:
        raise InvalidInputError(f"{what} is {parts}; it may be 1 to {MAX_PARTS}")
    return parts
