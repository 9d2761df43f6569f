"""Where records lie, and what names the end of a log."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from textnlp_fast.errors import InvalidInputError

__all__ = ["FOLDER", "LARGEST_SEQUENCE", "SEGMENT", "Head", "record_key", "sequence_of"]

FOLDER: Final = "audit"
SEGMENT: Final = 1000
"""Records in a folder: what finds the head of a log lists one of them."""
LARGEST_SEQUENCE: Final = 10**12 - 1
_KEY = re.compile(rf"{FOLDER}/(\d{{9}})/(\d{{3}})\.json", re.ASCII)
_HEAD = re.compile(r"(\d{1,12}):([0-9a-f]{64})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Head:
    """The last record: its number, and the digest of its bytes. Kept elsewhere, it is an *anchor*."""

    sequence: int
    digest: str

    def __str__(self) -> str:
        return f"{self.sequence}:{self.digest}"

    @classmethod
    def parse(cls, text: str) -> Head:
        """Reads `SEQUENCE:DIGEST`."""
        match = _HEAD.fullmatch(text.strip())
        if match is None:
            raise InvalidInputError(
                f"{text!r} is no anchor",
                hint="Write SEQUENCE:DIGEST, as `textnlp-fast audit head` prints it.",
            )
        return cls(int(match[1]), match[2])


def record_key(sequence: int) -> str:
    """Key of a record."""
    return f"{FOLDER}/{sequence // SEGMENT:09d}/{sequence % SEGMENT:03d}.json"


def sequence_of(key: str) -> int | None:
    """The number of the record at a key; None if it is none of a record."""
    match = _KEY.fullmatch(key)
    return int(match[1]) * SEGMENT + int(match[2]) if match else None
