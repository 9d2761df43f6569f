"""Load: tensors of a version, or of safetensors files, straight into the memory where they are used.

`docs/guide/load.md` shows it. Nothing is handed over before all of it is there and, where it comes from a repository,
has been verified; what was allocated goes back if anything fails.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from textnlp_fast.contents.windows import Progress, ProgressCallback
from textnlp_fast.contents.working import DEFAULT_MEMORY_BYTES, thread_count
from textnlp_fast.errors import InvalidInputError
from textnlp_fast.loading.cache import LoadCache
from textnlp_fast.loading.choosing import Choice, Names, Slices
from textnlp_fast.loading.files import read_tensors
from textnlp_fast.loading.places import Place, check_framework, device_number, given_place, make_place
from textnlp_fast.loading.ring import Deadline, StagingRing
from textnlp_fast.loading.versions import load_stored
from textnlp_fast.storage.config import TransferOptions
from textnlp_fast.storage.repository import Repository
from textnlp_fast.storage.version_manager import parse_reference
from textnlp_fast.telemetry import operation
from textnlp_fast.tensors import ModelFiles, TensorInfo

__all__ = ["load"]

_REPOSITORY_VARIABLE: Final = "TEXTNLP_FAST_REPO"
_SLOT_BYTES: Final = 8 << 20
_LEAST_BUDGET_BYTES: Final = 72 << 20
# Of which the ring takes a part, the rest is for coded windows and what they decode to.
_RING_SHARE: Final = 4
_SHARD_BYTES: Final = 1 << 16


def load(
    source: str | os.PathLike[str],
    version: str | None = None,
    *,
    repository: str | os.PathLike[str] | Repository | None = None,
    device: str = "cpu",
    names: Names | None = None,
    files: Sequence[str] | None = None,
    slices: Slices | None = None,
    check_slices: bool = True,
    framework: str | None = None,
    into: Mapping[str, Any] | None = None,
    cache: LoadCache | str | os.PathLike[str] | None = None,
    threads: int = 0,
    memory_budget_bytes: int = DEFAULT_MEMORY_BYTES,
    progress: ProgressCallback | None = None,
    cancelled: threading.Event | None = None,
    timeout_s: float | None = None,
) -> dict[str, Any]:
    """Tensors by name, in the memory of ``device``: "cpu", "cuda", "cuda:1", or "auto" (a device if there is one).

    ``source`` is a model's name in ``repository`` (a path, a URL, an open one; by default what TEXTNLP_FAST_REPO says),
    with its ``version`` (None: the latest; "name@1.2.0" works too); every tensor is verified by its digest. Or it is a
    safetensors file, or a directory of them, of which the headers are checked.

    ``names`` are names or patterns ("layers.0.*") of the tensors wanted, or a function that says which; ``files`` are
    patterns of the files to look in. ``slices`` says by name or pattern which part of a tensor is wanted, as a
    ``Slice`` or (dim, rank, degree); a slice has the memory of a slice. From a repository all of its tensor is read,
    to verify it; with ``check_slices=False`` only the frames that hold it, and then nothing proves its bytes.

    On the CPU the tensors are numpy arrays (bf16 and fp8 as ml_dtypes has them), on a device ``DeviceArray``, which
    other frameworks take by DLPack; with ``framework="torch"`` they are torch's. ``into`` are arrays to fill instead,
    by name: numpy arrays, torch tensors, CuPy arrays; those that it names, and no others, are loaded.

    ``cache`` is a folder on the local disk that keeps what was decoded, or a ``LoadCache``. Memory besides the tensors
    stays within ``memory_budget_bytes``.

    Raises InvalidInputError and its kinds for a wrong call or file, CorruptDataError and its kinds if bytes are not
    what was pushed, StorageUnavailableError, DeviceError, MissingPackageError, LoadCancelledError once ``cancelled`` is
    set, LoadTimeoutError after ``timeout_s``. Nothing is handed over then; arrays of ``into`` hold nothing of use.
    """
    if memory_budget_bytes < _LEAST_BUDGET_BYTES:
        raise InvalidInputError(
            f"memory_budget_bytes is {memory_budget_bytes}; a load takes {_LEAST_BUDGET_BYTES} at least"
        )
    run = _Run(
        Choice(names, files, slices, into),
        device_number(device),
        framework,
        memory_budget_bytes=memory_budget_bytes,
        threads=thread_count(threads),
        deadline=Deadline(timeout_s, cancelled),
        progress=progress,
    )
    place = _repository_of(source, version, repository)
    model = None if place is None else os.fspath(source)
    url = place.url if isinstance(place, Repository) else None if place is None else os.fspath(place)
    try:
        with operation("load", model=model, version=version, repository=url):
            if place is None:
                run.from_files(source)
            else:
                kept = cache if isinstance(cache, LoadCache) or cache is None else LoadCache(cache)
                run.from_repository(place, os.fspath(source), version, check_slices, kept)
            return run.results()
    finally:
        run.ring.close()


class _Run:
    """One load: what its steps share."""

    def __init__(
        self,
        choice: Choice,
        device: int | None,
        framework: str | None,
        *,
        memory_budget_bytes: int,
        threads: int,
        deadline: Deadline,
        progress: ProgressCallback | None,
    ) -> None:
        self._choice = choice
        self._device = device
        self._framework = framework
        self._threads = threads
        self._deadline = deadline
        self._progress = progress
        self._places: dict[int, Place] = {}
        self._total_bytes = 0
        self._done_bytes = 0
        ring_bytes = memory_budget_bytes // _RING_SHARE
        self._options = TransferOptions(
            shard_bytes=_SHARD_BYTES, memory_budget_bytes=memory_budget_bytes - ring_bytes, threads=threads
        )
        self.ring = StagingRing.within(ring_bytes, _SLOT_BYTES, device=device)

    def from_files(self, path: str | os.PathLike[str]) -> None:
        """Reads the tensors of a safetensors file or a directory of them."""
        found = [(file, info) for file in ModelFiles.scan(path).safetensors for info in file.tensors]
        self._make_places([(file.name, info) for file, info in found])
        wanted = [(*found[index], place) for index, place in self._places.items()]
        read_tensors(wanted, self.ring, threads=self._threads, deadline=self._deadline, done=self._done)

    def from_repository(
        self,
        place: str | os.PathLike[str] | Repository,
        name: str,
        version: str | None,
        check_slices: bool,
        cache: LoadCache | None,
    ) -> None:
        """Makes the tensors of a version."""
        reference = parse_reference(name)
        if version is not None and reference.version not in (None, version):
            raise InvalidInputError(f"{name!r} is not version {version}", hint="Name the version once.")
        opened = place if isinstance(place, Repository) else Repository.open(place, options=self._options)
        self._deadline.check()
        stored = opened.tensors(reference.name, version or reference.version).with_options(self._options)
        tensors = stored.read()
        self._make_places([(tensor.file, tensor.info) for tensor in tensors])
        load_stored(
            stored,
            [(tensors[index].digest, place) for index, place in self._places.items()],
            self.ring,
            check_slices=check_slices,
            cache=cache,
            deadline=self._deadline,
            done=self._done,
        )

    def results(self) -> dict[str, Any]:
        """What the caller gets, once everything is in its place."""
        self.ring.wait()
        self._deadline.check()
        return {place.wanted.name: place.result for place in self._places.values()}

    def _make_places(self, tensors: Sequence[tuple[str, TensorInfo]]) -> None:
        wanted = self._choice.of(tensors)
        into = self._choice.into
        dtypes = {} if into is not None else {each.name: each.dtype for each in wanted.values()}
        check_framework(self._framework, self._device, dtypes)
        for index, each in wanted.items():
            self._deadline.check()
            self._places[index] = (
                make_place(each, self._device, self._framework, self.ring.stream)
                if into is None
                else given_place(each, into[each.name], self._device)
            )
        self._total_bytes = sum(each.size for each in wanted.values())

    def _done(self, size: int) -> None:
        """Counts bytes of tensors; what is read along or again does not make it more than all."""
        self._done_bytes = min(self._total_bytes, self._done_bytes + size)
        if self._progress is not None:
            self._progress(Progress("load", self._done_bytes, self._total_bytes))


def _repository_of(
    source: str | os.PathLike[str],
    version: str | None,
    repository: str | os.PathLike[str] | Repository | None,
) -> str | os.PathLike[str] | Repository | None:
    """The repository that ``source`` is a model of; None if it is a file or a directory."""
    if repository is not None:
        return repository
    variable = os.environ.get(_REPOSITORY_VARIABLE)
    named = version is not None or (isinstance(source, str) and "@" in source)
    if Path(source).exists() and version is None:
        return None
    if variable:
        return variable
    if named:
        raise InvalidInputError(
            f"{os.fspath(source)!r} is a version in a repository, and it is not said which one",
            hint=f"Pass repository=, or set {_REPOSITORY_VARIABLE}.",
        )
    return None
