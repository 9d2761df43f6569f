"""A version cut into stretches of its files, and those dealt out to tasks. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from textnlp_fast.errors import InvalidInputError
from textnlp_fast.integrations.ray_shards.tasks import Stretch
from textnlp_fast.storage.manifest import Manifest

__all__ = ["DEFAULT_PART_BYTES", "parts_of"]

DEFAULT_PART_BYTES: Final = 1 << 30


def parts_of(manifest: Manifest, part_bytes: int) -> list[tuple[Stretch, ...]]:
    """Stretches of all files, each byte in one of them, in parts of about `part_bytes` or one content."""
    if part_bytes < 1:
        raise InvalidInputError(f"part_bytes is {part_bytes}; it is 1 at least")
    parts: list[tuple[Stretch, ...]] = []
    gathered: list[Stretch] = []
    size = 0
    for stretch in _stretches(manifest, part_bytes):
        if gathered and size + stretch.size > part_bytes:
            parts.append(tuple(gathered))
            gathered, size = [], 0
        gathered.append(stretch)
        size += stretch.size
    if gathered:
        parts.append(tuple(gathered))
    return parts


def _stretches(manifest: Manifest, part_bytes: int) -> Iterator[Stretch]:
    for entry in manifest.files:
        first = offset = end = 0
        sizes: Sequence[int] = [manifest.contents[digest].size for digest in entry.parts]
        for number, size in enumerate(sizes):
            if end > offset and end + size - offset > part_bytes:
                yield Stretch(entry.path, first, number, offset, end - offset)
                first, offset = number, end
            end += size
        if end > offset:
            yield Stretch(entry.path, first, len(sizes), offset, end - offset)
