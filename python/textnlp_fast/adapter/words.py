"""Texts that a description may hold, and how one is refused."""

from __future__ import annotations

import math
import re
import reprlib
from typing import Final, NoReturn, get_args

from textnlp_fast.errors import InvalidInputError

__all__ = [
    "SUBDOMAIN",
    "check_address",
    "check_choice",
    "check_image",
    "check_number",
    "check_text",
    "check_texts",
    "check_whole",
    "label_value",
    "matches",
    "refuse",
    "shown",
]

#: What Kubernetes calls most of its objects by.
SUBDOMAIN: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*", re.ASCII)
_ADDRESS: Final = re.compile(
    r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?):([0-9]{1,5})", re.ASCII
)

_IMAGE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,511}", re.ASCII)
_LABEL_VALUE: Final = re.compile(r"([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?", re.ASCII)


def refuse(where: str, message: str, *, hint: str | None = None) -> NoReturn:
    """Raises InvalidInputError that says where in the description."""
    raise InvalidInputError(f"{where}: {message}", hint=hint)


class _Shown(reprlib.Repr):
    """Looks at the beginning of a value only, and prints no number that Python would refuse to print."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 4
        self.maxstring = self.maxother = self.maxlong = 60

    def repr_int(self, x: int, level: int) -> str:
        if x.bit_length() > 256:
            return f"a number of {x.bit_length()} bits"
        return super().repr_int(x, level)

    def repr_bytes(self, x: bytes, level: int) -> str:
        return self.repr_instance(x[: self.maxother], level)


_SHOWN: Final = _Shown()


def shown(value: object) -> str:
    """A value in at most 80 characters for a message, whatever it is and however large."""
    text = _SHOWN.repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def check_text(where: str, text: object, *, most: int, empty: bool = False, lines: bool = False) -> None:
    """Raises InvalidInputError unless it is a text without control characters; with `lines` it may have line ends
    and tabs.

    Unpaired surrogates, which no file can hold, are refused as well.
    """
    if not isinstance(text, str):
        refuse(where, f"must be a text, not {shown(text)}", hint="Put it in quotes.")
    if len(text) > most or (not text.strip() and not empty):
        refuse(where, f"must have from 1 to {most} characters")
    for one in text:
        code = ord(one)
        if (code < 32 and not (lines and one in "\t\n")) or 127 <= code < 160 or 0xD800 <= code < 0xE000:
            refuse(where, f"has a character that texts here may not have: {one!r}")
        if code in (0x2028, 0x2029, 0xFEFF, 0xFFFE, 0xFFFF):
            refuse(where, f"has a character that texts here may not have: {one!r}")


def check_texts(where: str, texts: object) -> None:
    """Raises InvalidInputError unless it is a tuple of texts."""
    if not isinstance(texts, tuple):
        refuse(where, f"must be a tuple of texts, not {shown(texts)}")
    if len(texts) > 1024:
        refuse(where, "has more than 1024 words")
    for number, one in enumerate(texts, 1):
        check_text(f"{where}, word {number}", one, most=32 * 1024, empty=True, lines=True)


def label_value(text: str) -> bool:
    """Whether the text may be a label's value, as Kubernetes has them; "" may."""
    return _LABEL_VALUE.fullmatch(text) is not None


def matches(pattern: re.Pattern[str], text: object, *, most: int) -> bool:
    """Whether it is a text of at most so many characters that the pattern matches whole."""
    return isinstance(text, str) and len(text) <= most and pattern.fullmatch(text) is not None


def check_address(where: str, text: object) -> None:
    """Raises InvalidInputError unless it is `HOST:PORT`, `[ADDRESS]:PORT` for IPv6."""
    found = _ADDRESS.fullmatch(text) if isinstance(text, str) and len(text) <= 300 else None
    if found is None or not 0 < int(found[3]) < 65536:
        refuse(where, f"must be HOST:PORT, not {shown(text)}")


def check_image(where: str, text: object) -> None:
    """Raises InvalidInputError unless it is a name of a container image."""
    if not matches(_IMAGE, text, most=512):
        refuse(where, f"is no image's name: {shown(text)}")


def check_choice(where: str, value: object, kinds: object) -> None:
    """Raises InvalidInputError unless the value is among those of a Literal."""
    if value not in get_args(kinds):
        refuse(where, f"must be one of {', '.join(get_args(kinds))}, not {shown(value)}")


def check_whole(where: str, value: object, *, least: int, most: int) -> None:
    """Raises InvalidInputError unless the value is a whole number within the bounds."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        refuse(where, f"must be a whole number from {least} to {most}, not {shown(value)}")


def check_number(
    where: str, value: object, *, most: float, least: float = 0.0, above: float = -math.inf
) -> None:
    """Raises InvalidInputError unless the value is a number within the bounds; NaN is none."""
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not least <= value <= most
        or value <= above
    ):
        bound = f"above {above:g}" if above > -math.inf else f"at least {least:g}"
        refuse(where, f"must be a number {bound} and at most {most:g}, not {shown(value)}")
