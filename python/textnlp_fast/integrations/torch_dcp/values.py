"""Values that are no tensors, as JSON: what a checkpoint of ours has instead of pickles.

Plain data goes through exactly: None, truth values, integers, floats (their bits), text, bytes, lists, tuples and
dictionaries of these. Everything else is a pickle, which nobody reads by accident.
"""

from __future__ import annotations

import base64
import binascii
import struct
from typing import Any, Final

from textnlp_fast.contents.documents import Broken

__all__ = ["NotPlainError", "decode_value", "encode_value"]

# Integers that a document may have.
_LARGEST: Final = 1 << 52
_DEEPEST: Final = 64


class NotPlainError(Exception):
    """Carries the name of the type that is no plain data."""


def encode_value(value: object, *, depth: int = 0) -> Any:
    """The value as JSON. Raises NotPlainError."""
    if depth > _DEEPEST:
        raise NotPlainError(f"something nested more than {_DEEPEST} deep")
    kind = type(value)
    if value is None or kind is bool or kind is str:
        return _checked_text(value) if kind is str else value
    if kind is int:
        assert isinstance(value, int)
        return value if abs(value) < _LARGEST else {"int": hex(value)}
    if kind is float:
        return {"float": struct.pack(">d", value).hex()}
    if kind is bytes:
        assert isinstance(value, bytes)
        return {"bytes": base64.b64encode(value).decode()}
    if kind is list or kind is tuple:
        assert isinstance(value, list | tuple)
        inside = [encode_value(each, depth=depth + 1) for each in value]
        return inside if kind is list else {"tuple": inside}
    if kind is dict:
        assert isinstance(value, dict)
        return {"dict": [[encode_value(each, depth=depth + 1) for each in pair] for pair in value.items()]}
    raise NotPlainError(f"{kind.__module__}.{kind.__qualname__}")


def _checked_text(value: object) -> object:
    try:
        str(value).encode()
    except UnicodeEncodeError:  # half a surrogate pair
        raise NotPlainError("text that is no Unicode") from None
    return value


def decode_value(encoded: object, *, depth: int = 0) -> Any:
    """What `encode_value` was given. Raises Broken for anything that it does not write."""
    if depth > _DEEPEST:
        raise Broken("a value is nested too deeply")
    if encoded is None or isinstance(encoded, bool | str | int):
        return encoded
    if isinstance(encoded, list):
        return [decode_value(each, depth=depth + 1) for each in encoded]
    if not isinstance(encoded, dict) or len(encoded) != 1:
        raise Broken("a value is of no known kind")
    ((kind, inside),) = encoded.items()
    try:
        return _decode(kind, inside, depth)
    except (ValueError, TypeError, struct.error, binascii.Error) as error:
        raise Broken(f"a value of kind {kind[:16]!r} cannot be read: {error}") from None


def _decode(kind: str, inside: Any, depth: int) -> Any:
    if kind == "int" and isinstance(inside, str) and len(inside) <= 1 << 12:
        return int(inside, 16)
    if kind == "float":
        return struct.unpack(">d", bytes.fromhex(inside))[0]
    if kind == "bytes":
        return base64.b64decode(inside, validate=True)
    if kind == "tuple" and isinstance(inside, list):
        return tuple(decode_value(each, depth=depth + 1) for each in inside)
    if kind == "dict" and isinstance(inside, list):
        pairs = [tuple(decode_value(each, depth=depth + 1) for each in pair) for pair in inside]
        if any(len(pair) != 2 for pair in pairs):
            raise Broken("a dictionary is no list of pairs")
        found = dict(pairs)
        if len(found) != len(pairs):
            raise Broken("a key appears twice in a dictionary")
        return found
    raise Broken(f"a value is of kind {kind[:16]!r}, which this version does not know")
