"""Folders that may hold so many bytes: what is in them, and what goes when something has to."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

__all__ = ["Entry", "files_below", "oldest_first"]


class Entry(NamedTuple):
    """One thing that is kept: when it was used last, the bytes it takes, and where it is."""

    used_ns: int
    size_bytes: int
    path: str


def files_below(folder: Path, depth: int) -> Iterator[os.DirEntry[str]]:
    """The files that lie `depth` folders down (1: in it), none where there is no such folder."""
    try:
        with os.scandir(folder) as found:
            entries = list(found)
    except FileNotFoundError:
        return
    for entry in entries:
        if depth > 1:
            if entry.is_dir(follow_symlinks=False):
                yield from files_below(Path(entry.path), depth - 1)
        elif entry.is_file(follow_symlinks=False):
            yield entry


def oldest_first(entries: Iterable[Entry], total_bytes: int, until_bytes: float) -> Iterator[Entry]:
    """What to remove, what was used longest ago first, until at most `until_bytes` of `total_bytes` are left."""
    for entry in sorted(entries):
        if total_bytes <= until_bytes:
            return
        yield entry
        total_bytes -= entry.size_bytes
