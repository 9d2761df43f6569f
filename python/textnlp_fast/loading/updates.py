"""New weights as a swap sees them, whether a patch file brings them or a version in a repository."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, MutableMapping
from typing import Protocol

from textnlp_fast.contents.entries import FileEntry
from textnlp_fast.contents.inventory import Held
from textnlp_fast.contents.windows import OpenFiles
from textnlp_fast.delta.making import Coded, CodedContents, Maker
from textnlp_fast.errors import InvalidInputError
from textnlp_fast.loading.resident import Resident

__all__ = ["Kind", "Update", "some", "tensors_of"]

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
