"""What the codec's tests feed it: element types, pairs of tensors of every kind, instruction sets."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from reference import codec as reference
from reference.codec_elements import TYPES, ElementType
from reference.codec_sparse import as_single, from_single, step_outcomes
from reference.codec_streams import Bytes, elements, to_bytes
from textnlp_fast import _native
from textnlp_fast.delta import codec

Words = npt.NDArray[Any]
DTYPES: Final = tuple(TYPES)
INTEGER_BYTES: Final = tuple(name for name, one in TYPES.items() if one.size == 1 and one.exponent == 0)
# One that is forced stands alone, as in the fixture `isa`: `make test` has run them all.
ISAS: Final[tuple[str, ...]] = (
    (_native.isa_name(),) if os.environ.get("TEXTNLP_FAST_ISA") else tuple(_native.available_isas())
)
UNSIGNED: Final = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}

# Around a lane's turn, a vector, a small frame, and a page.
COUNTS: Final = (
    0,
    1,
    2,
    15,
    16,
    17,
    31,
    32,
    33,
    63,
    64,
    65,
    127,
    128,
    129,
    255,
    257,
    511,
    1023,
    1024,
    1025,
    2049,
)
FRAME_SIZES: Final = (64, 128, 4096, 1 << 20)


@contextmanager
def forced(isa: str) -> Iterator[None]:
    """Runs the block on one instruction set."""
    before = _native.isa_name()
    assert _native.force_isa(isa)
    try:
        yield
    finally:
        assert _native.force_isa(before)


def decoded(payload: bytes, size: int, base: bytes | None = None, *, threads: int = 1) -> bytes:
    out = bytearray(b"\xa5" * size)
    codec.decode_into(payload, out, base, threads=threads)
    return bytes(out)


def modes(payload: bytes) -> list[str]:
    return [frame.mode for frame in codec.frames(payload)]


def coders(payload: bytes) -> list[int]:
    """How the sparse and learned frames of a payload tell their elements."""
    at = 0
    found = []
    for one in codec.frames(payload):
        if one.mode == "sparse":
            found.append(payload[reference.read_header(Bytes(payload, at, len(payload))).body])
        elif one.mode == "learned":
            found.append(reference.BY_BITS)
        at += one.encoded_bytes
    return found


# --- tensors ------------------------------------------------------------------------------------------------


def noise(rng: np.random.Generator, count: int, element: ElementType) -> Words:
    return rng.integers(0, 256, count * element.size, dtype=np.uint8).view(UNSIGNED[element.size])


def weights(rng: np.random.Generator, count: int, element: ElementType) -> Words:
    """Bits of normally distributed weights; small integers where the type has no exponent."""
    values = rng.normal(0, 0.02, count)
    unsigned = UNSIGNED[element.size]
    if element.exponent == 0:
        return np.rint(values * 1000).astype(np.int64).astype(unsigned)
    if element.size == 8:
        return values.view(np.uint64)
    if element.number == TYPES["F16"].number:
        return values.astype(np.float16).view(np.uint16)
    if element.size == 1:
        # Sign, exponent and the top mantissa bits of a half stand in for the two eight-bit formats.
        half = (values * 16).astype(np.float16).view(np.uint16)
        if element.exponent == 5:
            return (half >> 8).astype(np.uint8)
        exponent = np.clip((half >> 10 & 31).astype(np.int32) - 8, 0, 15)
        return (half >> 15 << 7 | exponent.astype(np.uint16) << 3 | half >> 7 & 7).astype(np.uint8)
    single = values.astype(np.float32).view(np.uint32)
    return single if element.size == 4 else (single >> 16).astype(np.uint16)


def specials(rng: np.random.Generator, count: int, element: ElementType) -> Words:
    """Zeros of both signs, infinities, NaNs with payloads, subnormals, the extremes and their neighbours."""
    top = 1 << (element.bits - 1)
    mantissa = element.bits - 1 - element.exponent
    infinity = ((1 << element.exponent) - 1) << mantissa
    quiet = 1 << (mantissa - 1)
    values = [
        0,
        1,
        2,
        top - 1,
        top - 2,
        quiet,
        infinity,
        infinity + 1,
        infinity - 1,
        infinity | quiet,
        infinity | 5,
    ]
    both = [value % top for value in values] + [value % top + top for value in values]
    return rng.choice(np.array(both, dtype=np.uint64), count).astype(UNSIGNED[element.size])


def steps(base: Words, changed: npt.NDArray[np.bool_], most: int, rng: np.random.Generator) -> Words:
    moves = rng.integers(-most, most + 1, len(base)) * changed
    return (base.astype(np.uint64) + moves.astype(np.int64).view(np.uint64)).astype(base.dtype)


def sparse(base: Words, rng: np.random.Generator) -> Words:
    return steps(base, rng.random(len(base)) < rng.choice([0.001, 0.01, 0.1]), 3, rng)


def dense(base: Words, rng: np.random.Generator) -> Words:
    return steps(base, np.ones(len(base), dtype=np.bool_), int(rng.choice([1, 4, 40])), rng)


def wide(base: Words, rng: np.random.Generator) -> Words:
    """Residuals of every magnitude."""
    bits = base.dtype.itemsize * 8
    size = rng.integers(0, bits, len(base)).astype(np.uint64)
    move = rng.integers(0, 1 << 63, len(base), dtype=np.uint64) >> (np.uint64(63) - size)
    narrow = move.astype(base.dtype)
    narrow[rng.random(len(base)) < 0.5] *= base.dtype.type(2**bits - 1)
    out: Words = base + narrow
    return out


def nibbles(base: Words, rng: np.random.Generator) -> Words:
    """Packed numbers of four bits, a third of which move, each by itself."""
    moves = rng.integers(-3, 4, (base.nbytes, 2)) * (rng.random((base.nbytes, 2)) < 1 / 3)
    out: Words = (base.view(np.uint8) + (moves @ [16, 1]).astype(np.uint8)).view(base.dtype)
    return out


def half_same(base: Words, rng: np.random.Generator) -> Words:
    middle = len(base) // 2
    return np.concatenate([base[:middle], noise_like(base[middle:], rng)])


def noise_like(base: Words, rng: np.random.Generator) -> Words:
    data: Words = rng.integers(0, 256, base.nbytes, dtype=np.uint8)
    out: Words = data.view(base.dtype)
    return out


def flipped_signs(base: Words, rng: np.random.Generator) -> Words:
    top = base.dtype.type(1 << (base.dtype.itemsize * 8 - 1))
    out: Words = base.copy()
    out[rng.random(len(base)) < 0.5] ^= top
    return out


def one_changed(base: Words, rng: np.random.Generator) -> Words:
    out: Words = base.copy()
    if len(out):
        out[rng.integers(0, len(out))] ^= out.dtype.type(1)
    return out


def ends_changed(base: Words, rng: np.random.Generator) -> Words:
    out: Words = base.copy()
    if len(out):
        out[0] ^= out.dtype.type(3)
        out[-1] ^= out.dtype.type(3)
    return out


def some_blocks(base: Words, rng: np.random.Generator) -> Words:
    """Whole blocks of a sparse frame stay."""
    blocks = rng.random(len(base) // 512 + 1) < 0.4
    return steps(base, np.repeat(blocks, 512)[: len(base)] & (rng.random(len(base)) < 0.5), 3, rng)


BASES: Final[dict[str, Callable[[np.random.Generator, int, ElementType], Words]]] = {
    "weights": weights,
    "noise": noise,
    "specials": specials,
    "zeros": lambda rng, count, element: np.zeros(count, dtype=UNSIGNED[element.size]),
    "constant": lambda rng, count, element: np.full(count, noise(rng, 1, element)[0]),
}
CHANGES: Final[dict[str, Callable[[Words, np.random.Generator], Words]]] = {
    "same": lambda base, rng: base.copy(),
    "sparse": sparse,
    "rare": lambda base, rng: steps(base, rng.random(len(base)) < 1 / 400, 9, rng),
    "some_blocks": some_blocks,
    "dense": dense,
    "wide": wide,
    "nibbles": nibbles,
    "half_same": half_same,
    "other": noise_like,
    "flipped_signs": flipped_signs,
    "one_changed": one_changed,
    "ends_changed": ends_changed,
    "to_zero": lambda base, rng: np.zeros_like(base),
}


def pair(
    dtype: str, count: int, seed: int, base_kind: str = "weights", change: str = "sparse"
) -> tuple[bytes, bytes]:
    """Target and base of ``count`` elements."""
    rng = np.random.default_rng(seed)
    base = BASES[base_kind](rng, count, TYPES[dtype])
    return CHANGES[change](base, rng).astype(base.dtype).tobytes(), base.tobytes()


def stepped(
    dtype: str, base: bytes, size: float, seed: int = 0, *, stay: float = 0, odd: float = 0, still: float = 0
) -> bytes:
    """One step of ``size`` up or down from each number. Some stay, some are odd, some blocks are still."""
    rng = np.random.default_rng(seed)
    element = TYPES[dtype]
    old = elements(base, element.size)
    quiet = rng.random(len(old) // 512 + 1) < still
    new = []
    for index, (before, both) in enumerate(zip(old, step_outcomes(old, dtype, size), strict=True)):
        kind = rng.random()
        value = both[int(rng.integers(0, 2))]
        if kind < stay or quiet[index // 512]:
            value = before
        elif kind < stay + odd:
            value = int(rng.integers(0, 1 << element.bits))
        new.append(value)
    return to_bytes(new, element.size)


def late_step(count: int) -> tuple[bytes, bytes]:
    """BF16 weights whose update is far below the spacing of most: small ones move, by a step or two."""
    rng = np.random.default_rng(count)
    base = from_single(rng.normal(0, 0.02, count).astype(np.float32), "BF16")
    moved = as_single(base, "BF16") + rng.normal(0, 1e-6, count).astype(np.float32)
    return tuple(words.astype(np.uint16).tobytes() for words in (from_single(moved, "BF16"), base))


@st.composite
def pairs(draw: st.DrawFn, *, counts: st.SearchStrategy[int] | None = None) -> tuple[str, bytes, bytes]:
    """Dtype, target, base: a kind of tensor with a kind of change, or two arbitrary byte strings."""
    dtype = draw(st.sampled_from(DTYPES))
    size = TYPES[dtype].size
    if draw(st.integers(0, 4)) == 0:
        count = draw(st.integers(0, 48))
        whole = st.binary(min_size=count * size, max_size=count * size)
        return dtype, draw(whole), draw(whole)
    count = draw(counts if counts is not None else st.one_of(st.sampled_from(COUNTS), st.integers(0, 3000)))
    target, base = pair(
        dtype,
        count,
        draw(st.integers(0, 2**32 - 1)),
        draw(st.sampled_from(sorted(BASES))),
        draw(st.sampled_from(sorted(CHANGES))),
    )
    return dtype, target, base
