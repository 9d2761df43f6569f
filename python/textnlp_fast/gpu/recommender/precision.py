"""How many bits weights and the KV cache take, and at which rate a GPU multiplies them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from textnlp_fast.errors import InvalidInputError

__all__ = ["KV_BYTES", "WEIGHTS", "WeightFormat", "kv_bytes_of", "weight_format"]


@dataclass(frozen=True)
class WeightFormat:
    """How the matrices of layers are kept. Embeddings, the output matrix, norms and routers stay at 16 bit."""

    name: str
    bits: float
    """Per weight, with its scales."""
    multiplies_fp8: bool
    """Activations are cast too, so that fp8 hardware multiplies at its own rate; else weights are widened to 16 bit."""
    blocks: bool = False
    """Scales are of blocks, and those of activations are found in each step."""


# Scales: fp8 one a tensor, that of DeepSeek and Qwen a float32 a block of 128 x 128; int8 one of 16 bit a row; int4
# (AWQ, GPTQ) a scale of 16 and a zero of 4 bit a group of 128; 16-bit formats none.
WEIGHTS: Final = {
    one.name: one
    for one in (
        WeightFormat("fp32", 32, False),
        WeightFormat("bf16", 16, False),
        WeightFormat("fp16", 16, False),
        WeightFormat("fp8", 8, True),
        WeightFormat("fp8-block", 8 + 32 / 128**2, True, True),
        WeightFormat("int8", 8 + 16 / 4096, False),
        WeightFormat("int4", 4 + 20 / 128, False),
    )
}
_ALIASES: Final = {
    "bfloat16": "bf16",
    "float16": "fp16",
    "half": "fp16",
    "float32": "fp32",
    "float": "fp32",
    "float8": "fp8",
    "float8_e4m3fn": "fp8",
    "fbgemm_fp8": "fp8",
    "awq": "int4",
    "gptq": "int4",
    "w4a16": "int4",
    "w8a16": "int8",
}
KV_BYTES: Final = {"bf16": 2.0, "fp16": 2.0, "fp8": 1.0, "int8": 1.0, "fp32": 4.0}


def weight_format(name: str) -> WeightFormat:
    """The format of that name, or of another name for it (`awq`, `bfloat16`). Raises InvalidInputError."""
    plain = str(name).strip().lower()
    try:
        return WEIGHTS[_ALIASES.get(plain, plain)]
    except KeyError:
        raise InvalidInputError(
            f"there is no weight format {name!r} here",
            hint=f"Known are: {', '.join((*WEIGHTS, 'awq', 'gptq'))}.",
        ) from None


def kv_bytes_of(name: str) -> float:
    """Bytes an element of the KV cache takes. Raises InvalidInputError."""
    plain = str(name).strip().lower()
    try:
        return KV_BYTES[_ALIASES.get(plain, plain)]
    except KeyError:
        raise InvalidInputError(
            f"there is no KV cache of type {name!r} here", hint=f"Known are: {', '.join(KV_BYTES)}."
        ) from None
