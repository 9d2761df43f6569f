"""Frames of steps: each weight moved up or down by one step of an optimiser, and must come back exactly."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amounts import examples
from codec.inputs import (
    coders,
    decoded,
    pair,
    stepped,
)
from codec.test_reference import check_on_every_isa, fits
from codec.test_sparse import same_on_every_isa
from reference import codec_streams as streams
from reference.codec import AS_STEPS, STEP_TYPES
from reference.codec_elements import TYPES
from reference.codec_sparse_writer import SparseForm, encode_sparse
from reference.codec_writer import DeltaForm
from textnlp_fast.delta import codec

SIZES = {"BF16": (1e-3, 3e-5, 0.01), "F16": (1e-4, 2e-6, 0.01), "F32": (1e-5, 5e-8, 0.3)}


@pytest.mark.parametrize("dtype", STEP_TYPES)
def test_the_encoder_sees_steps(dtype: str) -> None:
    for number, size in enumerate(SIZES[dtype]):
        _, base = pair(dtype, 5000, number, "weights", "same")
        target = stepped(dtype, base, size, number, stay=0.01, odd=0.002)
        payload = same_on_every_isa(target, base, dtype)
        assert coders(payload) == [AS_STEPS]
        assert len(payload) < 5000 / 8 + 5000 * 0.012 * 8 + 500


@settings(max_examples=examples(60), deadline=None)
@given(
    dtype=st.sampled_from(STEP_TYPES),
    base_kind=st.sampled_from(["weights", "specials", "noise", "zeros"]),
    count=st.integers(1, 1500),
    exponent=st.floats(-37, 38),
    seed=st.integers(0, 2**32 - 1),
    mixed=st.tuples(st.sampled_from([0, 0.05]), st.sampled_from([0, 0.02]), st.sampled_from([0, 0.4])),
)
def test_any_step_comes_back(
    dtype: str, base_kind: str, *, count: int, exponent: float, seed: int, mixed: tuple[float, float, float]
) -> None:
    """From tiny to overflowing, on zeros of both signs, subnormals, infinities and NaNs."""
    size = float(np.float32(10.0**exponent))
    _, base = pair(dtype, count, seed, base_kind, "same")
    target = stepped(dtype, base, size, seed, stay=mixed[0], odd=mixed[1], still=mixed[2])
    same_on_every_isa(target, base, dtype)
    if target != base:
        check_step_frame(dtype, target, base, size)


def check_step_frame(dtype: str, target: bytes, base: bytes, size: float) -> None:
    """All elements listed, in one context."""
    coding = DeltaForm(context_base=(1 << TYPES[dtype].exponent) - 1)
    payload = encode_sparse(dtype, target, base, SparseForm(AS_STEPS, coding, 1, step=size))
    if fits(payload):
        check_on_every_isa(payload, target, base)


@pytest.mark.parametrize("dtype", STEP_TYPES)
def test_the_edges_of_steps(dtype: str) -> None:
    """Ties of rounding, the largest number, the smallest, and both zeros, up and down."""
    element = TYPES[dtype]
    mantissa = element.bits - 1 - element.exponent
    one = ((1 << element.exponent - 1) - 1) << mantissa
    largest = (((1 << element.exponent) - 1) << mantissa) - 1
    values = [
        0,
        1,
        2,
        (1 << mantissa) - 1,
        1 << mantissa,
        one - 1,
        one,
        one + 1,
        largest - 1,
        largest,
        largest + 1,
    ]
    top = 1 << element.bits - 1
    base = streams.to_bytes([value | sign for value in values for sign in (0, top)] * 40, element.size)
    half = 2.0 ** -(mantissa + 1)
    sizes = [half, 3 * half, 1.0, 2.0**-126, 2.0**-25, 2.0**-24, 2.0**-14, 16.0, 65504.0, 2.0**120, 2.0**127]
    for number, size in enumerate(sizes):
        target = stepped(dtype, base, size, number)
        same_on_every_isa(target, base, dtype)
        if target != base:
            check_step_frame(dtype, target, base, size)


@contextmanager
def flushing() -> Iterator[None]:
    """Programs that train networks switch subnormals off for a thread: this one, for the block."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor cannot flush subnormals")
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def tiny_steps(dtype: str) -> tuple[bytes, bytes, float]:
    """Target, base and size: subnormals, and the numbers next to them."""
    element = TYPES[dtype]
    rng = np.random.default_rng(5)
    mantissa = element.bits - 1 - element.exponent
    old = rng.integers(0, 8 << mantissa, 3000) | rng.integers(0, 2, 3000) << element.bits - 1
    base = streams.to_bytes(old.tolist(), element.size)
    size = {"F16": 2.0**-16, "BF16": 2.0**-125, "F32": 2.0**-125}[dtype]
    return stepped(dtype, base, size, 1, stay=0.02), base, size


@pytest.mark.parametrize("dtype", STEP_TYPES)
def test_flushing_subnormals_changes_no_tensor(dtype: str) -> None:
    target, base, size = tiny_steps(dtype)
    coding = DeltaForm(contexts=8)
    by_hand = encode_sparse(dtype, target, base, SparseForm(AS_STEPS, coding, 8, step=size))
    for payload in (codec.encode(target, base, dtype=dtype), by_hand):
        assert coders(payload) == [AS_STEPS]
        with flushing():
            found = decoded(payload, len(target), base, threads=1)
        assert found == target


@pytest.mark.parametrize("dtype", STEP_TYPES)
def test_flushing_subnormals_changes_no_frame(dtype: str) -> None:
    target, base, _ = tiny_steps(dtype)
    payload = codec.encode(target, base, dtype=dtype, threads=1)
    with flushing():
        again = codec.encode(target, base, dtype=dtype, threads=1)
    assert again == payload
