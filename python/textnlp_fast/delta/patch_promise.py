"""The promise of an approximate patch as its index states it: no number there is other than an integer."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from textnlp_fast.delta.approximate import Approximation, parse
from textnlp_fast.delta.promise import Promise, TensorPromise
from textnlp_fast.errors import CorruptDataError, InvalidInputError

__all__ = ["PatchPromise", "promise_document", "read_promise"]

_REALS: Final = ("change_l2", "dropped_l2", "max_abs")


@dataclass(frozen=True, slots=True)
class PatchPromise:
    """What was asked for, and how far each tensor of the target is off."""

    asked: Approximation
    tensors: Promise

    @property
    def dropped_share(self) -> float:
        """Norm of what was dropped, as a share of that of the change; 0 where nothing changed."""
        change = self.tensors.change_l2
        return self.tensors.dropped_l2 / change if change else 0.0


def promise_document(promise: PatchPromise) -> dict[str, Any]:
    """The value of `promise` in an index."""
    return {
        "asked": str(promise.asked),
        "tensors": {name: _packed(tensor) for name, tensor in promise.tensors.tensors.items()},
    }


def _packed(tensor: TensorPromise) -> dict[str, Any]:
    fields = tensor.to_json()
    reals = {key: int.from_bytes(struct.pack("<d", fields[key]), "little") for key in _REALS}
    return {**fields, **reals, "asked": None if tensor.asked is None else str(tensor.asked)}


def read_promise(document: object) -> PatchPromise:
    """Reads a stranger's; CorruptDataError says what is wrong."""
    if not isinstance(document, dict) or document.keys() != {"asked", "tensors"}:
        raise CorruptDataError("the promise is no object of asked and tensors")
    tensors = document["tensors"]
    if not isinstance(tensors, dict):
        raise CorruptDataError("the promise has no object of tensors")
    found = {name: TensorPromise.from_json(_unpacked(entry)) for name, entry in tensors.items()}
    return PatchPromise(_asked(document["asked"]), Promise(found))


def _unpacked(entry: object) -> dict[str, Any]:
    if not isinstance(entry, dict):
        raise CorruptDataError("a tensor's promise is no object")
    fields = dict(entry)
    for key in _REALS:
        fields[key] = _real(entry, key)
    if entry.get("asked") is not None:
        fields["asked"] = _asked(entry["asked"]).to_json()
    return fields


def _real(entry: Mapping[str, Any], key: str) -> float:
    bits = entry.get(key)
    if type(bits) is not int or not 0 <= bits < 1 << 63:
        raise CorruptDataError(f"a promise whose {key} is not the bits of a number from 0 up")
    return float(struct.unpack("<d", bits.to_bytes(8, "little"))[0])


def _asked(text: object) -> Approximation:
    if not isinstance(text, str):
        raise CorruptDataError("a promise asks for something that is no text")
    try:
        return parse(text)
    except InvalidInputError as error:
        raise CorruptDataError(f"a promise asks for what is unknown: {error.args[0]}") from None
