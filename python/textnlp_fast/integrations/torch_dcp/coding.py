"""Contents that a save codes, and where their windows go: into shards, or along with a rank's answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from textnlp_fast.contents.inventory import coding_dtype, layout_dtype
from textnlp_fast.delta import codec
from textnlp_fast.delta.recipe import Recipe
from textnlp_fast.objectstore import ObjectStore
from textnlp_fast.storage.config import TransferOptions
from textnlp_fast.storage.manifest import Codec
from textnlp_fast.storage.packing import ShardObject, ShardWriter, Slot
from textnlp_fast.storage.publication import ObjectNames

__all__ = ["Carrier", "CodedContent", "ContentWriter", "carried_bytes", "new_shards"]

_CARRIED_BYTES = 256 << 10
_CARRIED_BY_ALL_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class CodedContent:
    """A content that was coded: its windows are `slots` of the writer's shards."""

    digest: str
    dtype: str
    size: int
    codec: Codec
    base: Recipe | None
    slots: tuple[Slot, ...]


class ContentWriter:
    """Codes contents one after the other into shards, each digest once."""

    def __init__(
        self, shards: ShardWriter | Carrier, window_bytes: int, options: TransferOptions, threads: int
    ) -> None:
        self._shards = shards
        self._window_bytes = window_bytes
        self._compression = options.compression
        self._threads = threads
        self._out = bytearray()
        self.contents: dict[str, CodedContent] = {}

    def add(
        self,
        digest: str,
        data: Any,
        dtype: str,
        recipe: Recipe | None = None,
        window_of: Callable[[int, int], Any] | None = None,
    ) -> CodedContent:
        """Codes `data`, an array of bytes; `window_of(begin, end)` gives the recipe's bytes."""
        known = self.contents.get(digest)
        if known is not None:
            return known
        slots: list[Slot] = []
        needs_base = False
        for begin in range(0, data.nbytes, self._window_bytes):
            window = data[begin : begin + self._window_bytes]
            if not self._compression:
                slots.append(self._shards.add(memoryview(window)))
                continue
            base = None if window_of is None else window_of(begin, begin + window.nbytes)
            need = codec.encode_bound(window.nbytes)
            if len(self._out) < need:
                self._out = bytearray(need)
            length = codec.encode_into(
                window, self._out, base, dtype=layout_dtype(dtype), threads=self._threads
            )
            with memoryview(self._out)[:length] as payload:
                needs_base = needs_base or (base is not None and codec.scan(payload).needs_base)
                slots.append(self._shards.add(payload))
        coded = CodedContent(
            digest,
            coding_dtype(dtype),
            data.nbytes,
            "frames" if self._compression else "raw",
            recipe if needs_base else None,
            tuple(slots),
        )
        self.contents[digest] = coded
        return coded

    def adopt(self, coded: CodedContent, windows: Iterable[bytes]) -> None:
        """Stores a content that a rank has coded."""
        if coded.digest not in self.contents:
            slots = tuple(self._shards.add(window) for window in windows)
            self.contents[coded.digest] = replace(coded, slots=slots)


class Carrier:
    """Keeps coded windows as long as they are few bytes, and passes them on to `shards` when they get more.

    For the coordinator to store them, with those of other ranks: one small object in place of many, and one wait less.
    """

    def __init__(self, shards: ShardWriter, most_bytes: int) -> None:
        self._shards = shards
        self._most_bytes = most_bytes
        self._kept: list[bytes] | None = []
        self._filled = 0

    def add(self, payload: bytes | memoryview) -> Slot:
        """Places a coded window. Raises what an upload raised, if one failed meanwhile."""
        if self._kept is not None:
            if self._filled + len(payload) <= self._most_bytes:
                slot = Slot(0, self._filled, len(payload))
                self._kept.append(bytes(payload))
                self._filled += len(payload)
                return slot
            kept, self._kept = self._kept, None
            for window in kept:  # they are the first of the first shard, and keep their slots
                self._shards.add(window)
        return self._shards.add(payload)

    def finish(self) -> tuple[tuple[ShardObject, ...], bytes]:
        """The shards, uploaded, and what is to be carried: one of the two is empty."""
        return tuple(self._shards.finish()), b"".join(self._kept or ())


def carried_bytes(options: TransferOptions, ranks: int) -> int:
    """How much a rank may send to the coordinator, which holds what all of them send."""
    if not options.sharding:  # each window is an object then
        return 0
    return min(_CARRIED_BYTES, _CARRIED_BY_ALL_BYTES // ranks, options.shard_bytes)


def new_shards(
    store: ObjectStore,
    options: TransferOptions,
    names: ObjectNames,
    threads: int,
    pool: ThreadPoolExecutor | None = None,
) -> ShardWriter:
    """Where coded contents go."""
    return ShardWriter(
        store,
        options.shard_bytes,
        buffers=2,
        packing=options.sharding,
        threads=threads,
        names=names,
        pool=pool,
    )
