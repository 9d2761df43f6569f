"""YAML or JSON that somebody wrote: read strictly, within bounds, and refused with an error that says where."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Final

import yaml

from textnlp_fast.adapter.words import refuse, shown
from textnlp_fast.errors import InvalidInputError

__all__ = ["LIMIT_BYTES", "bytes_in", "document_from", "document_in"]

LIMIT_BYTES: Final = 1 << 20
# No number that means anything here is longer; Python takes seconds for long ones, and some it cannot print.
_MOST_DIGITS: Final = 64


class _Loader(yaml.SafeLoader):  # type: ignore[misc, unused-ignore]  # yaml has no types
    """Refuses what YAML would take silently: a key given twice, and anchors, which can grow without bound."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.MarkedYAMLError(problem="aliases (*name) are not read here", problem_mark=mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.MarkedYAMLError(
                    problem=f"{shown(key)} is no name", problem_mark=key_node.start_mark
                )
            if key in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"{shown(key)} is given twice", problem_mark=key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)

    def construct_yaml_int(self, node: Any) -> Any:
        return super().construct_yaml_int(self._short(node))

    def construct_yaml_float(self, node: Any) -> Any:
        return super().construct_yaml_float(self._short(node))

    def _short(self, node: Any) -> Any:
        if len(str(node.value)) > _MOST_DIGITS:
            raise yaml.MarkedYAMLError(
                problem=f"a number of more than {_MOST_DIGITS} digits", problem_mark=node.start_mark
            )
        return node


# PyYAML looks constructors up by tag and keeps the functions, not their names.
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_yaml_float)


def document_in(path: str | os.PathLike[str]) -> object:
    """What a file of YAML or JSON holds. Raises InvalidInputError, with the file's name, as `document_from` does."""
    return document_from(bytes_in(path), what=str(Path(path)))


def bytes_in(path: str | os.PathLike[str]) -> bytes:
    """The first bytes of a file, one more than may be read. Raises InvalidInputError if it cannot be read."""
    file = Path(path)
    try:
        with file.open("rb") as stream:
            return stream.read(LIMIT_BYTES + 1)
    except OSError as error:
        raise InvalidInputError(f"{file} cannot be read: {error.strerror or error}") from None


def document_from(data: bytes | str, *, what: str) -> object:
    """What a text of YAML or JSON holds, as JSON's types and what else YAML has; `what` is its name in messages.

    Raises InvalidInputError for what is no YAML, a key given twice, an alias, a long number, and more than 1 MiB.
    """
    if len(data) > LIMIT_BYTES:
        raise InvalidInputError(f"{what} has more than the {LIMIT_BYTES} bytes that it may at most have")
    try:
        return _loaded(data.decode("utf-8") if isinstance(data, bytes) else data)
    except RecursionError:
        raise InvalidInputError(f"{what} is nested too deeply") from None
    except (ValueError, yaml.YAMLError) as error:
        said = " ".join(str(error).split())[:300]
        raise InvalidInputError(f"{what} cannot be read: {said}") from None


def _loaded(text: str) -> object:
    if text.lstrip()[:1] == "{":
        # YAML's flow style begins so, too; but escapes of JSON are not those of YAML.
        try:
            return json.loads(text, object_pairs_hook=_once, parse_int=_whole)
        except json.JSONDecodeError:
            pass
    return yaml.load(text, Loader=_Loader)  # a SafeLoader that refuses more


def _whole(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        raise ValueError(f"a number of more than {_MOST_DIGITS} digits")
    return int(digits)


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in pairs:
        if name in found:
            refuse(name[:80], "is given twice")
        found[name] = value
    return found
