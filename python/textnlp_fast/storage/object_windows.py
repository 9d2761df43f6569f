"""The coded windows of a version's contents, as a Maker asks for them: by content and window, whole or in part."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from typing import Final

from textnlp_fast.contents.inventory import Held
from textnlp_fast.contents.windows import OpenFiles
from textnlp_fast.delta.making import Maker
from textnlp_fast.objectstore import ObjectStore
from textnlp_fast.storage.extents import check_object, fetch_extents, object_key
from textnlp_fast.storage.manifest import Content, Extent

__all__ = ["ObjectWindows", "kept_bytes", "new_maker", "working_bytes"]

# Bytes that may be decoded for each that a recipe is asked for. What `push` writes stays below a quarter of it.
_MOST_WORK: Final = 256
# Windows of sources that are kept, coded and decoded each: a matrix that is turned is read once for each window of
# the result, and what is interleaved in strands is read once for each strand. Two will do, slowly.
_KEPT_WINDOWS: Final = 4
_LEAST_KEPT_WINDOWS: Final = 2
_BUDGET_WINDOWS: Final = 16
_WAY_OUT: Final = (
    "No push writes such a version: get its files from where they came from, and push them again."
)


class ObjectWindows:
    """Reads from the repository; `fetched` hears of the bytes. Thread-safe.

    Who asks for a whole window asks for parts of it next: the last ones, up to `kept_bytes` of them, are kept.
    """

    def __init__(
        self,
        store: ObjectStore,
        contents: Mapping[str, Content],
        window_bytes: int,
        *,
        kept_bytes: int,
        fetched: Callable[[int], None] | None = None,
    ) -> None:
        self._most_kept_bytes = kept_bytes
        self._store = store
        self._contents = contents
        self._window_bytes = window_bytes
        self._fetched = fetched
        self._lock = threading.Lock()
        self._kept: OrderedDict[Extent, memoryview] = OrderedDict()
        self._kept_bytes = 0

    @property
    def contents(self) -> Mapping[str, Content]:
        return self._contents

    @property
    def window_bytes(self) -> int:
        return self._window_bytes

    def coded_bytes(self, digest: str, window: int) -> int:
        """What a coded window takes."""
        return self._contents[digest].extents[window].length

    def read_coded(self, files: OpenFiles, digest: str, window: int, begin: int, end: int) -> memoryview:
        """Bytes [begin, end) of a coded window."""
        extent = self._contents[digest].extents[window]
        with self._lock:
            kept = self._kept.get(extent)
            if kept is not None:
                self._kept.move_to_end(extent)
                return kept[begin:end]
        data = self._store.get_range(object_key(extent.object), extent.offset + begin, end - begin)
        if self._fetched is not None:
            self._fetched(end - begin)
        view = memoryview(data).cast("B")
        if len(view) == extent.length:
            self._keep(extent, view)
        return view

    def prefetch(self, windows: Iterable[tuple[str, int]]) -> None:
        """Reads coded windows, (content, number) each, near ones in one request; what there is room for is kept."""
        extents = {self._contents[digest].extents[window] for digest, window in windows}
        with self._lock:
            missing = extents - self._kept.keys()
        if len(missing) < 2:
            return
        for extent, data in fetch_extents(self._store, missing).items():
            if self._fetched is not None:
                self._fetched(extent.length)
            self._keep(extent, data)

    def check_coded(self, files: OpenFiles, digest: str, window: int) -> None:
        """Raises DigestMismatchError unless the window's object is as it was written."""
        check_object(self._store, self._contents[digest].extents[window].object)

    def _keep(self, extent: Extent, data: memoryview) -> None:
        with self._lock:
            if extent in self._kept:
                return
            self._kept[extent] = data
            self._kept_bytes += len(data)
            while self._kept_bytes > self._most_kept_bytes:
                self._kept_bytes -= len(self._kept.popitem(last=False)[1])


def working_bytes(window_bytes: int, budget_bytes: int) -> int:
    """Memory that a Maker of `new_maker` takes however many threads use it."""
    return 2 * kept_bytes(window_bytes, budget_bytes)


def kept_bytes(window_bytes: int, budget_bytes: int) -> int:
    """What to keep of coded windows, and again of decoded frames, within a budget."""
    ample = budget_bytes >= _BUDGET_WINDOWS * window_bytes
    return (_KEPT_WINDOWS if ample else _LEAST_KEPT_WINDOWS) * window_bytes


def new_maker(
    store: ObjectStore,
    contents: Mapping[str, Content],
    window_bytes: int,
    files: OpenFiles,
    held: MutableMapping[str, Held],
    *,
    budget_bytes: int,
    threads: int,
    fetched: Callable[[int], None] | None = None,
    bounded: bool = True,
) -> Maker:
    """Makes stretches of `contents`, out of local files where `held` names them, else of the repository.

    What comes out is checked by the caller, who knows how much of a content was made.
    """
    kept = kept_bytes(window_bytes, budget_bytes)
    windows = ObjectWindows(store, contents, window_bytes, kept_bytes=kept, fetched=fetched)
    return Maker(
        windows,
        files,
        held,
        threads=threads,
        bounded=bounded,
        most_work=_MOST_WORK,
        kept_bytes=kept,
        way_out=_WAY_OUT,
    )
