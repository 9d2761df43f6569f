"""The last step of a push: say in the audit log what is about to appear, then let it appear."""

from __future__ import annotations

from collections.abc import Callable

from textnlp_fast.hashing import blake3_hex
from textnlp_fast.objectstore import ObjectStore
from textnlp_fast.objectstore.backend import Version
from textnlp_fast.storage.audit import AuditPolicy, audited, record
from textnlp_fast.storage.manifest import Manifest
from textnlp_fast.storage.version_manager import VersionManager

__all__ = ["PUSH", "publish_version", "record_repair"]

PUSH = "push"


def publish_version(
    store: ObjectStore,
    versions: VersionManager,
    manifest: Manifest,
    data: bytes,
    state: Version | None,
    *,
    action: str,
    policy: AuditPolicy | None,
    ready: Callable[[], None],
) -> None:
    """Writes the manifest's object, of the bytes `data`, where its key is in `state`.

    Raises what `VersionManager.publish` does.

    The record comes first and carries the manifest's digest: whether the version is there, and is that one, shows how
    it ended, so that no second record is needed and nothing killed in between goes unrecorded. `ready` is called
    between the two: it waits for what else has to come first, and what it raises goes into the log as a failure.
    """
    detail = {
        "bytes": manifest.raw_bytes,
        "files": len(manifest.files),
        "manifest": blake3_hex(data),
        "parent": "@".join(manifest.parent) if manifest.parent else None,
        "stored_bytes": manifest.stored_bytes,
    }
    with audited(
        store,
        action=action,
        model=manifest.model,
        version=manifest.version,
        detail=detail,
        shows=True,
        policy=policy,
    ):
        ready()
        versions.publish(manifest, state, data)


def record_repair(store: ObjectStore, manifest: Manifest, uploaded_bytes: int) -> None:
    """Records that pushing a version again put back objects that the repository had lost."""
    record(
        store,
        action="push.repair",
        model=manifest.model,
        version=manifest.version,
        detail={"uploaded_bytes": uploaded_bytes},
    )
