"""Sealed documents: JSON that carries the digest of its own canonical form.

`docs/format.md` ("Documents") states them. Reading trusts nothing: every count is bounded, every field has the type
that it must have.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from textnlp_fast.errors import (
    CorruptDataError,
    DigestMismatchError,
    InvalidInputError,
    UnsupportedFormatError,
)
from textnlp_fast.hashing import blake3_hex

__all__ = [
    "MAX_DOCUMENT_BYTES",
    "MAX_SIZE",
    "MAX_VALUES",
    "Broken",
    "canonical",
    "check_digest",
    "count_values",
    "parse_document",
    "seal_document",
    "take",
    "take_size",
]

MAX_DOCUMENT_BYTES: Final = 512 << 20
MAX_VALUES: Final = 1 << 24
"""Commas, colons and opening brackets that a document may have: each may stand for a value, which takes some hundred
bytes in memory and may take two in the document."""
MAX_SIZE: Final = 1 << 52
_MARKS: Final = (b",", b":", b"[", b"{")
# Made once: `json.dumps` makes one a call, and documents are put together of many small parts.
_ENCODER: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)
_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)


def canonical(document: object) -> bytes:
    """JSON with sorted keys, without spaces, in UTF-8: one form for one document."""
    return _ENCODER.encode(document).encode()


def seal_document(document: Mapping[str, Any]) -> bytes:
    """The canonical form of a document with the digest of the rest of it under `digest`.

    Raises InvalidInputError for one that no reader would take.
    """
    # Keys are in their order, and so are those before the digest's and those after: what is large is written once.
    before = _members({key: value for key, value in document.items() if key < "digest"})
    after = _members({key: value for key, value in document.items() if key > "digest"})
    digest = _members({"digest": blake3_hex(_object(before, after))})
    data = _object(before, digest, after)
    if len(data) > MAX_DOCUMENT_BYTES or count_values(data) > MAX_VALUES:
        raise InvalidInputError(
            f"a document of {len(data)} bytes and some {count_values(data)} values is more than readers take",
            hint="Give the repository larger windows, or the model fewer files.",
        )
    return data


def count_values(data: bytes) -> int:
    """A bound of how many values a JSON text holds, found without parsing it."""
    return sum(map(data.count, _MARKS))


def _members(document: Mapping[str, Any]) -> bytes:
    """The canonical form of an object without its brackets."""
    return canonical(document)[1:-1]


def _object(*members: bytes) -> bytes:
    """The canonical form of an object of those of its members."""
    return b"{" + b",".join(filter(None, members)) + b"}"


class Broken(Exception):
    """Carries what is wrong from the field that is wrong to the message that names the document."""


def _refuse_constant(name: str) -> None:
    raise Broken(f"{name} is not a number of this format")


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise Broken("a key appears twice")
    return document


def parse_document(data: bytes | memoryview, what: str, *, formats: tuple[int, ...] = (1,)) -> dict[str, Any]:
    """Reads a sealed JSON document and checks its digest, and that its format is one of `formats`.

    `what` names it in errors.
    """
    if len(data) > MAX_DOCUMENT_BYTES:
        raise CorruptDataError(f"{what} is {len(data)} bytes; this reader takes {MAX_DOCUMENT_BYTES}")
    data = bytes(data)
    if count_values(data) > MAX_VALUES:
        raise CorruptDataError(f"{what} holds more than {MAX_VALUES} values")
    try:
        document = json.loads(data, object_pairs_hook=_unique_keys, parse_constant=_refuse_constant)
    except (ValueError, RecursionError, Broken) as error:
        raise CorruptDataError(f"{what} is not valid JSON: {error}") from None
    if not isinstance(document, dict):
        raise CorruptDataError(f"{what} is not a JSON object")
    number = document.get("format")
    if isinstance(number, bool) or not isinstance(number, int):
        raise CorruptDataError(f"{what} carries no format number")
    if number not in formats:
        known = " and ".join(map(str, formats))
        raise UnsupportedFormatError(f"{what} has format {number}; this textnlp-fast reads format {known}")
    digest = document.pop("digest", None)
    try:
        actual = blake3_hex(canonical(document))
    except (UnicodeEncodeError, RecursionError) as error:
        raise CorruptDataError(f"{what} is not valid JSON: {error}") from None
    if digest != actual:
        raise DigestMismatchError(f"{what} does not match the digest it carries: bytes of it changed")
    return document


def take(document: Mapping[str, Any], key: str, kind: type, where: str) -> Any:
    """The value of a key that must be there and of this type. Raises Broken."""
    value = document.get(key)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise Broken(f"{where} has no {key!r} of type {kind.__name__}")
    return value


def take_size(document: Mapping[str, Any], key: str, where: str, limit: int = MAX_SIZE) -> int:
    """The value of a key that must be a number from 0 to `limit`. Raises Broken."""
    value: int = take(document, key, int, where)
    if not 0 <= value <= limit:
        raise Broken(f"{key} of {where} is {value}, outside 0..{limit}")
    return value


def check_digest(value: object, where: str) -> str:
    """The value if it is a digest. Raises Broken."""
    if not isinstance(value, str) or _DIGEST.fullmatch(value) is None:
        raise Broken(f"{where} is not a digest of 64 lower-case hex digits")
    return value
