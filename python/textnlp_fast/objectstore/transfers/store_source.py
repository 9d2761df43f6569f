"""Anything that an object store can read, as a source: folders, memory, and buckets behind a proxy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from textnlp_fast.errors import CorruptDataError, SourceChangedError
from textnlp_fast.objectstore.store import ObjectStore
from textnlp_fast.objectstore.transfers.protocol import SourceState

if TYPE_CHECKING:
    from textnlp_fast.objectstore.transfers.protocol import Take
    from textnlp_fast.objectstore.transfers.watch import StreamWatch

__all__ = ["StoreSource"]

_PIECE_BYTES: Final = 4 << 20


class StoreSource:
    """An object of ``store``, read by ``get_range``; its ETag is looked at again after each range."""

    def __init__(self, store: ObjectStore, key: str) -> None:
        self.url = f"{store.url.rstrip('/')}/{key}"
        self._store = store
        self._key = key

    def look(self) -> SourceState:
        meta = self._store.head(self._key)
        return SourceState(meta.size, meta.etag)

    def read(
        self, state: SourceState, offset: int, length: int, buffer: memoryview, take: Take, watch: StreamWatch
    ) -> None:
        for begin in range(0, length, _PIECE_BYTES):
            size = min(_PIECE_BYTES, length - begin)
            try:
                data = self._store.get_range(self._key, offset + begin, size)
            except CorruptDataError:
                self._check(state)
                raise
            # A store cannot be asked for a range of one state only: what was read counts if it is the same after.
            self._check(state)
            take(begin, data)
            watch.passed(size)

    def _check(self, state: SourceState) -> None:
        meta = self._store.head(self._key)
        if (meta.size, meta.etag) != (state.size, state.identity):
            raise SourceChangedError(f"{self.url} was replaced while it was read")

    def close(self) -> None:
        """Nothing is open."""
