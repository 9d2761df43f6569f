"""A rank's part of a save: its pieces hashed, coded against their bases, and uploaded; then a record of it all."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from textnlp_fast.contents.entries import DTYPE_OPAQUE
from textnlp_fast.contents.windows import DATA_ERRORS
from textnlp_fast.delta.recipe import Recipe, Whole
from textnlp_fast.errors import InvalidInputError, VersionExistsError
from textnlp_fast.hashing import blake3_hex
from textnlp_fast.integrations.torch_dcp.assigning import Assignment, Base, box_of, dtype_of
from textnlp_fast.integrations.torch_dcp.coding import (
    Carrier,
    CodedContent,
    ContentWriter,
    carried_bytes,
    new_shards,
)
from textnlp_fast.integrations.torch_dcp.fetching import decoded
from textnlp_fast.integrations.torch_dcp.held import HELD
from textnlp_fast.integrations.torch_dcp.regions import Box
from textnlp_fast.integrations.torch_dcp.values import NotPlainError, encode_value
from textnlp_fast.objectstore import ObjectStore
from textnlp_fast.storage.config import TransferOptions
from textnlp_fast.storage.manifest import Manifest
from textnlp_fast.storage.packing import ShardObject
from textnlp_fast.storage.publication import ObjectNames
from textnlp_fast.storage.sharding.layout import build_header
from textnlp_fast.storage.sharding.model import Placement, ShardTensor
from textnlp_fast.tensors import DTYPE_BITS

__all__ = ["PieceRecord", "RankRecord", "write_pieces"]

_log = logging.getLogger(__name__)
_HEADER_METADATA = {"format": "pt"}


@dataclass(frozen=True, slots=True)
class PieceRecord:
    """A piece of tensor `tensor`, which has `shape`, under `name` in the rank's file; or a pickle, without a box."""

    tensor: str
    name: str
    dtype: str
    shape: tuple[int, ...]
    box: Box | None
    sizes: tuple[int, ...]
    digest: str
    size: int


@dataclass(frozen=True, slots=True)
class RankRecord:
    """What a rank wrote. `pieces` are in the order of their bytes in the file, `header` is its header's content.

    A rank that has coded little stores nothing: its windows are `carried`, slots of a shard 0 that the coordinator
    stores with those of others.
    """

    rank: int
    path: str
    header: str
    header_bytes: int
    pieces: tuple[PieceRecord, ...]
    values: tuple[tuple[str, Any], ...]
    contents: tuple[CodedContent, ...]
    shards: tuple[ShardObject, ...]
    carried: bytes = b""

    def windows(self, coded: CodedContent) -> Iterator[bytes]:
        """The coded windows of one of the contents, if they are carried."""
        for slot in coded.slots:
            yield self.carried[slot.offset : slot.offset + slot.length]


def write_pieces(
    plan: Any,
    planner: Any,
    assignment: Assignment,
    store: ObjectStore,
    parent: Callable[[], Manifest],
    options: TransferOptions,
    *,
    threads: int,
    allow_pickle: bool,
) -> RankRecord:
    """Writes a plan's items. `parent` reads the manifest of the version that bases are from, if that is needed."""

    def fetch(digests: Iterable[str]) -> dict[str, memoryview]:
        return decoded(store, parent(), digests, options, threads)

    rank = _Rank(planner, assignment, store, fetch, options, threads, allow_pickle)
    with new_shards(store, options, ObjectNames(assignment.garbage), threads) as shards:
        carrier = Carrier(shards, carried_bytes(options, assignment.ranks))
        rank.writer = ContentWriter(carrier, assignment.window_bytes, options, threads)
        for group in _groups(
            list(zip(plan.items, assignment.bases, strict=True)), options.memory_budget_bytes
        ):
            missing = {
                digest: None
                for _, base in group
                if base.recipe is not None
                for digest in base.recipe.source_sizes()
                if HELD.get(digest) is None
            }
            sources: dict[str, memoryview] = {}
            usable = True
            try:
                sources = fetch(missing) if missing else {}
            except DATA_ERRORS as error:  # what is damaged predicts nothing, and training goes on
                _log.warning("pieces are stored whole: %s@%s: %s", *(assignment.parent or ("", "")), error)
                usable = False
            for item, base in group:
                rank.write(item, base if usable else replace(base, recipe=None), sources)
        return rank.finish(carrier)


def _groups(items: Sequence[tuple[Any, Base]], budget_bytes: int) -> Iterator[list[tuple[Any, Base]]]:
    """Items in their order, as many at a time as what they are coded against may take in memory."""
    group: list[tuple[Any, Base]] = []
    sources: dict[str, int] = {}
    for item, base in items:
        sizes = {} if base.recipe is None else base.recipe.source_sizes()
        new = {digest: size for digest, size in sizes.items() if HELD.get(digest) is None}
        if group and sum((sources | new).values()) > budget_bytes:
            yield group
            group, sources = [], {}
        group.append((item, base))
        sources |= new
    if group:
        yield group


class _Rank:
    """One rank's part of one save."""

    writer: ContentWriter

    def __init__(
        self,
        planner: Any,
        assignment: Assignment,
        store: ObjectStore,
        fetch: Callable[[Iterable[str]], dict[str, memoryview]],
        options: TransferOptions,
        threads: int,
        allow_pickle: bool,
    ) -> None:
        self._planner = planner
        self._fetch = fetch
        self._assignment = assignment
        self._where = (store.url, assignment.model)
        # A version that is there is compared with itself.
        self._is_again = assignment.parent == (assignment.model, assignment.version)
        self._threads = threads
        self._delta = options.delta
        self._allow_pickle = allow_pickle
        self._pieces: list[PieceRecord] = []
        self._names: set[str] = {"__metadata__"}
        self._values: list[tuple[str, Any]] = []

    def write(self, item: Any, base: Base, sources: dict[str, memoryview]) -> None:
        """Writes one item; `sources` are what bases are made of and this process does not hold."""
        name = item.index.fqn
        if item.tensor_data is None:
            self._write_value(name, self._planner.resolve_data(item))
            return
        tensor = self._planner.resolve_data(item).detach()
        data = item.tensor_data
        box = box_of(data.chunk)
        dtype = dtype_of(tensor.dtype)
        if tuple(tensor.shape) != box.sizes or tensor.dtype != data.properties.dtype:
            raise InvalidInputError(
                f"{name!r} is {tensor.dtype} of shape {list(tensor.shape)}; its plan says "
                f"{data.properties.dtype} of {list(box.sizes)}"
            )
        array = _bytes_of(tensor)
        digest = blake3_hex(array, threads=self._threads)
        self._note(name, dtype, tuple(data.size), box, box.sizes, digest, array.nbytes)
        key = (*self._where, name, box)
        if digest == base.same:
            HELD.put(key, digest, array, is_root=False)
            return
        if base.same is not None and self._is_again:
            raise VersionExistsError(
                f"{self._assignment.model}@{self._assignment.version} is published already, with other files: "
                f"{name!r} differs"
            )
        recipe = base.recipe if self._delta else None
        coded = self.writer.add(digest, array, dtype, recipe, self._windows(recipe, sources))
        HELD.put(key, digest, array, is_root=coded.base is None)

    def finish(self, carrier: Carrier) -> RankRecord:
        """Writes the header of the rank's file, and waits for all uploads."""
        # As the format's own writer has it, largest elements first: so each lies where its type may lie.
        pieces = sorted(self._pieces, key=lambda each: (-DTYPE_BITS[each.dtype], each.name))
        placements = [Placement(ShardTensor(each.name, each.dtype, each.sizes, ())) for each in pieces]
        header = build_header(placements, _HEADER_METADATA)
        digest = blake3_hex(header, threads=1)
        if digest != self._assignment.header:
            self.writer.add(digest, np.frombuffer(header, np.uint8), DTYPE_OPAQUE)
        shards, carried = carrier.finish()
        return RankRecord(
            self._assignment.rank,
            self._assignment.path,
            digest,
            len(header),
            tuple(pieces),
            tuple(self._values),
            tuple(self.writer.contents.values()),
            shards,
            carried,
        )

    def _windows(
        self, recipe: Recipe | None, sources: dict[str, memoryview]
    ) -> Callable[[int, int], Any] | None:
        if recipe is None:
            return None

        def held(digest: str, begin: int, end: int) -> memoryview:
            found = sources.get(digest)
            if found is None:
                found = HELD.get(digest)
            if found is None:  # what came since has taken its room
                found = sources[digest] = self._fetch([digest])[digest]
            return found[begin:end]

        if isinstance(recipe, Whole):
            whole = recipe
            return lambda begin, end: held(whole.digest, begin, end)
        return lambda begin, end: recipe.read(begin, end, held)

    def _write_value(self, name: str, stream: io.BytesIO) -> None:
        """Keeps plain data as JSON; what else there is as a pickle, if that was allowed."""
        data = stream.getvalue()
        try:
            value = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
            self._values.append((name, encode_value(value)))
            return
        except NotPlainError as error:
            what = str(error)
        except Exception as error:  # noqa: BLE001  (unpicklers raise anything)
            what = str(error).partition("\n")[0][:200]
        if not self._allow_pickle:
            raise InvalidInputError(
                f"{name!r} is no tensor and no plain data ({what})",
                hint="Save numbers, text, lists and dictionaries; or pass allow_pickle=True to writer and reader: "
                "whoever unpickles runs the code that is in it.",
            )
        array = np.frombuffer(data, np.uint8)
        digest = blake3_hex(array, threads=1)
        self._note(name, "U8", (array.nbytes,), None, (array.nbytes,), digest, array.nbytes)
        self.writer.add(digest, array, "U8")

    def _note(
        self,
        tensor: str,
        dtype: str,
        shape: tuple[int, ...],
        box: Box | None,
        sizes: tuple[int, ...],
        digest: str,
        size: int,
    ) -> None:
        name, number = tensor, 0
        while name in self._names:
            number += 1
            name = f"{tensor}#{number}"
        self._names.add(name)
        self._pieces.append(PieceRecord(tensor, name, dtype, shape, box, sizes, digest, size))


def _bytes_of(tensor: Any) -> Any:
    """A tensor's bytes in row-major order, in host memory: those of the tensor itself where it lies so."""
    return tensor.to("cpu").contiguous().reshape(-1).view(torch.uint8).numpy()
