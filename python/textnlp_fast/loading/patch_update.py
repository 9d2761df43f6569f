"""A patch file as new weights for a swap."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, MutableMapping
from typing import Final

from textnlp_fast.contents.inventory import Held
from textnlp_fast.contents.windows import OpenFiles
from textnlp_fast.delta.filling import room_bytes
from textnlp_fast.delta.making import Coded, CodedContents, Maker
from textnlp_fast.delta.patch_file import PatchFile
from textnlp_fast.delta.source import check_source, file_places, held_places
from textnlp_fast.errors import InvalidInputError
from textnlp_fast.loading.resident import Resident
from textnlp_fast.loading.updates import Kind, some, tensors_of
from textnlp_fast.tensors import SafetensorsFile

__all__ = ["PatchUpdate"]

_LOAD_ANEW: Final = "Load the new version: `textnlp-fast delta apply`, then the model's own loader."


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
