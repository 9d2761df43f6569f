"""The manifest of a new version, out of what was coded for it and what was there, by however many writers."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from textnlp_fast.contents.entries import FileEntry
from textnlp_fast.storage.manifest import Anchor, Content, Manifest, closure
from textnlp_fast.storage.names import now_utc
from textnlp_fast.storage.packing import ShardObject

if TYPE_CHECKING:
    from textnlp_fast.storage.push import PushRequest

__all__ = ["new_manifest"]


def new_manifest(
    request: PushRequest,
    parent: Manifest | None,
    files: Sequence[FileEntry],
    contents: Mapping[str, Content],
    objects: Mapping[str, int],
    shards: Sequence[ShardObject],
    *,
    window_bytes: int,
    anchor: Anchor | None = None,
) -> Manifest:
    """What is published. `contents` and `objects` (sizes in bytes) may be more than the files need."""
    needed = closure(contents, (digest for entry in files for digest in entry.parts))
    used = {extent.object for content in needed.values() for extent in content.extents}
    return Manifest(
        model=request.name,
        version=request.version,
        parent=(parent.model, parent.version) if parent is not None else None,
        created_at=now_utc(),
        write_id=secrets.token_hex(16),
        window_bytes=window_bytes,
        files=tuple(files),
        contents=needed,
        objects={digest: objects[digest] for digest in used},
        new_objects=frozenset(shard.digest for shard in shards) & used,
        salts={shard.digest: shard.suffix.hex() for shard in shards if shard.suffix and shard.digest in used},
        message=request.message,
        metadata=dict(request.metadata),
        anchor=anchor,
    )
