"""From the hub's local cache into a repository: a snapshot becomes a version."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import semver

from textnlp_fast.contents.inventory import scan_model
from textnlp_fast.contents.windows import ProgressCallback
from textnlp_fast.errors import InvalidInputError, ModelNotFoundError
from textnlp_fast.storage.hub.cache import HubModel, check_blob, hub_model
from textnlp_fast.storage.push import PushReport
from textnlp_fast.storage.repository import Repository
from textnlp_fast.telemetry import operation

__all__ = ["COMMIT_KEY", "REPO_KEY", "ImportReport", "import_snapshot"]

#: In a version's metadata: where it came from.
REPO_KEY: Final = "hub.repo"
COMMIT_KEY: Final = "hub.commit"
_FIRST_VERSION: Final = "1.0.0"


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What became of a snapshot. `checked_files` had a digest for a name, which their bytes were held against."""

    repo_id: str
    commit: str
    model: str
    version: str
    checked_files: int
    unchecked_files: int
    push: PushReport | None
    """None where a version of that commit was there already."""


def import_snapshot(
    repository: Repository,
    repo_id: str,
    *,
    revision: str = "main",
    cache_dir: str | os.PathLike[str] | None = None,
    name: str | None = None,
    version: str | None = None,
    progress: ProgressCallback | None = None,
) -> ImportReport:
    """Publishes what the cache has of a model of the hub, at a branch, tag or commit, as a version of `name`.

    Without a `name` the model is called as on the hub; without a `version` it is 1.0.0, then 1.1.0, and so on, and a
    commit that was imported before is not imported again. Nothing is downloaded. Raises ModelNotFoundError if the
    cache does not have it, CorruptDataError if a file is not what the hub called it, and what a push raises.
    """
    model = hub_model(repo_id, cache_dir)
    commit = model.commit_of(revision)
    if commit is None or not model.snapshot(commit).is_dir():
        raise ModelNotFoundError(
            f"the cache has no {repo_id} at {revision!r}: looked in {model.folder}",
            hint=f"Download it first: hf download {repo_id}. Or say where the cache is (cache_dir, --cache-dir).",
        )
    name = repo_id if name is None else name
    if version is None:
        before = _imported(repository, name, commit)
        if before is not None:
            return ImportReport(repo_id, commit, name, before, 0, 0, None)
        version = _next_version(repository, name)
    with operation("import-hub", model=name, version=version, repository=repository.url):
        checked, unchecked = _check(model, commit, repository.options.thread_count)
        report = repository.push(
            model.snapshot(commit),
            name,
            version,
            message=f"{repo_id} at {commit[:12]}",
            metadata={REPO_KEY: repo_id, COMMIT_KEY: commit},
            progress=progress,
        )
    return ImportReport(repo_id, commit, name, version, checked, unchecked, report)


def _check(model: HubModel, commit: str, threads: int) -> tuple[int, int]:
    """Holds every file against the name of its blob; how many had such a name, and how many had none."""
    found = scan_model(model.snapshot(commit))
    paths: Sequence[Path] = [file.path for file in found.safetensors] + [file.path for file in found.others]
    blobs = model.folder / "blobs"

    def check(path: Path) -> bool:
        target = path.resolve()
        return target.parent == blobs.resolve() and check_blob(target, target.name)

    with ThreadPoolExecutor(threads) as pool:
        results = list(pool.map(check, paths))
    return sum(results), len(results) - sum(results)


def _imported(repository: Repository, name: str, commit: str) -> str | None:
    for version in reversed(repository.models().get(name, [])):
        if repository.manifest(name, version).metadata.get(COMMIT_KEY) == commit:
            return version
    return None


def _next_version(repository: Repository, name: str) -> str:
    versions = repository.models().get(name, [])
    if not versions:
        return _FIRST_VERSION
    last = semver.Version.parse(versions[-1])
    if last.prerelease:
        raise InvalidInputError(
            f"the latest version of {name} is {last}, a pre-release: what comes next cannot be told",
            hint="Give the version.",
        )
    return str(last.bump_minor())
