"""What the codec is measured on: pairs of checkpoints of real training.

The first family is the shared data, where that is there. The second is trained by the bench itself (``family.py``)
and cast to every floating-point type; the acceptance limits are not judged on it, for they were set on the first.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import family
from formats import FORMATS, Format, cast
from measure import Bytes

CHECKPOINTS = Path(__file__).resolve().parents[1] / ".." / "shared" / "data" / "checkpoints"


@dataclass(frozen=True)
class Tensor:
    """One tensor's bytes, little-endian, with the name and dtype that its safetensors header gives."""

    name: str
    dtype: str
    data: Bytes


@dataclass(frozen=True)
class Pair:
    """Two versions of one model; tensors in the same order on both sides."""

    name: str
    kind: str  # which limit against peers holds; a key of criteria.RATIO_LIMITS, or "self-made"
    base: tuple[Tensor, ...]
    target: tuple[Tensor, ...]
    limit_bits: float | None  # the prototype's bytes per weight, as the data's README gives them
    real: bool

    @property
    def format(self) -> Format:
        """The one element type of all tensors."""
        (name,) = {tensor.dtype for tensor in (*self.target, *self.base)}
        return FORMATS[name]

    def joined(self) -> tuple[Bytes, Bytes]:
        """(target, base): all tensor data of each side in one array, the form that suits the peers best."""
        return join(self.target), join(self.base)


def join(tensors: tuple[Tensor, ...]) -> Bytes:
    return np.concatenate([tensor.data for tensor in tensors])


def read_tensors(path: Path) -> tuple[Tensor, ...]:
    """All tensors of a safetensors file, in the order of their data."""
    raw = path.read_bytes()
    header_size = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + header_size])
    header.pop("__metadata__", None)
    data = np.frombuffer(raw, dtype=np.uint8)[8 + header_size :]
    entries = sorted(header.items(), key=lambda item: item[1]["data_offsets"])
    return tuple(Tensor(n, e["dtype"], data[slice(*e["data_offsets"])].copy()) for n, e in entries)


_REAL = (
    ("base", "rl_0001", "first_step", 0.039),
    ("rl_0100", "rl_0101", "late_rl", 0.056),
    ("base", "rl_0100", "late_rl", 0.496),
    ("base", "sft_0001", "first_step", 0.118),
    ("base", "sft_0010", "early_tune", 2.150),
    ("base", "sft_0100", "late_tune", 4.776),
    ("pre_0600", "pre_0700", "pretraining", 7.399),
    ("base", "lora_f32", "adapter", 6.124),
    ("base", "lora_bf16", "adapter", None),
)
_NARROW = ("BF16", "F16", "F8_E4M3", "F8_E5M2")
_STANDALONE = ("BF16", "F16", "F32", "F8_E4M3", "F8_E5M2", "I8", "U8")


def real_pairs(directory: Path = CHECKPOINTS) -> list[Pair]:
    """The pairs of the shared data; none where that is not here."""
    if not directory.is_dir():
        return []
    files = {name: read_tensors(directory / f"{name}.safetensors") for p in _REAL for name in p[:2]}
    return [Pair(f"{a} -> {b}", kind, files[a], files[b], limit, True) for a, b, kind, limit in _REAL]


def family_pairs(dtypes: tuple[str, ...] = (*_NARROW, "F32")) -> list[Pair]:
    """The pairs trained here: an early and a late step, ten steps and a hundred; of fp32 the ten alone."""
    masters = family.load()
    pairs = []
    for dtype in dtypes:
        cast_once = {name: _tensors(weights, dtype) for name, weights in masters.items()}
        for optimiser in family.OPTIMISERS:
            first, ten, before, last = (f"{optimiser}_{step:04}" for step in family.KEPT_STEPS)
            for a, b in (("base", first), (before, last), ("base", ten), ("base", last)):
                if dtype != "F32" or b == ten:
                    name = f"{a} -> {b}, {dtype}"
                    pairs.append(Pair(name, "self-made", cast_once[a], cast_once[b], None, False))
    return pairs


def load_pairs() -> list[Pair]:
    """bf16 pairs: the real ones, or those trained here."""
    return real_pairs() or family_pairs(("BF16",))


def real_checkpoints(directory: Path = CHECKPOINTS) -> dict[str, tuple[Tensor, ...]]:
    """Every bf16 checkpoint of the shared data by itself, for coding without a base; none where it is not here."""
    if not directory.is_dir():
        return {}
    names = sorted({name for p in _REAL for name in p[:2]})
    return {name: read_tensors(directory / f"{name}.safetensors") for name in names}


def family_checkpoints(dtypes: tuple[str, ...] = _STANDALONE) -> dict[str, tuple[Tensor, ...]]:
    """The base trained here, in each element type."""
    base = family.load()["base"]
    return {f"self-made, {dtype}": _tensors(base, dtype) for dtype in dtypes}


def load_checkpoints() -> dict[str, tuple[Tensor, ...]]:
    """bf16 checkpoints: the real ones, or the one trained here."""
    return real_checkpoints() or family_checkpoints(("BF16",))


def _tensors(weights: family.Weights, dtype: str) -> tuple[Tensor, ...]:
    return tuple(Tensor(name, dtype, cast(weight, dtype)) for name, weight in weights.items())
