"""A description from YAML or JSON, and back. Nothing is guessed: what is not understood is refused, with its path."""

from __future__ import annotations

import functools
import json
import os
import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, Final, Literal, Union, cast, get_args, get_origin, get_type_hints

from textnlp_fast.adapter.description import Deployment
from textnlp_fast.adapter.documents import bytes_in, document_from
from textnlp_fast.adapter.words import refuse, shown
from textnlp_fast.errors import InvalidInputError

__all__ = ["canonical_json", "document_of", "parse_deployment", "read_deployment"]


def read_deployment(path: str | os.PathLike[str]) -> Deployment:
    """The description in a file of YAML or JSON. Raises InvalidInputError that says which setting is wrong."""
    data = bytes_in(path)
    try:
        return parse_deployment(data)
    except InvalidInputError as error:
        raise InvalidInputError(f"{Path(path)}: {error.args[0]}", hint=error.hint) from None


def parse_deployment(data: bytes | str) -> Deployment:
    """The description that a text of YAML or JSON holds. Raises InvalidInputError."""
    return cast(Deployment, _made(Deployment, document_from(data, what="the description"), ""))


def document_of(deployment: Deployment) -> dict[str, Any]:
    """The description as JSON's types, without what is as by default: reads back as the same."""
    return cast("dict[str, Any]", _plain(deployment))


def canonical_json(deployment: Deployment) -> str:
    """One text for one meaning: what is compared, and hashed."""
    return json.dumps(document_of(deployment), sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def _plain(value: object) -> object:
    if is_dataclass(value) and not isinstance(value, type):
        return {
            one.name: _plain(getattr(value, one.name))
            for one in fields(value)
            if one.init and getattr(value, one.name) != _default(one)
        }
    if isinstance(value, Mapping):
        return {key: _plain(value[key]) for key in sorted(value)}
    if isinstance(value, tuple | list):
        return [_plain(one) for one in value]
    return value


def _default(one: Any) -> object:
    if one.default is not MISSING:
        return one.default
    return one.default_factory() if one.default_factory is not MISSING else MISSING


# --- types -----------------------------------------------------------------------------------------------------------


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _made(kind: Any, value: object, where: str) -> object:
    """The dataclass of these settings; its own checks name what they are about, and the path is put before."""
    if not isinstance(value, Mapping):
        return refuse(where or "the description", f"must be a mapping of settings, not {shown(value)}")
    known = {one.name: one for one in fields(kind)}
    for name in value:
        if name not in known:
            refuse(
                _path(where, name), "there is no such setting", hint=f"Known are: {', '.join(sorted(known))}."
            )
    missing = [
        one.name
        for one in known.values()
        if one.default is MISSING and one.default_factory is MISSING and one.name not in value
    ]
    if missing:
        refuse(_path(where, missing[0]), "is missing")
    hints = _hints(kind)
    settings = {name: _read(hints[name], one, _path(where, name)) for name, one in value.items()}
    try:
        return kind(**settings)
    except InvalidInputError as error:
        said = str(error.args[0])
        top = where.split(".", 1)[0].split("[", 1)[0]
        if top and not said.startswith(top):
            said = f"{where}: {said}"
        raise InvalidInputError(said, hint=error.hint) from None


def _read(hint: Any, value: object, where: str) -> object:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _read_union(arguments, value, where)
    if is_dataclass(hint):
        return _made(hint, value, where)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            return refuse(where, f"must be a list, not {shown(value)}")
        return tuple(_read(arguments[0], one, f"{where}[{number}]") for number, one in enumerate(value))
    if origin is not None and isinstance(origin, type) and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            return refuse(where, f"must be a mapping, not {shown(value)}")
        return {str(key): _read(arguments[1], one, _path(where, str(key))) for key, one in value.items()}
    if origin is Literal:
        if value not in arguments:
            return refuse(where, f"must be one of {', '.join(arguments)}, not {shown(value)}")
        return value
    return _read_plain(hint, value, where)


def _read_union(kinds: tuple[Any, ...], value: object, where: str) -> object:
    if value is None and type(None) in kinds:
        return None
    rest = [one for one in kinds if one is not type(None)]
    if len(rest) == 1:
        return _read(rest[0], value, where)
    for one in rest:
        if isinstance(one, type) and type(value) is one:
            return _printable(value, where)
    return refuse(where, f"must be {' or '.join(_WORDS[one] for one in rest)}, not {shown(value)}")


def _read_plain(kind: Any, value: object, where: str) -> object:
    fine = type(value) is kind or (kind is float and type(value) is int)
    if not fine:
        hint = "Put it in quotes." if kind is str else None
        return refuse(where, f"must be {_WORDS[kind]}, not {shown(value)}", hint=hint)
    return _printable(value, where)


def _printable(value: object, where: str) -> object:
    """The value, if it is no number beyond 64 bits, which checks further on could neither compute with nor print."""
    if isinstance(value, int) and value.bit_length() > 64:
        refuse(where, f"is too large: {shown(value)}")
    return value


_WORDS: Final = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}


def _path(where: str, name: object) -> str:
    plain = str(name) if len(str(name)) <= 80 else str(name)[:77] + "..."
    return f"{where}.{plain}" if where else plain
