"""Journals that a killed process leaves readable: lines of JSON, each behind the CRC-32 of its text.

A line is appended by one write, so that what a kill leaves is whole lines, and what a power cut leaves ends in one that
is seen to be torn. Writing waits for no disk; a journal whose claims need the disk says which boot of the machine
made them (:func:`boot_id`): the page cache outlives processes, and nothing else.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

__all__ = ["append_line", "boot_id", "read_lines"]

_LONGEST_BYTES: Final = 256 << 20


def boot_id() -> str:
    """What changes when this machine starts anew; empty where the system does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def append_line(descriptor: int, line: dict[str, Any]) -> None:
    """Appends a line to a file that was opened with ``O_APPEND``."""
    text = json.dumps(line, sort_keys=True, separators=(",", ":")).encode()
    os.write(descriptor, b"%08x %s\n" % (zlib.crc32(text), text))


def read_lines(descriptor: int) -> Iterator[tuple[dict[str, Any], int]]:
    """The lines up to the first that is torn or foreign, each with the offset behind it."""
    size = os.fstat(descriptor).st_size
    if size > _LONGEST_BYTES:
        return
    end = 0
    for raw in os.pread(descriptor, size, 0).splitlines(keepends=True):
        check, _, text = raw.removesuffix(b"\n").partition(b" ")
        try:
            if not raw.endswith(b"\n") or int(check, 16) != zlib.crc32(text):
                return
            line = json.loads(text)
        except ValueError:
            return
        if not isinstance(line, dict):
            return
        end += len(raw)
        yield line, end
