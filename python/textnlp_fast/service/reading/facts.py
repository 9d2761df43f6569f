"""What lists and graphs need of a manifest: a few numbers and names, so that thousands of versions fit in memory."""

from __future__ import annotations

from dataclasses import dataclass

from textnlp_fast.storage.manifest import Manifest, files_digest

__all__ = ["VersionFacts", "facts_of", "unreadable"]


@dataclass(frozen=True, slots=True)
class VersionFacts:
    """A version as its manifest tells it; `etag` is the manifest's, `files_id` names its files. Sizes in bytes.

    `problem` says why there is no more than a name.
    """

    version: str
    etag: str
    parent: tuple[str, str] | None = None
    base: tuple[str, str] | None = None
    reason: str = ""
    created_at: str | None = None
    author: str | None = None
    note: str = ""
    logical_bytes: int = 0
    stored_bytes: int = 0
    tensors: int = 0
    files: int = 0
    files_id: str = ""
    problem: str | None = None


def facts_of(manifest: Manifest, etag: str) -> VersionFacts:
    """The facts of a manifest."""
    return VersionFacts(
        version=manifest.version,
        etag=etag,
        parent=manifest.parent,
        base=manifest.coded_against,
        reason=manifest.anchor.reason if manifest.anchor is not None else "",
        created_at=manifest.created_at,
        author=manifest.metadata.get("created_by"),
        note=manifest.message,
        logical_bytes=manifest.raw_bytes,
        stored_bytes=manifest.stored_bytes,
        tensors=sum(len(entry.names) for entry in manifest.files),
        files=len(manifest.files),
        files_id=files_digest(manifest.files),
    )


def unreadable(version: str, etag: str, why: str) -> VersionFacts:
    """What is left of a version whose manifest is harmed."""
    return VersionFacts(version=version, etag=etag, problem=why)
