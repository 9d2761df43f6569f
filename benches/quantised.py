"""Quantised layouts as checkpoints hold them, made from fp32 matrices: the bytes of a tensor, its scales and zeros.

Written apart from the package, whose sizes are judged on what is made here. A matrix is (out, in), rows of inputs;
groups and blocks run along a row, as they do in the files of the projects that are named. What rounds away in such a
quantiser decides about no claim here: weights come out with the distribution that the layout gives them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from formats import Array, fp8_codes, fp8_values, to_bf16
from measure import Bytes

Matrix = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Part:
    """One tensor of a layout. ``word``: bytes after which what a byte stands for repeats."""

    name: str
    dtype: str  # as safetensors calls it
    word: int
    data: Bytes


def part(name: str, dtype: str, word: int, values: Array) -> Part:
    return Part(name, dtype, word, np.ascontiguousarray(values).reshape(-1).view(np.uint8))


# --- 8 bits --------------------------------------------------------------------------------------------------


def fp8_tensor(weights: Matrix, dtype: str) -> list[Part]:
    """compressed-tensors ``float-quantized``: a scale for the tensor."""
    largest = fp8_values(dtype)[-1]
    scale = np.float32(max(np.abs(weights).max() / largest, 1e-12))
    return [part("weight", dtype, 1, fp8_codes(weights / scale, dtype)), _bf16("weight_scale", scale)]


def fp8_blocks(weights: Matrix, dtype: str) -> list[Part]:
    """DeepSeek-V3: an fp32 scale for each 128 x 128 block."""
    rows, columns = weights.shape
    tall, wide = -(-rows // 128), -(-columns // 128)
    padded = np.zeros((tall * 128, wide * 128), np.float32)
    padded[:rows, :columns] = weights
    blocks = padded.reshape(tall, 128, wide, 128)
    scales = np.maximum(np.abs(blocks).max(axis=(1, 3)) / fp8_values(dtype)[-1], 1e-12).astype("<f4")
    scaled = (blocks / scales[:, None, :, None]).reshape(padded.shape)[:rows, :columns]
    return [
        part("weight", dtype, 1, fp8_codes(scaled, dtype)),
        part("weight_scale_inv", "F32", 4, scales),
    ]


def int8_rows(weights: Matrix) -> list[Part]:
    """compressed-tensors ``int-quantized``: a scale for each row."""
    scales = np.maximum(np.abs(weights).max(axis=1, keepdims=True) / np.float32(127), 1e-12)
    return [
        part("weight", "I8", 1, np.rint(weights / scales).astype(np.int8)),
        _bf16("weight_scale", scales),
    ]


# --- 4 bits, integers ----------------------------------------------------------------------------------------


def int4_bytes(weights: Matrix) -> list[Part]:
    """Two neighbours to a byte, symmetric, an fp16 scale for each group of 128."""
    codes, scales, _ = _groups(weights, 128, symmetric=True)
    return [part("weight", "U8", 1, _pairs(codes)), part("scales", "F16", 2, scales.astype("<f2"))]


def gptq(weights: Matrix) -> list[Part]:
    """GPTQ: eight inputs of an output to an I32, (in / 8, out); symmetric, so that zeros say 7 everywhere."""
    codes, scales, zeros = _groups(weights, 128, symmetric=True)
    inputs = np.arange(weights.shape[1], dtype="<i4") // 128
    return [
        part("qweight", "I32", 4, _words(codes.T.reshape(-1, 8, codes.shape[0]).transpose(0, 2, 1))),
        part("qzeros", "I32", 4, _words((zeros - 1).T.reshape(zeros.shape[1], -1, 8))),
        part("scales", "F16", 2, scales.T.astype("<f2")),
        part("g_idx", "I32", 4, inputs),
    ]


def awq(weights: Matrix) -> list[Part]:
    """AWQ: eight outputs of an input to an I32, (in, out / 8), even ones first; zeros of their own."""
    codes, scales, zeros = _groups(weights, 128, symmetric=False)
    order = [0, 2, 4, 6, 1, 3, 5, 7]
    return [
        part("qweight", "I32", 4, _words(codes.T.reshape(codes.shape[1], -1, 8)[:, :, order])),
        part("qzeros", "I32", 4, _words(zeros.T.reshape(zeros.shape[1], -1, 8)[:, :, order])),
        part("scales", "F16", 2, scales.T.astype("<f2")),
    ]


def packed_int4(weights: Matrix) -> list[Part]:
    """compressed-tensors ``pack-quantized``: eight inputs of a row to an I32, (out, in / 8), symmetric."""
    codes, scales, _ = _groups(weights, 128, symmetric=True)
    return [
        part("weight_packed", "I32", 4, _words(codes.reshape(codes.shape[0], -1, 8))),
        _bf16("weight_scale", scales),
    ]


def nf4(weights: Matrix) -> list[Part]:
    """bitsandbytes NF4: the nearest of 16 quantiles of a normal distribution, the first of a pair on top."""
    blocks = weights.reshape(-1, 64)
    largest = np.maximum(np.abs(blocks).max(axis=1, keepdims=True), 1e-12)
    codes = np.searchsorted((_NF4[1:] + _NF4[:-1]) / 2, blocks / largest).astype(np.uint8)
    return [
        part("weight", "U8", 1, _pairs(codes)[..., :] >> 4 | _pairs(codes) << 4),
        part("absmax", "F32", 4, largest.astype("<f4")),
    ]


# --- block floats ---------------------------------------------------------------------------------------------


def mxfp4_gpt_oss(weights: Matrix) -> list[Part]:
    """MXFP4 as gpt-oss stores it: two E2M1 to a U8, a power of two for each 32 as a U8."""
    codes, exponents = _mx(weights, _E2M1, 2)
    return [part("blocks", "U8", 1, _pairs(codes)), part("scales", "U8", 1, exponents)]


def mxfp4(weights: Matrix) -> list[Part]:
    """The same under the element types that safetensors has for it."""
    codes, exponents = _mx(weights, _E2M1, 2)
    return [part("weight", "F4", 1, _pairs(codes)), part("scale", "F8_E8M0", 1, exponents)]


def mxfp6(weights: Matrix) -> list[Part]:
    """MXFP6: four E2M3 to three bytes, lowest first."""
    codes, exponents = _mx(weights, _E2M3, 2)
    four = codes.reshape(-1, 4).astype(np.uint32)
    words = four[:, 0] | four[:, 1] << 6 | four[:, 2] << 12 | four[:, 3] << 18
    packed = words.astype("<u4").view(np.uint8).reshape(-1, 4)[:, :3]
    return [part("weight", "F6_E2M3", 3, packed), part("scale", "F8_E8M0", 1, exponents)]


def mxfp8(weights: Matrix) -> list[Part]:
    """MXFP8: E4M3, a power of two for each 32."""
    codes, exponents = _mx(weights, fp8_values("F8_E4M3"), 8)
    return [part("weight", "F8_E4M3", 1, codes), part("scale", "F8_E8M0", 1, exponents)]


def nvfp4(weights: Matrix) -> list[Part]:
    """NVFP4: two E2M1 to a U8, an E4M3 scale for each 16, an fp32 scale for the tensor."""
    blocks = weights.reshape(weights.shape[0], -1, 16)
    largest = np.abs(blocks).max(axis=2)
    scale = np.float32(max(largest.max() / (6 * 448), 1e-12))
    codes = fp8_codes(largest / 6 / scale, "F8_E4M3")
    scales = np.maximum(fp8_values("F8_E4M3")[codes], 2.0**-9) * scale
    return [
        part("weight_packed", "U8", 1, _pairs(_nearest(blocks / scales[:, :, None], _E2M1))),
        part("weight_scale", "F8_E4M3", 1, codes),
        part("weight_global_scale", "F32", 4, np.array([scale], "<f4")),
    ]


LAYOUTS: Final[dict[str, Callable[[Matrix], Sequence[Part]]]] = {
    "fp8 e4m3, a scale a tensor": lambda weights: fp8_tensor(weights, "F8_E4M3"),
    "fp8 e4m3, 128 x 128 blocks": lambda weights: fp8_blocks(weights, "F8_E4M3"),
    "fp8 e5m2, a scale a tensor": lambda weights: fp8_tensor(weights, "F8_E5M2"),
    "int8, a scale a row": int8_rows,
    "int4, two a byte": int4_bytes,
    "int4, GPTQ": gptq,
    "int4, AWQ": awq,
    "int4, compressed-tensors": packed_int4,
    "NF4": nf4,
    "MXFP4, gpt-oss": mxfp4_gpt_oss,
    "MXFP4, F4 and F8_E8M0": mxfp4,
    "MXFP6": mxfp6,
    "MXFP8": mxfp8,
    "NVFP4": nvfp4,
}

# --- arithmetic -----------------------------------------------------------------------------------------------

# Magnitudes by code; the sign is the bit above.
_E2M1: Final = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6], np.float32)
_E2M3: Final = np.array(
    [mantissa / 8 for mantissa in range(8)]
    + [(8 + mantissa) / 8 * 2.0**exponent for exponent in range(3) for mantissa in range(8)],
    np.float32,
)
# Dettmers et al., arXiv:2305.14314, appendix E, to the precision that a code needs.
_NF4: Final = np.array(
    [
        *(-1, -0.69619, -0.52507, -0.39492, -0.28444, -0.18477, -0.09105, 0),
        *(0.07958, 0.16093, 0.24611, 0.33792, 0.44071, 0.56262, 0.72296, 1),
    ],
    np.float32,
)


def _bf16(name: str, scales: Array | np.float32) -> Part:
    return part(name, "BF16", 2, to_bf16(np.atleast_1d(scales)))


def _groups(weights: Matrix, group: int, *, symmetric: bool) -> tuple[Array, Array, Array]:
    """Codes 0 to 15 (out, in), and scales and zeros (out, groups)."""
    blocks = weights.reshape(weights.shape[0], -1, group)
    if symmetric:
        scales = np.maximum(np.abs(blocks).max(axis=2) / np.float32(7.5), 1e-12)
        zeros = np.full(scales.shape, 8, np.int32)
    else:
        low, high = np.minimum(blocks.min(axis=2), 0), np.maximum(blocks.max(axis=2), 0)
        scales = np.maximum((high - low) / np.float32(15), 1e-12)
        zeros = np.clip(np.rint(-low / scales), 0, 15).astype(np.int32)
    codes = np.rint(blocks / scales[:, :, None]) + zeros[:, :, None]
    return np.clip(codes, 0, 15).astype(np.uint8).reshape(weights.shape), scales, zeros


def _mx(weights: Matrix, magnitudes: Array, top: int) -> tuple[Array, Array]:
    """Codes and E8M0 exponents by the OCP rule: the block's largest exponent less ``top``, the type's largest."""
    blocks = weights.reshape(weights.shape[0], -1, 32)
    _, exponents = np.frexp(np.abs(blocks).max(axis=2))
    shared = np.clip(exponents - 1 - top, -127, 127)
    codes = _nearest(np.ldexp(blocks, -shared[:, :, None]), magnitudes)
    return codes, (shared + 127).astype(np.uint8)


def _nearest(values: Array, magnitudes: Array) -> Array:
    """Codes of the nearest magnitudes, ties to even codes, the largest for what lies above; signs on top."""
    halfway = (magnitudes[1:] + magnitudes[:-1]) / 2
    sizes = np.abs(values)
    codes = np.searchsorted(halfway, sizes)
    codes += (np.append(halfway, np.inf)[codes] == sizes) & (codes % 2 == 1)
    return (codes | np.signbit(values) * len(_padded(magnitudes))).astype(np.uint8)


def _padded(magnitudes: Array) -> range:
    """As many codes as the bits below the sign can be: E4M3 has a NaN behind its largest."""
    return range(1 << (len(magnitudes) - 1).bit_length())


def _pairs(codes: Array) -> Array:
    """Two codes of four bits to a byte, the first below."""
    flat = codes.reshape(-1)
    packed: Array = flat[0::2] | flat[1::2] << 4
    return packed


def _words(eights: Array) -> Array:
    """Eight codes of four bits, the last axis, to an I32, the first lowest."""
    shifts = np.arange(0, 32, 4, dtype=np.uint32)
    words: Array = np.bitwise_or.reduce(eights.astype(np.uint32) << shifts, axis=-1).astype("<u4")
    return words
