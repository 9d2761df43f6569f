"""The element types that coded frames know (docs/format.md, "Element types")."""

from __future__ import annotations

from typing import Final

__all__ = ["DTYPES"]

#: Element types of the frame format by the names that safetensors gives them.
DTYPES: Final[dict[str, int]] = {
    "OPAQUE": 0,
    "BOOL": 1,
    "U8": 2,
    "I8": 3,
    "F8_E4M3": 4,
    "F8_E5M2": 5,
    "U16": 6,
    "I16": 7,
    "F16": 8,
    "BF16": 9,
    "U32": 10,
    "I32": 11,
    "F32": 12,
    "U64": 13,
    "I64": 14,
    "F64": 15,
}
