"""A version in a repository as new weights for a swap."""

from __future__ import annotations

import os
import threading
from collections.abc import Collection, Iterable, Mapping, MutableMapping
from typing import Final

from textnlp_fast.contents.inventory import Held
from textnlp_fast.contents.windows import OpenFiles
from textnlp_fast.delta.making import Coded, CodedContents, Maker
from textnlp_fast.delta.patch import End, model_digest
from textnlp_fast.delta.source import file_places
from textnlp_fast.errors import InvalidInputError
from textnlp_fast.loading.resident import Resident
from textnlp_fast.loading.updates import Kind, some, tensors_of
from textnlp_fast.storage.manifest import Manifest
from textnlp_fast.storage.object_windows import ObjectWindows, kept_bytes
from textnlp_fast.storage.repository import Repository
from textnlp_fast.tensors import TensorInfo

__all__ = ["VersionUpdate"]

# Threads that wait for a bucket cost no processor.
_FETCHING: Final = 8


class VersionUpdate:
    """A version in a repository: what memory has already is not fetched.

    `old` is the version that memory must have, if that was said; else any weights of the right shapes will do.
    """

    def __init__(
        self,
        repository: Repository,
        manifest: Manifest,
        old: Manifest | None,
        source: str | os.PathLike[str] | None,
        *,
        memory_budget_bytes: int,
    ) -> None:
        self._repository = repository
        self._manifest = manifest
        self._old = old
        self._source = source
        # Of the old version's, what slices are compared with.
        self._contents = {**({} if old is None else old.contents), **manifest.contents}
        self._kept_bytes = kept_bytes(manifest.window_bytes, memory_budget_bytes)
        self._windows = ObjectWindows(
            repository.store,
            self._contents,
            manifest.window_bytes,
            kept_bytes=self._kept_bytes,
            fetched=self._count,
        )
        self._lock = threading.Lock()
        self.fetched_bytes = 0
        self.old = None if old is None else tensors_of(old.files)
        self.new: Mapping[str, str] = tensors_of(manifest.files)

    @property
    def label(self) -> str:
        return "the weights to start from" if self._old is None else f"{self._old.model}@{self._old.version}"

    @property
    def source_version(self) -> str | None:
        return None if self._old is None else self._old.version

    @property
    def target_version(self) -> str | None:
        return self._manifest.version

    @property
    def target_digest(self) -> str:
        return model_digest(self._manifest.files)

    @property
    def window_bytes(self) -> int:
        return self._manifest.window_bytes

    @property
    def contents(self) -> Mapping[str, Coded]:
        return self._contents

    @property
    def coded(self) -> CodedContents:
        return self._windows

    def prefetch(self, windows: Iterable[tuple[str, int]]) -> None:
        self._windows.prefetch(windows)

    def read_window(self, files: OpenFiles, digest: str, window: int, out: memoryview) -> None:
        out[:] = self._windows.read_coded(files, digest, window, 0, len(out))

    def size_of(self, digest: str) -> int:
        return self._contents[digest].size

    def dtype_of(self, digest: str) -> str:
        return self._contents[digest].dtype

    def room_bytes(self) -> int:
        return 0

    def shared_bytes(self, budget_bytes: int) -> int:
        return 2 * self._kept_bytes

    def most_workers(self, threads: int) -> int:
        return max(threads, _FETCHING)

    def check_fit(self, residents: Collection[Resident]) -> None:
        known = {name: resident for resident in residents for name in resident.names}
        if self.old is not None:
            gone = [name for name in self.old if name in known and name not in self.new]
            if gone:
                raise InvalidInputError(
                    f"version {self.target_version} has no tensors {some(gone)}",
                    hint="Load the new version: `textnlp-fast pull`, then the model's own loader.",
                )
        for tensors in self._repository.headers(self._manifest).values():
            for name, tensor in tensors.items():
                if name in known:
                    _check_shape(name, known[name], tensor)

    def check_bytes(self) -> None:
        """Objects are read once, and what is made of them is hashed in memory."""

    def maker(self, files: OpenFiles, places: MutableMapping[str, Held], threads: int) -> Maker:
        return Maker(self._windows, files, places, threads=threads, kept_bytes=self._kept_bytes)

    def find(self, missing: Collection[str], threads: int) -> Mapping[str, Held]:
        return {}  # a manifest has everything that its contents are made of

    def kinds(self) -> Mapping[str, tuple[Kind, Kind]]:
        if self._old is None:
            return {}
        old, new = (
            {
                name: (tensor.dtype, tuple(tensor.shape))
                for tensors in self._repository.headers(manifest).values()
                for name, tensor in tensors.items()
            }
            for manifest in (self._old, self._manifest)
        )
        return {name: (old[name], kind) for name, kind in new.items() if name in old}

    def source_places(self) -> dict[str, Held]:
        if self._source is None or self._old is None:
            return {}  # from the repository, then
        places = file_places(End(self._old.version, self._old.files), self._source)
        held: dict[str, Held] = {}
        for entry in self._old.files:
            offset = 0
            for digest in entry.parts:
                held.setdefault(digest, Held(str(places[entry.path]), offset))
                offset += self.size_of(digest)
        return held

    def _count(self, size_bytes: int) -> None:
        with self._lock:
            self.fetched_bytes += size_bytes


def _check_shape(name: str, resident: Resident, tensor: TensorInfo) -> None:
    if resident.shape is not None and resident.shape != tuple(tensor.shape):
        raise InvalidInputError(
            f"tensor {name!r} is {list(resident.shape)} in memory and {tensor.dtype} {list(tensor.shape)} in the"
            " version",
            hint="Load the new version: `textnlp-fast pull`, then the model's own loader.",
        )
