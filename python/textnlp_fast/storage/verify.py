"""Verify: is everything that manifests promise there, and does it decode to what its digest says."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Literal

from textnlp_fast.contents.entries import content_names
from textnlp_fast.contents.windows import DataError, Progress, ProgressCallback
from textnlp_fast.errors import (
    CorruptDataError,
    MissingObjectError,
    TextnlpFastError,
    UnsupportedFormatError,
    VersionNotFoundError,
)
from textnlp_fast.objectstore import ObjectStore
from textnlp_fast.storage.config import TransferOptions
from textnlp_fast.storage.decoding import Decoder
from textnlp_fast.storage.extents import digest_of_object
from textnlp_fast.storage.manifest import Manifest, closure
from textnlp_fast.storage.planning import PullStep, plan_pull
from textnlp_fast.storage.version_manager import VersionManager
from textnlp_fast.telemetry import adopting

__all__ = ["Problem", "VerifyReport", "verify_repository"]


Kind = Literal["missing", "corrupt", "unsupported"]


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is not as it should be.

    `where` is a version, an object, or a tensor or file of a version.
    """

    kind: Kind
    where: str
    detail: str


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What was checked and found. `unreferenced` objects are left by interrupted pushes and deleted versions."""

    versions: int
    objects: int
    object_bytes: int
    contents: int
    deep: bool
    problems: list[Problem] = field(default_factory=list)
    unreferenced: list[str] = field(default_factory=list)
    unreferenced_bytes: int = 0

    @property
    def ok(self) -> bool:
        return not self.problems

    def raise_if_bad(self) -> None:
        """Raises MissingObjectError or CorruptDataError for the first problem."""
        if self.problems:
            first = self.problems[0]
            kinds: Mapping[str, type[TextnlpFastError]] = {
                "missing": MissingObjectError,
                "unsupported": UnsupportedFormatError,
            }
            kind = kinds.get(first.kind, CorruptDataError)
            raise kind(f"{len(self.problems)} problems; the first: {first.where}: {first.detail}")


def verify_repository(
    store: ObjectStore,
    versions: VersionManager,
    options: TransferOptions,
    *,
    name: str | None = None,
    version: str | None = None,
    deep: bool = True,
    progress: ProgressCallback | None = None,
) -> VerifyReport:
    """Checks one version, all versions of a model, or the whole repository.

    Always: every manifest is valid, every object is there in its full size. `deep`: every object and every
    tensor match their digests. Manifests are read from the repository, past every cache.
    """
    versions.info()
    problems: list[Problem] = []
    manifests = list(_load(versions, _selected(versions, name, version), problems))
    present = {meta.key.rpartition("/")[2]: meta.size for meta in store.list("objects")}
    needed = {digest: size for manifest in manifests for digest, size in manifest.objects.items()}
    users = _users(manifests)
    for digest, size in sorted(needed.items()):
        where = f"object {digest}"
        if digest not in present:
            problems.append(Problem("missing", where, f"needed by {users[digest]}"))
        elif present[digest] != size:
            detail = f"has {present[digest]} bytes instead of {size}; needed by {users[digest]}"
            problems.append(Problem("corrupt", where, detail))
    contents = 0
    if deep:
        whole = {digest: size for digest, size in needed.items() if present.get(digest) == size}
        work = _Deep(store, options, manifests, whole, progress)
        problems += work.hash_objects(users)
        found, contents = work.decode_contents()
        problems += found
    spare = (
        {} if name is not None or problems else {key: present[key] for key in present.keys() - needed.keys()}
    )
    return VerifyReport(
        len(manifests),
        len(needed),
        sum(needed.values()),
        contents,
        deep,
        problems,
        sorted(spare),
        sum(spare.values()),
    )


def _selected(versions: VersionManager, name: str | None, version: str | None) -> list[tuple[str, str]]:
    if name is None:
        return list(versions.every_manifest())
    known = versions.versions(name)
    if version is None:
        return [(name, each) for each in known]
    if version not in known:
        raise VersionNotFoundError(
            f"{name} has no version {version}", hint=f"It has: {', '.join(known[-10:])}."
        )
    return [(name, version)]


def _load(
    versions: VersionManager, selected: Iterable[tuple[str, str]], problems: list[Problem]
) -> Iterable[Manifest]:
    for name, version in selected:
        try:
            manifest, state = versions.state(name, version)
            if manifest is not None:
                yield manifest
            elif state is None:
                problems.append(Problem("missing", f"{name}@{version}", "its manifest is gone"))
        except (CorruptDataError, UnsupportedFormatError) as error:
            problems.append(_problem(f"{name}@{version}", error))


def _problem(where: str, error: DataError) -> Problem:
    kind: Kind = "corrupt"
    if isinstance(error, UnsupportedFormatError):
        kind = "unsupported"
    elif isinstance(error, MissingObjectError):
        kind = "missing"
    return Problem(kind, where, str(error.args[0]))


def _users(manifests: Iterable[Manifest]) -> dict[str, str]:
    """For each object, the versions that need it, in words."""
    found: dict[str, list[str]] = {}
    for manifest in manifests:
        for digest in manifest.objects:
            found.setdefault(digest, []).append(f"{manifest.model}@{manifest.version}")
    return {
        digest: ", ".join(users[:3]) + (", ..." if len(users) > 3 else "") for digest, users in found.items()
    }


class _Deep:
    """Reads everything once as objects and once as contents."""

    def __init__(
        self,
        store: ObjectStore,
        options: TransferOptions,
        manifests: list[Manifest],
        objects: Mapping[str, int],
        progress: ProgressCallback | None,
    ) -> None:
        self._store = store
        self._options = options
        self._objects = objects
        self._progress = progress
        self._steps = [
            (manifest, list(_new_steps(manifests, number))) for number, manifest in enumerate(manifests)
        ]
        decoded = sum(step.content.size for _, steps in self._steps for step in steps)
        self._total = sum(objects.values()) + decoded
        self._done = 0
        self._lock = threading.Lock()

    def hash_objects(self, users: Mapping[str, str]) -> list[Problem]:
        """Problems with the objects themselves."""

        def check(digest: str) -> Problem | None:
            try:
                actual = digest_of_object(self._store, digest, self._objects[digest], self._advance)
            except CorruptDataError as error:
                return Problem("corrupt", f"object {digest}", f"{error.args[0]}; needed by {users[digest]}")
            if actual == digest:
                return None
            return Problem("corrupt", f"object {digest}", f"its bytes changed; needed by {users[digest]}")

        with ThreadPoolExecutor(min(16, 2 * self._options.thread_count), initializer=adopting()) as pool:
            return [problem for problem in pool.map(check, sorted(self._objects)) if problem is not None]

    def decode_contents(self) -> tuple[list[Problem], int]:
        """Problems with tensors and files, and how many contents were checked."""
        problems: list[Problem] = []
        count = 0
        for manifest, steps in self._steps:
            names = content_names(manifest.files)
            decoder = Decoder(self._store, manifest.contents, manifest.window_bytes, self._options, names)
            failures = decoder.run(steps, None, keep_going=True, done=self._advance)
            count += len(steps)
            for error in failures.values():
                problems.append(_problem(f"{manifest.model}@{manifest.version}", error))
        return problems, count

    def _advance(self, size: int) -> None:
        with self._lock:
            self._done = min(self._total, self._done + size)
            if self._progress is not None:
                self._progress(Progress("verify", self._done, self._total))


def _new_steps(manifests: list[Manifest], number: int) -> Iterable[PullStep]:
    """Steps for the contents that no manifest before this one stores in the same way."""
    seen = {_way(manifest, digest) for manifest in manifests[:number] for digest in manifest.wanted()}
    for step in plan_pull(manifests[number], {}).steps:
        if _way(manifests[number], step.content.digest) not in seen:
            yield step


def _way(manifest: Manifest, digest: str) -> tuple[object, ...]:
    """How a manifest stores a content: everything that it is made of."""
    needed = closure(manifest.contents, [digest])
    return tuple((link.digest, link.extents, link.base) for link in needed.values())
