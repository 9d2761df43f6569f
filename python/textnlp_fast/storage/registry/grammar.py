"""What names in a registry look like. A version begins with a digit and everything else with a letter: no clash."""

from __future__ import annotations

import re
from typing import Final

from textnlp_fast.errors import InvalidInputError

__all__ = [
    "MAX_ACTOR_CHARS",
    "MAX_NOTE_CHARS",
    "check_actor",
    "check_alias",
    "check_note",
    "check_stage",
    "check_tag_key",
    "check_tag_value",
    "check_target",
    "is_alias",
    "is_stage",
]

MAX_NOTE_CHARS: Final = 500
MAX_ACTOR_CHARS: Final = 128
_MAX_TAG_CHARS: Final = 500
_ALIAS = re.compile(r"[a-z][a-z0-9._-]{0,63}", re.ASCII)
_STAGE = re.compile(r"[a-z][a-z0-9-]{0,31}", re.ASCII)
_TAG_KEY = re.compile(r"[A-Za-z][A-Za-z0-9._/-]{0,63}", re.ASCII)
_TARGET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,95}", re.ASCII)
# They mean something already where a version is named.
_RESERVED_ALIASES: Final = frozenset({"latest", "none", "auto"})


def is_alias(text: str) -> bool:
    """Whether an alias may be called so."""
    return _ALIAS.fullmatch(text) is not None and text not in _RESERVED_ALIASES


def is_stage(text: str) -> bool:
    """Whether a stage may be called so."""
    return _STAGE.fullmatch(text) is not None


def check_alias(name: str) -> str:
    """The alias, or InvalidInputError."""
    if name in _RESERVED_ALIASES:
        raise InvalidInputError(f"{name!r} has a meaning of its own and is no alias", hint="Choose another.")
    if not isinstance(name, str) or not is_alias(name):
        raise InvalidInputError(
            f"{name!r} is not an alias",
            hint="Use a lower-case letter, then up to 63 of a-z, 0-9, '.', '_', '-': champion, eu-canary.",
        )
    return name


def check_stage(name: str) -> str:
    """The stage in lower case, or InvalidInputError."""
    stage = name.lower() if isinstance(name, str) else ""
    if not is_stage(stage):
        raise InvalidInputError(
            f"{name!r} is not a stage", hint="Use a letter, then up to 31 letters, digits or '-': production."
        )
    return stage


def check_tag_key(key: str) -> str:
    """The key of a tag, or InvalidInputError."""
    if not isinstance(key, str) or _TAG_KEY.fullmatch(key) is None:
        raise InvalidInputError(
            f"{key!r} is not a tag's key",
            hint="Use a letter, then up to 63 letters, digits, '.', '_', '/' or '-': team, eval/mmlu.",
        )
    return key


def check_tag_value(value: str) -> str:
    """The value of a tag, or InvalidInputError."""
    return _check_text(value, "a tag's value", _MAX_TAG_CHARS)


def check_target(name: str) -> str:
    """The name of what serves a version, or InvalidInputError."""
    if not isinstance(name, str) or _TARGET.fullmatch(name) is None:
        raise InvalidInputError(
            f"{name!r} is not a deployment target",
            hint="Use up to 96 letters, digits, '.', '_', '/' or '-', a letter or digit first: eu/serving-1.",
        )
    return name


def check_actor(name: str) -> str:
    """Who does something, or InvalidInputError."""
    if not name or name != name.strip():
        raise InvalidInputError(
            f"{name!r} does not say who does this", hint="Give a name: alice, ci-release."
        )
    return _check_text(name, "an actor's name", MAX_ACTOR_CHARS)


def check_note(text: str) -> str:
    """A line that a person wrote, or InvalidInputError."""
    return _check_text(text, "a note", MAX_NOTE_CHARS)


def _check_text(text: str, what: str, limit: int) -> str:
    if not isinstance(text, str) or not text.isprintable():
        raise InvalidInputError(f"{what} is printable text, without line breaks")
    if len(text) > limit:
        raise InvalidInputError(f"{what} has {len(text)} characters; at most {limit} are kept")
    return text
