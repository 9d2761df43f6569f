"""Sizes as people write them: 2GB, 500MB, 1GiB."""

from __future__ import annotations

import re
from typing import Final

import click

__all__ = ["size"]

_SIZE = re.compile(r"(?P<number>[0-9]{1,15}(?:\.[0-9]{1,6})?) ?(?P<unit>[kKMGT]i?)?B?", re.ASCII)
_POWERS: Final = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}


def size(text: str) -> int:
    """The number of bytes, for an option's `type`; KB, MB and GB are powers of ten, KiB, MiB and GiB of two."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise click.BadParameter(f"{text!r} is no size: write 2GB, 500MB or 1GiB")
    unit = match["unit"] or ""
    power = (1024 if unit.endswith("i") else 1000) ** _POWERS[unit[:1].upper()]
    number = int(float(match["number"]) * power)
    if number < 1:
        raise click.BadParameter(f"{text!r} is less than a byte")
    return number
