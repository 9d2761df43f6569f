"""Small models to match. A match is judged by its base: it must be, byte for byte, what numpy makes of the source."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from textnlp_fast.delta.match import Candidate, Tensor, match
from textnlp_fast.delta.recipe import Recipe
from textnlp_fast.hashing import blake3_hex

Array = npt.NDArray[Any]
Model = dict[str, Array]

BF16 = ml_dtypes.bfloat16
DTYPES = {"bfloat16": "BF16", "float16": "F16", "float32": "F32", "uint8": "U8", "int8": "I8", "int32": "I32"}
H = 256  # the width of the models


class Reads:
    """Counts what is read of the tensors that it makes."""

    def __init__(self) -> None:
        self.count = self.bytes = self.largest = 0

    def tensor(self, name: str, values: Array) -> Tensor:
        data = values.tobytes()

        def read(begin: int, end: int) -> bytes:
            assert 0 <= begin <= end <= len(data)
            self.count += 1
            self.bytes += end - begin
            self.largest = max(self.largest, end - begin)
            return data[begin:end]

        return Tensor(name, DTYPES[values.dtype.name], values.shape, blake3_hex(data), len(data), read)


def tensors(model: Model, reads: Reads | None = None) -> list[Tensor]:
    counted = reads or Reads()
    return [counted.tensor(name, values) for name, values in model.items()]


def weights(rng: np.random.Generator, *shape: int, dtype: Any = BF16) -> Array:
    return (rng.standard_normal(shape) * 0.02).astype(dtype)


def trained(values: Array, rate: float = 2e-4, seed: int = 9) -> Array:
    """The tensor after some steps: every value moved by about a hundredth of its size."""
    rng = np.random.default_rng((seed, values.size))
    moved = values.astype(np.float32) + rng.standard_normal(values.shape).astype(np.float32) * rate
    return moved.astype(values.dtype)


def llama(layers: int = 3, seed: int = 1, dtype: Any = BF16) -> Model:
    rng = np.random.default_rng(seed)
    model: Model = {"model.embed_tokens.weight": weights(rng, 500, H, dtype=dtype)}
    for layer in range(layers):
        at = f"model.layers.{layer}"
        model[f"{at}.input_layernorm.weight"] = (1 + weights(rng, H, dtype=np.float32)).astype(dtype)
        model[f"{at}.self_attn.q_proj.weight"] = weights(rng, 256, H, dtype=dtype)
        model[f"{at}.self_attn.k_proj.weight"] = weights(rng, 128, H, dtype=dtype)
        model[f"{at}.self_attn.v_proj.weight"] = weights(rng, 128, H, dtype=dtype)
        model[f"{at}.self_attn.o_proj.weight"] = weights(rng, H, 256, dtype=dtype)
        model[f"{at}.mlp.gate_proj.weight"] = weights(rng, 384, H, dtype=dtype)
        model[f"{at}.mlp.up_proj.weight"] = weights(rng, 384, H, dtype=dtype)
        model[f"{at}.mlp.down_proj.weight"] = weights(rng, H, 384, dtype=dtype)
    model["model.norm.weight"] = (1 + weights(rng, H, dtype=np.float32)).astype(dtype)
    return model


def experts(layers: int = 2, count: int = 12) -> Model:
    rng = np.random.default_rng(2)
    return {
        f"model.layers.{layer}.mlp.experts.{number}.{one}_proj.weight": weights(rng, 48, H)
        for layer in range(layers)
        for number in range(count)
        for one in ("gate", "up")
    }


def made(recipe: Recipe, sources: Model) -> bytes:
    held = {blake3_hex(values.tobytes()): values.tobytes() for values in sources.values()}
    recipe.check_sources({digest: len(data) for digest, data in held.items()})
    return bytes(recipe.read(0, recipe.size_bytes, lambda digest, begin, end: held[digest][begin:end]))


def best(sources: Model, targets: Model) -> dict[str, Candidate | None]:
    found = match(tensors(sources), tensors(targets))
    return {name: (line[0] if line else None) for name, line in zip(targets, found, strict=True)}


def expect(sources: Model, cases: dict[str, tuple[Array, Array]], others: Model | None = None) -> None:
    """Match targets against sources: of each target, (itself, the base that it should get)."""
    found = best(sources, {name: target for name, (target, _) in cases.items()} | (others or {}))
    for name, (target, base) in cases.items():
        candidate = found[name]
        assert candidate is not None, name
        assert made(candidate.recipe, sources) == base.tobytes(), f"{name}: {candidate.reason}"
        assert target.nbytes == candidate.recipe.size_bytes
