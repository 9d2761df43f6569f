"""What messages say of places: nobody outside needs to know where things lie on the service's machine."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from textnlp_fast.objectstore import local_folder

__all__ = ["places_of", "with_places_as", "without_places"]

# What looks like a path of this machine, or a URL of a folder on it.
_PATH: Final = re.compile(
    r"file://[^\s'\",;)]*|(?<![\w./:@-])~?/(?!openapi\.json\b)(?:[^\s/'\",:;()]+/)*[^\s/'\",:;()]+"
)
# A name of a folder goes on with these: /srv/models is not in /srv/models-old, but in "/srv/models.".
_GOES_ON: Final = r"(?![\w@~+=%-]|\.\w)"
_LONGEST_SHOWN: Final = 200


def places_of(repo: str) -> tuple[str, ...]:
    """The texts by which a message may say where a repository is, the longest first."""
    folder = local_folder(repo)
    found: list[Any] = [repo.rstrip("/")]
    if folder is not None:
        found += [folder, Path(folder).absolute(), Path(folder).resolve()]
    texts = {str(each) for each in found}
    # A folder of one short word would be cut out of other words.
    return tuple(sorted((text for text in texts if "/" in text and len(text) > 1), key=len, reverse=True))


def without_places(text: str, hide: Iterable[str], *, typed: Iterable[str] = ()) -> str:
    """A message without paths of this machine; `hide` (see `places_of`) are called the repository.

    What the caller `typed` himself stays as he typed it, even where it is one of those: else he could find out which
    are, by trying. That holds for the very text, not for what lies below it.
    """
    text = _printable(text)
    forms = {_printable(form) for each in typed for form in _shown_forms(each) if form}
    if not forms:
        return _hidden(text, hide)
    words = "|".join(re.escape(form) for form in sorted(forms, key=len, reverse=True))
    parts = re.split(rf"(?<![\w.@~+/-])({words})(?!/){_GOES_ON}", text)
    return "".join(part if number % 2 else _hidden(part, hide) for number, part in enumerate(parts))


def with_places_as(text: str, names: Mapping[str, str]) -> str:
    """A message with other names for places, and for what lies below them."""
    for place in sorted(names, key=len, reverse=True):
        text = _whole(place).sub(lambda _, name=names[place]: name, text)  # type: ignore[misc]
    return text


def _hidden(text: str, hide: Iterable[str]) -> str:
    return _PATH.sub("(a path)", with_places_as(text, dict.fromkeys(hide, "the repository")))


def _whole(place: str) -> re.Pattern[str]:
    """Finds a place, not as a part of other names."""
    before = r"(?<![\w@~+-])(?:file://)?" if place.startswith("/") else r"(?<![\w.@~+/-])(?:\./)?"
    return re.compile(before + re.escape(place) + _GOES_ON)


def _shown_forms(typed: str) -> tuple[str, ...]:
    """As messages show what was typed: plainly or quoted, and cut where it is long."""
    quoted = repr(typed)
    return typed, typed[:_LONGEST_SHOWN], quoted[1:-1], quoted[1:_LONGEST_SHOWN]


def _printable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()  # names of files are not always text
