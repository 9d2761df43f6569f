"""What the coordinator tells each rank of a save: under which rules to write, and against what to code each piece."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from textnlp_fast.contents.documents import MAX_DOCUMENT_BYTES
from textnlp_fast.delta.recipe import Recipe, Whole
from textnlp_fast.errors import InvalidInputError
from textnlp_fast.integrations.torch_dcp.layout import (
    RECORD_NAME,
    Layout,
    TensorLayout,
    layout_of_files,
    read_layout,
)
from textnlp_fast.integrations.torch_dcp.regions import Box, Stored, base_of
from textnlp_fast.loading.places import TORCH_NAMES
from textnlp_fast.objectstore import ObjectStore
from textnlp_fast.storage.config import TransferOptions
from textnlp_fast.storage.garbage.document import Garbage
from textnlp_fast.storage.headers import read_tensors
from textnlp_fast.storage.manifest import Manifest
from textnlp_fast.storage.planning import ParentBases
from textnlp_fast.storage.small_files import read_small_file

__all__ = ["Assignment", "Base", "Parent", "box_of", "dtype_of", "layout_of", "open_parent", "rank_path"]

_LAST: dict[str, Layout] = {}
_LAST_LOCK = threading.Lock()
_DTYPES = {name: dtype for dtype, name in TORCH_NAMES.items()}


@dataclass(frozen=True, slots=True)
class Base:
    """What a piece is coded against. `same` is the content that it is if nothing changed."""

    recipe: Recipe | None = None
    same: str | None = None


@dataclass(frozen=True, slots=True)
class Assignment:
    """What a rank has to know of a save; travels with its plan. `bases` are those of its items, in their order.

    `parent` names the version whose contents the bases are; `header` is the content that the header of the rank's file
    was there. `token` tells this save from the one before.
    """

    rank: int
    ranks: int
    model: str
    version: str
    window_bytes: int
    garbage: Garbage
    parent: tuple[str, str] | None
    header: str | None
    bases: tuple[Base, ...]
    token: str = field(default_factory=lambda: secrets.token_hex(8))

    @property
    def path(self) -> str:
        """The rank's file."""
        return rank_path(self.rank, self.ranks)


def rank_path(rank: int, ranks: int) -> str:
    """The file of a rank's pieces: that of a sharded model's (docs/format.md, "Sharded models")."""
    return f"rank-{rank:0{len(str(ranks - 1))}}/model.safetensors"


@dataclass(frozen=True, slots=True)
class Parent:
    """The version before, opened to be built on: without what stands on lost objects."""

    manifest: Manifest
    stored: Mapping[str, tuple[TensorLayout, tuple[Stored, ...]]]
    bases: ParentBases

    def assign(self, items: Sequence[Any]) -> tuple[Base, ...]:
        """What to code a plan's write items against."""
        return tuple(self._base(item) for item in items)

    def header_of(self, path: str) -> str | None:
        """The content of a file's header, if it is still there."""
        entry = next((entry for entry in self.manifest.files if entry.path == path), None)
        if entry is None or entry.kind != "safetensors" or entry.parts[0] not in self.manifest.contents:
            return None
        return entry.parts[0]

    def _base(self, item: Any) -> Base:
        data = item.tensor_data
        if data is None:
            return Base()
        found = self._find(item.index.fqn, dtype_of(data.properties.dtype), tuple(data.size))
        if found is None:
            return Base()
        tensor, pieces = found
        recipe = base_of(box_of(data.chunk), pieces, tensor.element_bytes)
        if recipe is None or any(digest not in self.manifest.contents for digest in recipe.source_sizes()):
            return Base()
        same = recipe.digest if isinstance(recipe, Whole) else None
        return Base(self.bases.by_recipe(recipe), same)

    def _find(
        self, name: str, dtype: str, shape: tuple[int, ...]
    ) -> tuple[TensorLayout, tuple[Stored, ...]] | None:
        """The tensor of that name; also without what stands before the first dot: `model.` in a state of several."""
        for known in (name, name.partition(".")[2]):
            found = self.stored.get(known)
            if found is not None and (found[0].dtype, found[0].shape) == (dtype, shape):
                return found
        return None


def open_parent(store: ObjectStore, whole: Manifest, usable: Manifest, options: TransferOptions) -> Parent:
    """Opens a version to be built on; `usable` is its manifest without the contents that need lost objects.

    Raises what reading its headers or its record raises.
    """
    stored = layout_of(store, whole, options).stored(whole)
    return Parent(usable, stored, ParentBases(usable, options.max_chain_depth))


def layout_of(store: ObjectStore, manifest: Manifest, options: TransferOptions) -> Layout:
    """What a version is as a checkpoint. Raises CorruptDataError, UnsupportedFormatError, InvalidInputError."""
    record = next((entry.digest for entry in manifest.files if entry.path == RECORD_NAME), None)
    if record is not None:
        layout = _read_record(record, store, manifest, options)
        paths = {entry.path for entry in manifest.files}
        # Ranks that were merged leave a record of files that are no more.
        if not layout.files or not paths.isdisjoint(layout.files):
            return layout
    return layout_of_files(manifest, read_tensors(store, manifest, options))


def _read_record(digest: str, store: ObjectStore, manifest: Manifest, options: TransferOptions) -> Layout:
    """The record of that digest; the last one is remembered, for as long as nothing else changes it stays the same."""
    with _LAST_LOCK:
        found = _LAST.get(digest)
    if found is None:
        data = read_small_file(store, manifest, RECORD_NAME, options, limit_bytes=MAX_DOCUMENT_BYTES)
        found = read_layout(data or b"")
        with _LAST_LOCK:
            _LAST.clear()
            _LAST[digest] = found
    return found


def box_of(chunk: Any) -> Box:
    """The box that DCP's chunk of a tensor is."""
    return Box(tuple(map(int, chunk.offsets)), tuple(map(int, chunk.sizes)))


def dtype_of(dtype: object) -> str:
    """safetensors' name of a torch type. Raises InvalidInputError for one that it has none for."""
    name = _DTYPES.get(str(dtype).removeprefix("torch."))
    if name is None:
        raise InvalidInputError(
            f"tensors of type {dtype} have no place in safetensors files",
            hint="Save them as another type: real and imaginary parts, say, or `view(torch.uint8)`.",
        )
    return name
