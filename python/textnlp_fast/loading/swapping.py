"""New weights in the memory of a running process: all of them, or the old ones again.

`docs/guide/swap.md` says what a server does around it.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from textnlp_fast.contents.windows import ProgressCallback
from textnlp_fast.contents.working import DEFAULT_MEMORY_BYTES
from textnlp_fast.delta.patch_file import PatchFile, read_patch
from textnlp_fast.errors import InvalidInputError
from textnlp_fast.loading.exchange import Exchange
from textnlp_fast.loading.patch_update import PatchUpdate
from textnlp_fast.loading.resident import Module, find_residents
from textnlp_fast.loading.sliced import Layout, find_sliced
from textnlp_fast.loading.targets import match
from textnlp_fast.loading.updates import Update
from textnlp_fast.loading.version_update import VersionUpdate
from textnlp_fast.storage.repository import Repository
from textnlp_fast.storage.version_manager import parse_reference
from textnlp_fast.telemetry import operation

__all__ = ["SwapReport", "open_update", "swap"]

DEFAULT_UNDO_BYTES: Final = 256 << 20


@dataclass(frozen=True, slots=True)
class SwapReport:
    """What a swap did. Sizes in bytes."""

    source_version: str | None
    """The version that was in memory, where that was said: by the patch, or by ``from_version``."""
    target_version: str | None
    target_digest: str
    tensors: int
    """Tensors of the model that were checked."""
    changed_tensors: int
    changed_bytes: int
    fetched_bytes: int
    """What was read from the repository, manifests aside; 0 for a patch."""
    undo_bytes: int
    """What the way back took, had it been needed."""
    seconds: float


def swap(
    model: Mapping[str, Any] | Module,
    update: str | os.PathLike[str] | PatchFile,
    *,
    repository: str | os.PathLike[str] | Repository | None = None,
    from_version: str | None = None,
    layout: Layout | None = None,
    partial: bool = False,
    source: str | os.PathLike[str] | None = None,
    memory_budget_bytes: int = DEFAULT_MEMORY_BYTES,
    undo_budget_bytes: int = DEFAULT_UNDO_BYTES,
    threads: int = 0,
    before_commit: Callable[[], None] | None = None,
    cancelled: threading.Event | None = None,
    progress: ProgressCallback | None = None,
) -> SwapReport:
    """Makes the tensors of ``model`` those of ``update``, where they lie.

    ``model`` is a dict by the names that the checkpoint gives them, or a module: torch tensors on the CPU or a CUDA
    device, numpy arrays, or arrays on a CUDA device with DLPack or ``__cuda_array_interface__``; tied weights may
    have several names. Nobody may use the tensors until this returns: `docs/guide/swap.md`.

    ``update`` is a patch file; or, with a ``repository`` (its URL, or a `Repository`), a version there:
    ``NAME@VERSION``, or ``NAME`` for the latest. Of a version only what memory does not have is read. It may follow
    any weights; ``from_version`` says which must be in memory.

    ``layout`` says which tensors in memory are slices of the checkpoint's, or several of these fused: by name in
    memory, the parts whose bytes follow each other there. A rank takes what is its own; the whole tensors pass by,
    the old ones out of ``source`` or the repository, to be checked.

    With ``partial`` the model may hold some of the tensors only. ``source`` is a copy of the old model on disk,
    needed where a patch changes a file's header, or makes tensors of others that are not in ``model``. Up to
    ``undo_budget_bytes`` of the way back are kept in memory, what is more in a temporary file. ``before_commit`` is
    called when all is in place and checked; what it raises is taken as a failure.

    Raises WrongBaseError, before anything is written, if the tensors are not those that the update starts from;
    InvalidInputError if the two do not fit each other; CorruptDataError if the patch or the repository is damaged;
    StorageUnavailableError; DeviceError; SwapCancelledError once ``cancelled`` is set. Whatever is raised, the old
    bytes are in place again, but for NotRestoredError, which names the tensors that are not whole.
    """
    started = time.monotonic()
    if source is not None and repository is not None and not layout:
        raise InvalidInputError(
            "source goes with a patch, or with slices",
            hint="Leave it out: the repository has all that versions are made of.",
        )
    with operation("swap"):
        new = open_update(update, repository, from_version, source, memory_budget_bytes=memory_budget_bytes)
        residents = find_residents(model)
        sliced = find_sliced(new, residents, layout or {})
        parted = {part.tensor for parts in (layout or {}).values() for part in parts}
        whole = [
            resident for resident in residents if not any(resident is target.resident for target in sliced)
        ]
        exchange = Exchange(
            new,
            match(new, whole, partial=partial, elsewhere=parted),
            sliced,
            memory_budget_bytes=memory_budget_bytes,
            undo_budget_bytes=undo_budget_bytes,
            threads=threads,
            cancelled=cancelled or threading.Event(),
            progress=progress,
        )
        undo_bytes = exchange.run(before_commit)
    changed = exchange.changed
    return SwapReport(
        new.source_version,
        new.target_version,
        new.target_digest,
        exchange.tensors,
        len(changed),
        sum(resident.size for resident in changed),
        new.fetched_bytes,
        undo_bytes,
        time.monotonic() - started,
    )


def open_update(
    update: str | os.PathLike[str] | PatchFile,
    repository: str | os.PathLike[str] | Repository | None = None,
    from_version: str | None = None,
    source: str | os.PathLike[str] | None = None,
    *,
    memory_budget_bytes: int = DEFAULT_MEMORY_BYTES,
) -> Update:
    """What :func:`swap` is asked to put into memory. Raises InvalidInputError if the arguments do not go together."""
    if repository is None:
        if from_version is not None:
            raise InvalidInputError(
                "from_version goes with a repository", hint="A patch says itself what it starts from."
            )
        if isinstance(update, str) and "@" in update and not os.path.exists(update):  # noqa: PTH110  (no path perhaps)
            raise InvalidInputError(
                f"there is no patch {update!r}", hint="A version needs repository=, its path or URL."
            )
        return PatchUpdate(update if isinstance(update, PatchFile) else read_patch(update), source)
    if not isinstance(update, str):
        raise InvalidInputError(
            f"a version in a repository is named by a string, not {type(update).__name__}",
            hint="Write NAME@VERSION, or leave repository= out for a patch.",
        )
    place = repository if isinstance(repository, Repository) else Repository.open(repository)
    wanted = parse_reference(update)
    manifest = place.trusted_manifest(wanted.name, wanted.version)
    old = None
    if from_version is not None:
        first = parse_reference(from_version if "@" in from_version else f"{wanted.name}@{from_version}")
        old = place.manifest(first.name, first.version)
    return VersionUpdate(place, manifest, old, source, memory_budget_bytes=memory_budget_bytes)
