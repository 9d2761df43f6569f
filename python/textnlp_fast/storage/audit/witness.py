"""What this machine remembers of a log: the last record that it wrote or saw.

A log whose end was cut off is a log all the same; only who saw the end can tell. The memory also spares a command
looking for the head: it tries the number after the one it knows.
"""

from __future__ import annotations

import json
import os
import secrets
from contextlib import suppress
from pathlib import Path

from textnlp_fast.hashing import blake3_hex
from textnlp_fast.storage.audit.heads import LARGEST_SEQUENCE, Head

__all__ = ["Witness"]

_LIMIT_BYTES = 1 << 12


class Witness:
    """A small file of this machine's own, for one repository at one place: copies of it go on apart."""

    def __init__(self, folder: Path, repository: str, url: str) -> None:
        self._path = folder / repository / f"audit-head-{blake3_hex(url.encode())[:16]}.json"

    def read(self) -> Head | None:
        """The head that was remembered; None if there is none, or the file is not what this writes."""
        try:
            with self._path.open("rb") as file:
                document = json.loads(file.read(_LIMIT_BYTES))
            sequence, digest = document["sequence"], document["digest"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        known = isinstance(sequence, int) and isinstance(digest, str) and 0 <= sequence <= LARGEST_SEQUENCE
        return Head(sequence, digest) if known else None

    def write(self, head: Head) -> None:
        """Remembers a head, unless a later one is remembered already. A disk that refuses loses the memory only."""
        before = self.read()
        if before is not None and before.sequence >= head.sequence:
            return
        with suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            temporary = self._path.with_name(f".{os.getpid()}-{secrets.token_hex(8)}")
            temporary.write_text(json.dumps({"digest": head.digest, "sequence": head.sequence}))
            temporary.replace(self._path)
