"""What the codec is measured on: pairs of checkpoints of real training, or made here when those are absent.

The self-made pairs imitate AdamW on bf16 weights: master weights in fp32, each moved by about the learning
rate with a random sign, both ends rounded to bf16. They show the same mechanism (small weights change,
large ones do not) and are no substitute for trained weights: the acceptance limits are not judged on them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

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
    kind: str  # "early", "late_rl" or "dense": which limit against peers holds
    base: tuple[Tensor, ...]
    target: tuple[Tensor, ...]
    limit_bits: float | None  # the prototype's bytes per weight, as the data's README gives them
    real: bool

    @property
    def weights(self) -> int:
        return sum(tensor.data.size for tensor in self.target) // 2

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
    ("base", "rl_0001", "early", 0.039),
    ("rl_0100", "rl_0101", "late_rl", 0.056),
    ("base", "rl_0100", "late_rl", 0.496),
    ("base", "sft_0001", "early", 0.118),
    ("base", "sft_0010", "dense", 2.150),
    ("base", "sft_0100", "dense", 4.776),
    ("pre_0600", "pre_0700", "dense", 7.399),
    ("base", "lora_f32", "dense", 6.124),
    ("base", "lora_bf16", "dense", None),
)


def load_pairs(directory: Path = CHECKPOINTS) -> list[Pair]:
    """The pairs of the shared data, or self-made ones when it is not there."""
    if not directory.is_dir():
        return _simulated()
    files = {name: read_tensors(directory / f"{name}.safetensors") for p in _REAL for name in p[:2]}
    return [Pair(f"{a} -> {b}", kind, files[a], files[b], limit, True) for a, b, kind, limit in _REAL]


def load_checkpoints(directory: Path = CHECKPOINTS) -> dict[str, tuple[Tensor, ...]]:
    """Every bf16 checkpoint by itself, for coding without a base."""
    if not directory.is_dir():
        return {pair.name.split(" -> ")[1]: pair.target for pair in _simulated()}
    names = sorted({name for p in _REAL for name in p[:2]})
    return {name: read_tensors(directory / f"{name}.safetensors") for name in names}


def to_bf16(values: np.ndarray) -> np.ndarray:
    """fp32 to the bits of bf16, to nearest even (finite values)."""
    bits = values.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def _simulated() -> list[Pair]:
    random = np.random.default_rng(7)
    shapes = {"q_proj": (512, 512), "gate_proj": (1536, 512), "norm": (512,), "embed": (512, 512)}
    weights = {
        name: random.standard_normal(shape, dtype=np.float32)
        * np.float32(0.04)
        * random.gamma(4, 0.25, (shape[0],) + (1,) * (len(shape) - 1)).astype(np.float32)
        for name, shape in shapes.items()
    }
    base = tuple(Tensor(n, "BF16", to_bf16(w).view(np.uint8).reshape(-1)) for n, w in weights.items())
    pairs = []
    for name, kind, step in (
        ("rl", "late_rl", 1e-6),
        ("sft_early", "early", 2e-5),
        ("sft_late", "dense", 1e-3),
        ("pretraining", "dense", 1e-2),
    ):
        moved = []
        for tensor, weight in zip(base, weights.values(), strict=True):
            size = np.float32(step) * random.gamma(2, 0.5, weight.shape).astype(np.float32)
            after = weight + size * random.choice(np.array([-1, 1], np.float32), weight.shape)
            moved.append(Tensor(tensor.name, "BF16", to_bf16(after).view(np.uint8).reshape(-1)))
        pairs.append(Pair(f"self-made -> {name}", kind, base, tuple(moved), None, False))
    return pairs
