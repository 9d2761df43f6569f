"""New weights as a swap sees them, whether a patch file brings them or a version in a repository."""

from __future__ import annotations

import os
import threading
from collections.abc import Collection, Iterable, Mapping, MutableMapping
from typing import Final, Protocol

from textnlp_fast.contents.entries import FileEntry
from textnlp_fast.contents.inventory import Held
from textnlp_fast.contents.windows import OpenFiles
from textnlp_fast.delta.filling import room_bytes
from textnlp_fast.delta.making import Coded, CodedContents, Maker
from textnlp_fast.delta.patch import End, model_digest
from textnlp_fast.delta.patch_file import PatchFile
from textnlp_fast.delta.source import check_source, file_places, held_places
from textnlp_fast.errors import InvalidInputError
from textnlp_fast.loading.resident import Resident
from textnlp_fast.storage.manifest import Manifest
from textnlp_fast.storage.object_windows import ObjectWindows, kept_bytes
from textnlp_fast.storage.repository import Repository
from textnlp_fast.tensors import SafetensorsFile, TensorInfo

__all__ = ["Kind", "PatchUpdate", "Update", "VersionUpdate", "some", "tensors_of"]

_LOAD_ANEW: Final = "Load the new version: `textnlp-fast delta apply`, then the model's own loader."
# Threads that wait for a bucket cost no processor.
_FETCHING: Final = 8


Kind = tuple[str, tuple[int, ...]]
"""A dtype and a shape."""


class Update(Protocol):
    """Where new weights come from, and what they start from."""

    @property
    def label(self) -> str:
        """For people: what memory has to have."""
        ...

    @property
    def source_version(self) -> str | None: ...

    @property
    def target_version(self) -> str | None: ...

    @property
    def target_digest(self) -> str: ...

    @property
    def window_bytes(self) -> int: ...

    @property
    def contents(self) -> Mapping[str, Coded]:
        """What can be made, by digest."""
        ...

    @property
    def coded(self) -> CodedContents:
        """Where the coded windows of these are."""
        ...

    def prefetch(self, windows: Iterable[tuple[str, int]]) -> None:
        """Reads coded windows (content and number) that `coded` is about to be asked for, many in one request."""
        ...

    @property
    def old(self) -> Mapping[str, str] | None:
        """Digests of the tensors that memory must have, by name; None if any will do."""
        ...

    @property
    def new(self) -> Mapping[str, str]:
        """Digests of the tensors that come, by name."""
        ...

    @property
    def fetched_bytes(self) -> int:
        """What was read from a repository so far."""
        ...

    def read_window(self, files: OpenFiles, digest: str, window: int, out: memoryview) -> None:
        """Fills `out` with a coded window."""
        ...

    def size_of(self, digest: str) -> int: ...

    def dtype_of(self, digest: str) -> str:
        """The codec's element type of a content."""
        ...

    def room_bytes(self) -> int:
        """What a thread that makes windows takes besides these."""
        ...

    def shared_bytes(self, budget_bytes: int) -> int:
        """What making takes however many threads do it."""
        ...

    def most_workers(self, threads: int) -> int:
        """Windows that are worth making at a time on so many processors."""
        ...

    def check_fit(self, residents: Collection[Resident]) -> None:
        """Raises InvalidInputError where tensors come or go, or change their shape."""
        ...

    def check_bytes(self) -> None:
        """Raises DigestMismatchError if what was read can be seen to be damaged before it is used."""
        ...

    def maker(self, files: OpenFiles, places: MutableMapping[str, Held], threads: int) -> Maker: ...

    def find(self, missing: Collection[str], threads: int) -> Mapping[str, Held]:
        """Where contents are that new ones are made of and that memory does not have, as far as need be."""
        ...

    def kinds(self) -> Mapping[str, tuple[Kind, Kind]]:
        """What tensors are before and after, as far as both have them."""
        ...

    def source_places(self) -> dict[str, Held]:
        """Contents of the copy on disk. Nobody has looked at their bytes yet.

        Raises InvalidInputError if there is none and one is needed.
        """
        ...


def tensors_of(files: Iterable[FileEntry]) -> dict[str, str]:
    """Digests of a model's tensors by name. Raises InvalidInputError for a name in two files with two contents."""
    found: dict[str, str] = {}
    for entry in files:
        for name, digest in zip(entry.names, entry.parts[1:], strict=entry.kind == "safetensors"):
            if found.setdefault(name, digest) != digest:
                raise InvalidInputError(
                    f"two files of the model have a tensor {name!r} each, and they differ",
                    hint="Swap in a model in which every name stands for one tensor.",
                )
    return found


def some(names: Iterable[str]) -> str:
    """The first few of many names, for errors."""
    listed = list(names)
    return ", ".join(map(repr, listed[:5])) + (f" and {len(listed) - 5} more" if len(listed) > 5 else "")


class PatchUpdate:
    """A patch file. `source` is a copy of the old model on disk, where one is needed and at hand."""

    fetched_bytes = 0

    def __init__(self, file: PatchFile, source: str | os.PathLike[str] | None) -> None:
        self._file = file
        self._patch = file.patch
        self._source = source
        self.old: Mapping[str, str] = tensors_of(file.patch.source.files)
        self.new: Mapping[str, str] = tensors_of(file.patch.target.files)

    @property
    def label(self) -> str:
        return f"{self._patch.source.label}, which the patch starts from"

    @property
    def source_version(self) -> str | None:
        return self._patch.source.version

    @property
    def target_version(self) -> str | None:
        return self._patch.target.version

    @property
    def target_digest(self) -> str:
        return self._patch.target.digest

    @property
    def window_bytes(self) -> int:
        return self._patch.window_bytes

    @property
    def contents(self) -> Mapping[str, Coded]:
        return self._patch.contents

    @property
    def coded(self) -> CodedContents:
        return self._file

    def prefetch(self, windows: Iterable[tuple[str, int]]) -> None:
        """A local file is as quick piece by piece."""

    def read_window(self, files: OpenFiles, digest: str, window: int, out: memoryview) -> None:
        self._file.read_payload(files, out, self._patch.contents[digest].extents[window][0])

    def size_of(self, digest: str) -> int:
        return self._patch.size_of(digest)

    def dtype_of(self, digest: str) -> str:
        found = self._patch.held.get(digest) or self._patch.contents[digest]
        return found.dtype

    def room_bytes(self) -> int:
        return room_bytes(self._patch.contents)

    def shared_bytes(self, budget_bytes: int) -> int:
        return 0

    def most_workers(self, threads: int) -> int:
        return threads

    def check_fit(self, residents: Collection[Resident]) -> None:
        for what, names in (
            ("adds", self.new.keys() - self.old.keys()),
            ("removes", self.old.keys() - self.new.keys()),
        ):
            if names:
                raise InvalidInputError(
                    f"the patch {what} tensors, which needs another model in memory: {some(sorted(names))}",
                    hint=_LOAD_ANEW,
                )
        self._check_shapes()

    def check_bytes(self) -> None:
        with OpenFiles() as files:
            self._file.check_payload(files)

    def maker(self, files: OpenFiles, places: MutableMapping[str, Held], threads: int) -> Maker:
        return Maker(self._file, files, places, threads=threads)

    def find(self, missing: Collection[str], threads: int) -> Mapping[str, Held]:
        if not missing:
            return {}
        if self._source is None:
            raise InvalidInputError(
                f"new tensors are made of {len(missing)} old ones that are not in memory",
                hint="Pass source=, the directory or file of the model that is loaded.",
            )
        held = check_source(self._patch, self._source, threads=threads)
        return {name: held[name] for name in missing}

    def kinds(self) -> Mapping[str, tuple[Kind, Kind]]:
        source = self._need_source()
        places = file_places(self._patch.source, source)
        old = {
            tensor.name: (tensor.dtype, tuple(tensor.shape))
            for entry in self._patch.source.files
            if entry.kind == "safetensors"
            for tensor in SafetensorsFile.open(places[entry.path]).tensors
        }
        with self._file.open(source, check=False) as view:
            return {name: (old[name], view.kind(name)) for name in view.names if name in old}

    def source_places(self) -> dict[str, Held]:
        return held_places(self._patch, self._need_source())

    def _need_source(self) -> str | os.PathLike[str]:
        if self._source is None:
            raise InvalidInputError(
                "memory has slices of tensors only: the rest of these must come from a copy of the old model",
                hint="Pass source=, the directory or file of the model that is loaded.",
            )
        return self._source

    def _check_shapes(self) -> None:
        """Only headers tell, and where those of both ends are the same bytes there is nothing to look at."""
        headers = {
            entry.path: entry.parts[0] for entry in self._patch.source.files if entry.kind == "safetensors"
        }
        changed = [
            entry.path
            for entry in self._patch.target.files
            if entry.kind == "safetensors" and headers.get(entry.path) != entry.parts[0]
        ]
        if not changed:
            return
        if self._source is None:
            raise InvalidInputError(
                f"the patch changes the header of {changed[0]!r}: only a copy of the old model shows whether shapes"
                " stay",
                hint="Pass source=, the directory or file of the model that is loaded.",
            )
        with self._file.open(self._source, check=False) as view:
            kinds = {name: view.kind(name) for name in view.names}
        places = file_places(self._patch.source, self._source)
        for path in headers:
            for tensor in SafetensorsFile.open(places[path]).tensors:
                kind = kinds.get(tensor.name)
                if kind is not None and kind != (tensor.dtype, tensor.shape):
                    raise InvalidInputError(
                        f"the patch makes tensor {tensor.name!r} of {path!r} {kind[0]} {list(kind[1])}; it is"
                        f" {tensor.dtype} {list(tensor.shape)}",
                        hint=_LOAD_ANEW,
                    )


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
