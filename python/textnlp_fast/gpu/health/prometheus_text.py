"""The Prometheus text format, as far as it is needed to read exporters: samples with labels. Lines may be hostile.

The format: https://prometheus.io/docs/instrumenting/exposition_formats/ (text 0.0.4; OpenMetrics' exemplars are
passed over).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from textnlp_fast.errors import CorruptDataError

__all__ = ["Sample", "samples"]

_MOST_SAMPLES: Final = 200_000
_MOST_LABELS: Final = 64
_MOST_LINE: Final = 65536
_ESCAPES: Final = {"\\": "\\", '"': '"', "n": "\n"}
_SPECIAL: Final = {"+inf": math.inf, "inf": math.inf, "-inf": -math.inf, "nan": math.nan}


@dataclass(frozen=True, slots=True)
class Sample:
    name: str
    labels: Mapping[str, str]
    value: float


def samples(text: str) -> Iterator[Sample]:
    """Each sample of the text. Raises CorruptDataError, with the line, for what is not of the format."""
    count = 0
    for number, raw in enumerate(text.split("\n"), 1):
        line = raw.strip(" \t\r")
        if not line or line.startswith("#"):
            continue
        count += 1
        if count > _MOST_SAMPLES:
            raise CorruptDataError(f"more than {_MOST_SAMPLES} samples")
        try:
            if len(line) > _MOST_LINE:
                raise ValueError("it is too long")
            yield _sample(line)
        except (ValueError, IndexError) as error:
            raise CorruptDataError(f"line {number} is no sample: {error}") from None


def _sample(line: str) -> Sample:
    place = 0
    while place < len(line) and line[place] not in "{ \t":
        place += 1
    name = line[:place]
    if not _is_name(name, ":_"):
        raise ValueError(f"{name[:40]!r} is no name")
    labels: dict[str, str] = {}
    rest = line[place:].lstrip(" \t")
    if rest.startswith("{"):
        labels, rest = _labels(rest)
    words = rest.split()
    if not words:
        raise ValueError("it has no value")
    return Sample(name, labels, _value(words[0]))


def _labels(text: str) -> tuple[dict[str, str], str]:
    labels: dict[str, str] = {}
    place = 1
    while True:
        while text[place] in " \t,":
            place += 1
        if text[place] == "}":
            return labels, text[place + 1 :]
        end = text.index("=", place)
        name = text[place:end].strip(" \t")
        if not _is_name(name, "_"):
            raise ValueError(f"{name[:40]!r} is no label")
        place = end + 1
        while text[place] in " \t":
            place += 1
        if text[place] != '"':
            raise ValueError(f"the value of label {name} is not quoted")
        place += 1
        value: list[str] = []
        while text[place] != '"':
            if text[place] == "\\":
                place += 1
                # What is no escape of the format stands for itself, as Prometheus reads it.
                value.append(_ESCAPES.get(text[place], "\\" + text[place]))
            else:
                value.append(text[place])
            place += 1
        place += 1
        if len(labels) >= _MOST_LABELS:
            raise ValueError(f"more than {_MOST_LABELS} labels")
        if name in labels:
            raise ValueError(f"label {name} comes twice")
        labels[name] = "".join(value)


def _is_name(name: str, others: str) -> bool:
    return (
        bool(name)
        and name.isascii()
        and not name[0].isdecimal()
        and all(c.isalnum() or c in others for c in name)
    )


def _value(word: str) -> float:
    special = _SPECIAL.get(word.lower())
    if special is not None:
        return special
    # Python's own grammar knows underscores and other digits, which the format does not.
    if not word.isascii() or "_" in word or len(word) > 64:
        raise ValueError(f"{word[:40]!r} is no number")
    return float(word)
