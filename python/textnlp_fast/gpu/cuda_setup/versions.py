"""Version numbers of drivers, toolkits and libraries: dotted numbers, compared number by number."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import total_ordering

__all__ = ["Version", "find_version"]

# Longer than any version that there is; what has more is no version, and int() of endless digits takes long.
_MOST_DIGITS = 9
_MOST_PARTS = 8
_DOTTED = re.compile(rf"\d{{1,{_MOST_DIGITS}}}(?:\.\d{{1,{_MOST_DIGITS}}}){{0,{_MOST_PARTS - 1}}}", re.ASCII)


@total_ordering
@dataclass(frozen=True, eq=False)
class Version:
    """A version by its numbers; `text` is how it was written. 12.4 and 12.4.0 are equal."""

    parts: tuple[int, ...]
    text: str

    @classmethod
    def parse(cls, text: str) -> Version | None:
        """The version that the text is; None if it is none.

        What follows the numbers of a release (`+cu128`, `rc1`, `.post1`, `-1ubuntu2`) is left out.
        """
        text = text.strip()
        match = _DOTTED.match(text)
        if match is None or re.match(r"\.?\d", text[match.end() :], re.ASCII):
            return None
        return cls(tuple(map(int, match.group().split("."))), match.group())

    @classmethod
    def of_number(cls, number: int) -> Version:
        """From CUDA's own: 12040 is 12.4 (1000 x major + 10 x minor)."""
        major, minor = number // 1000, number % 1000 // 10
        return cls((major, minor), f"{major}.{minor}")

    @property
    def major(self) -> int:
        return self.parts[0]

    @property
    def minor(self) -> int:
        return self.parts[1] if len(self.parts) > 1 else 0

    @property
    def short(self) -> str:
        """Major and minor: 12.4."""
        return f"{self.major}.{self.minor}"

    @property
    def _key(self) -> tuple[int, ...]:
        parts = list(self.parts)
        while parts and parts[-1] == 0:
            parts.pop()
        return tuple(parts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Version) and self._key == other._key

    def __lt__(self, other: Version) -> bool:
        return self._key < other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __str__(self) -> str:
        return self.text


def find_version(text: str, *, after: str = "") -> Version | None:
    """The first dotted version in a text, behind the words `after`."""
    start = text.find(after)
    if start < 0:
        return None
    rest = text[start + len(after) :]
    match = re.search(rf"(?<![\d.])\d{{1,{_MOST_DIGITS}}}(?:\.\d{{1,{_MOST_DIGITS}}})+", rest, re.ASCII)
    return None if match is None else Version.parse(match.group())
