"""The YAML at the head of a README, as plain values: nothing in it is ever made into an object, and nothing multiplies.

All values are text: `3` is "3" and `no` is "no". Anchors, aliases and tags are refused; a card has no use for them, and
an alias of an alias of an alias is how a few lines become gigabytes.
"""

from __future__ import annotations

import re
from typing import Any, Final

from textnlp_fast.errors import InvalidInputError

__all__ = ["Value", "split_front_matter"]

Value = str | list["Value"] | dict[str, "Value"]

_MAX_HEAD_CHARS: Final = 1 << 20
_DEEPEST: Final = 32
_FENCE = re.compile(r"---[ \t]*(?:\r\n|\r|\n)")
_END = re.compile(r"^(?:---|\.\.\.)[ \t]*(?:\r\n|\r|\n|\Z)", re.MULTILINE)


def split_front_matter(text: str) -> tuple[dict[str, Value], str]:
    """What is between the `---` lines at the head, as values, and the text below.

    No head gives none. Raises InvalidInputError with the line that cannot be read.
    """
    text = text.removeprefix("\ufeff")
    begin = _FENCE.match(text)
    if begin is None:
        return {}, text
    end = _END.search(text, begin.end())
    if end is None:
        raise InvalidInputError("the front matter does not end", hint="Close it with a line of ---.")
    head = text[begin.end() : end.start()]
    if len(head) > _MAX_HEAD_CHARS:
        raise InvalidInputError(
            f"the front matter has {len(head)} characters; at most {_MAX_HEAD_CHARS} are read"
        )
    return _mapping(head), text[end.end() :].lstrip("\r\n")


def _mapping(head: str) -> dict[str, Value]:
    import yaml  # noqa: PLC0415 - most who use a registry never look at a card

    loader = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
    try:
        value = _Builder(yaml).value_of(yaml.parse(head, Loader=loader))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        what = getattr(error, "problem", None) or "it is not YAML"
        raise _wrong(what, mark) from None
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _wrong("it is not a mapping of keys to values", None)
    return value


def _wrong(what: str, mark: Any) -> InvalidInputError:
    # Lines are counted in the file: its first is the fence.
    where = "" if mark is None else f"line {mark.line + 2} of "
    return InvalidInputError(f"{where}the front matter: {what}")


class _Builder:
    """Makes values of a parser's events with a stack of its own, so that nesting costs no recursion."""

    def __init__(self, yaml: Any) -> None:
        self._yaml = yaml
        self._open: list[list[Value] | dict[str, Value]] = []
        self._keys: list[str | None] = []
        self._value: Value | None = None

    def value_of(self, events: Any) -> Value | None:
        """The value of the only document; None if there is none."""
        yaml, documents = self._yaml, 0
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise _wrong("it is more than one document", event.start_mark)
            elif isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
                raise _wrong("anchors and aliases are not read", event.start_mark)
            elif getattr(event, "tag", None) is not None:
                raise _wrong("tags are not read", event.start_mark)
            elif isinstance(event, yaml.ScalarEvent):
                self._put(event.value, event.start_mark)
            elif isinstance(event, yaml.SequenceStartEvent | yaml.MappingStartEvent):
                self._begin([] if isinstance(event, yaml.SequenceStartEvent) else {}, event.start_mark)
            elif isinstance(event, yaml.SequenceEndEvent | yaml.MappingEndEvent):
                self._open.pop()
                self._keys.pop()
        return self._value

    def _begin(self, value: list[Value] | dict[str, Value], mark: Any) -> None:
        if len(self._open) >= _DEEPEST:
            raise _wrong(f"it is nested more than {_DEEPEST} deep", mark)
        self._put(value, mark)
        self._open.append(value)
        self._keys.append(None)

    def _put(self, value: Value, mark: Any) -> None:
        if not self._open:
            self._value = value
            return
        inside = self._open[-1]
        if isinstance(inside, list):
            inside.append(value)
            return
        key = self._keys[-1]
        if key is not None:
            inside[key] = value
            self._keys[-1] = None
            return
        if not isinstance(value, str):
            raise _wrong("a key is not text", mark)
        if value in inside:
            raise _wrong(f"the key {value!r} is there twice", mark)
        self._keys[-1] = value
