"""What all recipes share: how to ask for a window, and what they are allowed to ask for.

A recipe gives as many bytes as the content that is coded against it, and any window of them alone, in memory bounded
by the window. What it makes is a prediction: a recipe that guesses badly costs bytes in the patch, never correctness.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final

import numpy as np

from textnlp_fast.errors import CorruptDataError, InvalidInputError

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["MAX_SIZE", "WORDS", "Held", "Recipe", "Stretch", "checked_count", "checked_digest", "taken"]

#: ``held(digest, begin, end)`` gives exactly those bytes of a content. The buffer is read before the next call.
Held = Callable[[str, int, int], "Buffer"]

MAX_SIZE: Final = 1 << 52
#: How elements whose values do not matter are moved, by their bytes.
WORDS: Final[dict[int, type[np.unsignedinteger[Any]]]] = {
    1: np.uint8,
    2: np.uint16,
    4: np.uint32,
    8: np.uint64,
}
_DIGEST: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Stretch:
    """Bytes [begin, end) of a content."""

    digest: str
    begin: int
    end: int


class Recipe(ABC):
    """One way to make ``size_bytes`` bytes. Instances never change and can be shared between threads.

    Constructors raise InvalidInputError for values that no reader would take.
    """

    __slots__ = ()

    #: Whether the contents may be larger than :meth:`source_sizes` says.
    takes_parts: ClassVar[bool] = False

    @property
    @abstractmethod
    def size_bytes(self) -> int:
        """Bytes of the base, which are as many as those of the content coded against it."""

    @abstractmethod
    def to_json(self) -> Any:
        """What stands under ``base`` in a manifest or a patch: text, or an object with one key."""

    @abstractmethod
    def source_sizes(self) -> dict[str, int]:
        """The contents that the recipe names, each with the size that it must have.

        Where ``takes_parts`` is true, the size is the least that will do.
        """

    @abstractmethod
    def sources(self, begin: int = 0, end: int | None = None) -> tuple[Stretch, ...]:
        """What :meth:`read` of the window [begin, end) looks at; a stretch may cover more than is looked at.

        Empty stretches are left out, and no two of one content overlap in the tuple's order without need.
        """

    @abstractmethod
    def _fill(self, begin: int, out: memoryview, held: Held) -> None:
        """Write the bytes from ``begin`` on into ``out``, which lies inside the base and is not empty."""

    def read(self, begin: int, end: int, held: Held) -> bytearray:
        """The base's bytes [begin, end).

        Raises InvalidInputError for a window outside the base and CorruptDataError if ``held`` gives too
        little. Errors of ``held`` pass through.
        """
        self._check_window(begin, end)
        out = bytearray(end - begin)
        self.read_into(begin, out, held)
        return out

    def read_into(self, begin: int, out: Buffer, held: Held) -> None:
        """Like :meth:`read`, into a writable buffer of bytes whose length is that of the window."""
        view = memoryview(out)
        if not view.nbytes:
            return self._check_window(begin, begin)
        view = view.cast("B")
        self._check_window(begin, begin + len(view))
        return self._fill(begin, view, held)

    def check_sources(self, sizes: Mapping[str, int]) -> None:
        """Raises CorruptDataError unless every content that the recipe names is in ``sizes`` and fits."""
        for digest, needed in self.source_sizes().items():
            size = sizes.get(digest)
            if size is None:
                raise CorruptDataError(f"a recipe needs content {digest}, which is not located")
            if size < needed or (size > needed and not self.takes_parts):
                raise CorruptDataError(f"a recipe needs {needed} bytes of content {digest}, which has {size}")

    def _check_window(self, begin: int, end: int) -> None:
        if not 0 <= begin <= end <= self.size_bytes:
            raise InvalidInputError(
                f"the window {begin}..{end} is not inside the base's {self.size_bytes} bytes"
            )


def checked_digest(value: object) -> str:
    if not isinstance(value, str) or _DIGEST.fullmatch(value) is None:
        raise InvalidInputError("a recipe names a content by something other than 64 lower-case hex digits")
    return value


def checked_count(value: object, what: str, *, least: int = 1, most: int = MAX_SIZE) -> int:
    if type(value) is not int or not least <= value <= most:
        raise InvalidInputError(f"{what} of a recipe is no integer in {least}..{most}")
    return value


def taken(held: Held, digest: str, begin: int, end: int) -> memoryview:
    """What ``held`` gives, as bytes; refused if it is not what was asked for."""
    view = memoryview(held(digest, begin, end))
    if view.nbytes != end - begin:
        raise CorruptDataError(f"content {digest} gave {view.nbytes} bytes for {begin}..{end}")
    return view.cast("B") if view.nbytes else view
