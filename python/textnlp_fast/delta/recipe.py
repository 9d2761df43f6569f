"""Recipes: how a reader makes a base out of contents that it has. Chapter *Recipes* of docs/format.md is the norm.

This is the door: every kind of recipe, and the reader of their JSON, which comes from strangers.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from textnlp_fast.delta.bases import MAX_SIZE, Held, Recipe, Stretch
from textnlp_fast.delta.computed import Cast, LowRank, SignScale
from textnlp_fast.delta.moved import MAX_PIECES, Piece, Pieces, Transposed, Whole
from textnlp_fast.delta.woven import MAX_STRANDS, Strand, Woven
from textnlp_fast.errors import CorruptDataError, InvalidInputError, UnsupportedFormatError

__all__ = [
    "MAX_PIECES",
    "MAX_SIZE",
    "MAX_STRANDS",
    "Cast",
    "Held",
    "LowRank",
    "Piece",
    "Pieces",
    "Recipe",
    "SignScale",
    "Strand",
    "Stretch",
    "Transposed",
    "Whole",
    "Woven",
    "from_json",
    "with_sources",
]


def from_json(value: object, *, size_bytes: int, dtype: str) -> Recipe:
    """Reads a recipe for a content of that size and dtype.

    Raises CorruptDataError for anything that breaks the format, UnsupportedFormatError for a kind of recipe or
    a pair of types that this version does not know. Whether the contents named are there and fit is
    :meth:`Recipe.check_sources`.
    """
    try:
        recipe = _build(value, size_bytes, dtype)
    except InvalidInputError as error:
        raise CorruptDataError(f"not a recipe: {error.args[0]}") from None
    if recipe.size_bytes != size_bytes:
        raise CorruptDataError(f"a recipe makes {recipe.size_bytes} bytes for a content of {size_bytes}")
    return recipe


def with_sources(recipe: Recipe, names: Mapping[str, str]) -> Recipe:
    """The same recipe of other contents: `names` gives new digests for those that change.

    Raises InvalidInputError for a recipe that computes with factors: their names say what they are.
    """

    def renamed(digest: str | None) -> str | None:
        return None if digest is None else names.get(digest, digest)

    if isinstance(recipe, Pieces):
        return Pieces(tuple(replace(piece, digest=renamed(piece.digest)) for piece in recipe.pieces))
    if isinstance(recipe, Woven):
        strands = tuple(replace(strand, digest=renamed(strand.digest)) for strand in recipe.strands)
        return Woven(recipe.groups, strands)
    if isinstance(recipe, Whole | Cast | Transposed):
        return replace(recipe, digest=names.get(recipe.digest, recipe.digest))
    raise InvalidInputError("a recipe with factors is of those contents alone")


def _build(value: object, size_bytes: int, dtype: str) -> Recipe:
    if isinstance(value, str):
        return Whole(value, size_bytes)
    if not isinstance(value, dict) or len(value) != 1:
        raise InvalidInputError("it is neither a digest nor an object with one key")
    ((kind, fields),) = value.items()
    reader = _READERS.get(kind)
    if reader is None:
        raise UnsupportedFormatError(f"a recipe of kind {str(kind)[:40]!a}, which this version does not know")
    if not isinstance(fields, list):
        raise InvalidInputError(f"{kind} is not a list")
    return reader(fields, size_bytes, dtype)


def _fields(values: object, count: int, what: str) -> list[Any]:
    if not isinstance(values, list) or len(values) != count:
        raise InvalidInputError(f"{what} has not {count} fields")
    return values


def _pieces(fields: list[Any], size_bytes: int, dtype: str) -> Recipe:
    if len(fields) > MAX_PIECES:
        raise InvalidInputError(f"{len(fields)} pieces; a recipe has at most {MAX_PIECES}")
    return Pieces(tuple(Piece(*_fields(row, 3, "a piece")) for row in fields))


def _weave(fields: list[Any], size_bytes: int, dtype: str) -> Recipe:
    groups, rows = _fields(fields, 2, "weave")
    if not isinstance(rows, list) or len(rows) > MAX_STRANDS:
        raise InvalidInputError(f"the strands are no list of at most {MAX_STRANDS}")
    return Woven(groups, tuple(Strand(*_fields(row, 4, "a strand")) for row in rows))


def _transpose(fields: list[Any], size_bytes: int, dtype: str) -> Recipe:
    return Transposed(*_fields(fields, 4, "transpose"))


def _cast(fields: list[Any], size_bytes: int, dtype: str) -> Recipe:
    digest, source_type, target_type = _fields(fields, 3, "cast")
    if target_type != dtype:
        raise InvalidInputError(f"it casts to another type than that of the content, {dtype}")
    return Cast(digest, source_type, target_type, size_bytes)


def _low_rank(fields: list[Any], size_bytes: int, dtype: str) -> Recipe:
    digest, a, b, rows, columns, rank, scale, a_type, b_type, rounding = _fields(fields, 10, "low_rank")
    if type(scale) is not int or not 0 <= scale < 1 << 32:
        raise InvalidInputError("the scale is not the bits of a value of F32")
    factor: float = struct.unpack("<f", scale.to_bytes(4, "little"))[0]
    return LowRank(digest, a, b, rows, columns, rank, factor, dtype, a_type, b_type, rounding)


def _sign_scale(fields: list[Any], size_bytes: int, dtype: str) -> Recipe:
    digest, signs, scales, rows, columns = _fields(fields, 5, "sign_scale")
    return SignScale(digest, signs, scales, rows, columns, dtype)


_READERS: Final[dict[str, Callable[[list[Any], int, str], Recipe]]] = {
    "pieces": _pieces,
    "weave": _weave,
    "transpose": _transpose,
    "cast": _cast,
    "low_rank": _low_rank,
    "sign_scale": _sign_scale,
}
