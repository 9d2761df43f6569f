"""From a repository into the hub's local cache: a version becomes a snapshot that Hugging Face's tools find."""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import Final

from textnlp_fast.contents.documents import parse_document, seal_document
from textnlp_fast.contents.entries import RESERVED_PREFIX
from textnlp_fast.contents.staging import disk_errors, staging_folder, sync_folder
from textnlp_fast.contents.windows import ProgressCallback
from textnlp_fast.destinations import file_destination
from textnlp_fast.errors import ConflictError, CorruptDataError
from textnlp_fast.storage.hub.cache import COMMIT, HubModel, blob_name, check_blob, hub_model
from textnlp_fast.storage.hub.importing import COMMIT_KEY, REPO_KEY
from textnlp_fast.storage.manifest import Manifest
from textnlp_fast.storage.repository import Repository
from textnlp_fast.telemetry import operation

__all__ = ["ExportReport", "export_snapshot"]

_OURS: Final = f"{RESERVED_PREFIX}-export.json"
_MOST_NOTED: Final = 100


@dataclass(frozen=True, slots=True)
class ExportReport:
    """Where a version is now: `path` is the snapshot, which `revision` and `commit` name."""

    repo_id: str
    commit: str
    revision: str
    path: str
    files: int
    new_blobs: int


def export_snapshot(
    repository: Repository,
    name: str,
    version: str | None,
    repo_id: str,
    *,
    revision: str = "main",
    cache_dir: str | os.PathLike[str] | None = None,
    progress: ProgressCallback | None = None,
) -> ExportReport:
    """Writes a version (None: the latest) into the cache as the model `repo_id`, and points `revision` to it.

    Then `from_pretrained(repo_id, local_files_only=True)` finds it. Files that the cache has are not written again. A
    version that came from the hub has its commit there; another one gets a commit that follows from its files.

    Raises ConflictError, and changes nothing, if `revision` leads to a commit that was not exported here, or the
    commit's snapshot has other files.
    """
    model = hub_model(repo_id, cache_dir)
    manifest = repository.trusted_manifest(name, version)
    with (
        operation("export-hub", model=manifest.model, version=manifest.version, repository=repository.url),
        disk_errors(model.folder),
    ):
        model.folder.mkdir(parents=True, exist_ok=True)
        with staging_folder(model.folder) as staging:
            ours = _refs_of_ours(model)
            _check_ref(model, revision, ours)
            files = staging / "files"
            repository.pull(manifest.model, manifest.version, files, progress=progress)
            blobs = {entry.path: blob_name(files / entry.path, entry.path) for entry in manifest.files}
            commit = _commit_of(manifest, repo_id, blobs)
            _check_snapshot(model, commit, blobs)
            new_blobs = _move_blobs(model, files, blobs)
            _link(model, commit, blobs)
            # The note first: killed in between, the next export still knows the ref for one of ours.
            _note(model, {**ours, revision: [*ours.get(revision, [])[-_MOST_NOTED:], commit]})
            _write(model.ref(revision), commit.encode())
    return ExportReport(repo_id, commit, revision, str(model.snapshot(commit)), len(blobs), new_blobs)


def _commit_of(manifest: Manifest, repo_id: str, blobs: dict[str, str]) -> str:
    known = manifest.metadata.get(COMMIT_KEY, "")
    if manifest.metadata.get(REPO_KEY) == repo_id and COMMIT.fullmatch(known):
        return known
    text = "".join(f"{blob} {path}\n" for path, blob in sorted(blobs.items()))
    return hashlib.sha1(f"textnlp-fast snapshot\n{text}".encode(), usedforsecurity=False).hexdigest()


def _refs_of_ours(model: HubModel) -> dict[str, list[str]]:
    """The commits that exports gave to refs, the last one last."""
    try:
        document = parse_document((model.folder / _OURS).read_bytes(), str(model.folder / _OURS))
    except FileNotFoundError:
        return {}
    refs = document.get("refs")
    if not isinstance(refs, dict) or not all(isinstance(each, list) for each in refs.values()):
        raise CorruptDataError(f"{model.folder / _OURS} is not a record of exports")
    return refs


def _check_ref(model: HubModel, revision: str, ours: dict[str, list[str]]) -> None:
    path = model.ref(revision)
    if not path.exists():
        return
    there = model.commit_of(revision)
    if there not in ours.get(revision, []):
        raise ConflictError(
            f"{revision!r} of {model.repo_id} leads to commit {there}, which was not exported here",
            hint="Choose another revision (--revision exported), or another name for the model.",
        )


def _check_snapshot(model: HubModel, commit: str, blobs: dict[str, str]) -> None:
    """Raises ConflictError if the snapshot is there with another file; one that lacks files gets them."""
    snapshot = model.snapshot(commit)
    for path in snapshot.rglob("*") if snapshot.is_dir() else ():
        name = path.relative_to(snapshot).as_posix()
        if path.is_dir() and not path.is_symlink():
            continue
        if name in blobs and path.resolve().name != blobs[name]:
            raise ConflictError(
                f"{path} is another file than the version's",
                hint="Remove that snapshot from the cache first.",
            )


def _move_blobs(model: HubModel, files: Path, blobs: dict[str, str]) -> int:
    folder = model.folder / "blobs"
    folder.mkdir(exist_ok=True)
    new = 0
    for path, blob in blobs.items():
        target = folder / blob
        if target.exists():
            check_blob(target, blob)
        elif (files / path).exists():
            (files / path).rename(target)
            new += 1
    sync_folder(folder)
    return new


def _link(model: HubModel, commit: str, blobs: dict[str, str]) -> None:
    """Makes the snapshot's links; a new one appears at once."""
    final = model.snapshot(commit)
    final.parent.mkdir(exist_ok=True)
    whole = not final.exists()
    folder = final.with_name(f".{commit}-{token_hex(4)}") if whole else final
    try:
        for path, blob in sorted(blobs.items()):
            link = folder / path
            link.parent.mkdir(parents=True, exist_ok=True)
            if not link.exists():
                link.unlink(missing_ok=True)
                link.symlink_to(Path(*[".."] * (2 + path.count("/")), "blobs", blob))
        if whole:
            folder.rename(final)
    finally:
        if whole:
            shutil.rmtree(folder, ignore_errors=True)
    sync_folder(final.parent)


def _note(model: HubModel, refs: dict[str, list[str]]) -> None:
    _write(model.folder / _OURS, seal_document({"format": 1, "refs": refs}))


def _write(path: Path, data: bytes) -> None:
    """Replaces a file in one step."""
    path = file_destination(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    written = path.with_name(f".{path.name}-{token_hex(4)}")
    with written.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    written.replace(path)
    sync_folder(path.parent)
