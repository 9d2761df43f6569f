"""The recipe against a reference in exact arithmetic, on every instruction set, in any stretch, on any threads."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reference import low_rank as reference
from reference.low_rank_inputs import WORD, made
from textnlp_fast import _native
from textnlp_fast.delta import low_rank
from textnlp_fast.delta.low_rank import FACTOR_DTYPES, RESULT_DTYPES, ROUNDINGS, Factors
from textnlp_fast.errors import InvalidInputError

ISAS = _native.available_isas()


def values(data: bytes, dtype: str) -> list[reference.Value]:
    words = np.frombuffer(data, dtype=WORD[dtype]).tolist()
    return [Fraction(w) if dtype.startswith("I") else reference.decoded(w, dtype) for w in words]


def expected(base: bytes, factors: Factors, dtype: str) -> bytes:
    a, b = values(factors.a, factors.a_dtype), values(factors.b, factors.b_dtype)
    scale = reference.decoded(factors.scale_bits, "F32")
    words = np.frombuffer(base, dtype=WORD[dtype]).tolist()
    out = [
        reference.element(
            word,
            a[index % factors.columns :: factors.columns],
            b[index // factors.columns * factors.rank :][: factors.rank],
            scale,
            dtype,
            factors.rounding,
        )
        for index, word in enumerate(words)
    ]
    return np.array(out, dtype=WORD[dtype]).tobytes()


@settings(max_examples=40)
@given(
    rows=st.integers(1, 3),
    columns=st.one_of(st.integers(1, 40), st.sampled_from([129, 145])),
    rank=st.integers(1, 4),
    seed=st.integers(0, 2**32),
    kinds=st.tuples(
        *(st.sampled_from(k) for k in (RESULT_DTYPES, tuple(FACTOR_DTYPES), tuple(FACTOR_DTYPES)))
    ).map(" ".join),
    rounding=st.sampled_from(ROUNDINGS),
    scale=st.floats(width=32, allow_nan=False, allow_infinity=False),
    strange=st.booleans(),
)
def test_every_set_gives_the_exact_result(
    rows: int, columns: int, rank: int, seed: int, kinds: str, rounding: str, scale: float, strange: bool
) -> None:
    base, factors = made(
        rows, columns, rank, seed, kinds=kinds, rounding=rounding, scale=scale, strange=strange
    )
    dtype = kinds.split(maxsplit=1)[0]
    wanted = expected(base, factors, dtype)
    before = _native.isa_name()
    try:
        for isa in ISAS:
            assert _native.force_isa(isa)
            assert low_rank.predict(base, factors, dtype=dtype, threads=1) == wanted, isa
    finally:
        assert _native.force_isa(before)


@pytest.mark.parametrize("dtype", RESULT_DTYPES)
def test_ties_subnormals_and_overflow(isa: str, dtype: str) -> None:
    """Neighbours of every power of two, moved by fractions of their step: where rounding is decided."""
    width = np.dtype(WORD[dtype]).itemsize * 8
    exponent_bits, mantissa_bits = reference.FORMATS[dtype]
    words = [
        sign | exponent << mantissa_bits | mantissa
        for sign in (0, 1 << (width - 1))
        for exponent in sorted(
            {0, 1, 2, 15, 30, (1 << exponent_bits) - 2, (1 << exponent_bits) - 1, (1 << exponent_bits) // 2}
        )
        if exponent < 1 << exponent_bits
        for mantissa in (0, 1, 2, (1 << mantissa_bits) - 1, (1 << mantissa_bits) - 2)
    ]
    base = np.array(words, dtype=WORD[dtype])
    step = 2.0 ** -(mantissa_bits + 1)
    a = np.array([step, 1.0], dtype=np.float32).repeat(len(base)).reshape(2, -1)
    for power in (-126, -15, 0, 15, 126):
        b = np.array([[1.0, step / 4], [-1.0, 0.0], [3.0, -step]], dtype=np.float32)
        factors = Factors(3, len(base), 2, 2.0**power, a.tobytes(), b.tobytes(), "F32", "F32")
        whole = np.tile(base, 3).tobytes()
        assert low_rank.predict(whole, factors, dtype=dtype) == expected(whole, factors, dtype)


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("dtype", RESULT_DTYPES)
def test_large_matrices_agree_on_all_sets_and_threads(dtype: str, rounding: str) -> None:
    base, factors = made(301, 1333, 17, 5, kinds=f"{dtype} F16 I16", rounding=rounding, scale=0.3)
    before = _native.isa_name()
    try:
        results = set()
        for isa in ISAS:
            assert _native.force_isa(isa)
            results |= {low_rank.predict(base, factors, dtype=dtype, threads=threads) for threads in (1, 3)}
        assert len(results) == 1
    finally:
        assert _native.force_isa(before)


@settings(max_examples=40)
@given(st.data())
def test_any_stretch_can_be_made_alone(data: st.DataObject) -> None:
    rows, columns = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 300))
    base, factors = made(rows, columns, data.draw(st.sampled_from([1, 5, 64])), 7)
    whole = low_rank.predict(base, factors, dtype="BF16")
    begin = data.draw(st.integers(0, rows * columns))
    end = data.draw(st.integers(begin, rows * columns))
    out = bytearray(base)
    part = memoryview(out)[begin * 2 : end * 2]
    low_rank.predict_into(bytes(part), part, factors, dtype="BF16", first_element=begin)
    assert out == base[: begin * 2] + whole[begin * 2 : end * 2] + base[end * 2 :]


def test_in_place_and_unaligned() -> None:
    base, factors = made(33, 77, 6, 11)
    whole = low_rank.predict(base, factors, dtype="BF16")
    held = bytearray(b"x" + base)
    inside = memoryview(held)[1:]
    low_rank.predict_into(inside, inside, factors, dtype="BF16")
    assert bytes(inside) == whole


def test_a_very_high_rank_and_a_single_row(isa: str) -> None:
    base, factors = made(1, 3, 300, 3, scale=1.0)
    assert low_rank.predict(base, factors, dtype="BF16") == expected(base, factors, "BF16")


def test_subnormals_stay_where_the_thread_flushes_them() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    tiny = np.full(64, 2.0**-140, dtype=np.float32)
    factors = Factors(1, 64, 1, 1.0, tiny.tobytes(), np.float32([0.5]).tobytes(), "F32", "F32")
    base = np.full(64, 2.0**-141, dtype=np.float32).tobytes()
    wanted = np.full(64, 2.0**-140, dtype=np.float32).tobytes()
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor does not flush subnormals")
    try:
        assert low_rank.predict(base, factors, dtype="F32", threads=1) == wanted
        assert low_rank.predict(base, factors, dtype="F32", threads=2) == wanted
        # The caller's own setting is as it was.
        assert float(torch.tensor(2.0**-140) * 0.5) == 0.0
    finally:
        torch.set_flush_denormal(False)


def test_it_is_the_merge_that_torch_makes() -> None:
    """fp32 factors, 16 and 8 ranks: the usual expression, bit for bit where its matmul adds in order of k."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    generator = torch.Generator().manual_seed(1)
    weight = (torch.randn(96, 80, generator=generator) * 0.03).bfloat16()
    a, b = torch.randn(16, 80, generator=generator) * 0.1, torch.randn(96, 16, generator=generator) * 0.1
    product = torch.zeros(96, 80)
    for k in range(16):
        product = torch.addcmul(product.double(), b[:, k : k + 1].double(), a[k : k + 1].double()).float()
    merged = (weight.float() + 0.3 * product).bfloat16()
    stepped = (weight + (0.3 * product).bfloat16()).contiguous()
    for rounding, wanted in (("once", merged), ("delta", stepped)):
        factors = Factors(96, 80, 16, 0.3, a.numpy().tobytes(), b.numpy().tobytes(), "F32", "F32", rounding)
        made_here = low_rank.predict(weight.view(torch.int16).numpy().tobytes(), factors, dtype="BF16")
        found = np.frombuffer(made_here, dtype=np.int16)
        # A double's fused multiply-add may round twice: a few elements in a million.
        assert (found != wanted.view(torch.int16).numpy().reshape(-1)).mean() < 1e-3


# --- refused ------------------------------------------------------------------------------------------------


def native(**changes: Any) -> None:
    """The core's own checks, behind those of ``Factors``."""
    base: npt.NDArray[np.uint16] = np.zeros(12, dtype=np.uint16)
    call: dict[str, Any] = {"base": base, "out": base, "dtype": 9, "rounding": 0, "begin": 0, "threads": 1}
    call |= {"a": bytes(16 * 2), "a_dtype": 12, "b": bytes(12 * 2), "b_dtype": 12}
    call |= {"rows": 3, "columns": 4, "rank": 2, "scale": 1.0}
    _native.low_rank_into(**(call | changes))


def test_what_the_core_accepts() -> None:
    native()
    native(begin=12, base=b"", out=bytearray())


@pytest.mark.parametrize(
    "changes",
    [
        {"dtype": 10},
        {"dtype": 15},
        {"dtype": 99},
        {"a_dtype": 13},
        {"b_dtype": 0},
        {"b_dtype": 16},
        {"a": bytes(31)},
        {"b": bytes(25)},
        {"rank": 0},
        {"rank": 65537},
        {"rank": 2**63},
        {"rows": 0},
        {"columns": 0},
        {"rows": 2**62, "rank": 2},
        {"rows": 2**32, "columns": 2**32},
        {"scale": float("nan")},
        {"scale": float("inf")},
        {"rounding": 3},
        {"begin": 1},
        {"begin": 2**64 - 1},
        {"base": bytes(22)},
        {"base": bytes(23), "out": bytearray(23)},
    ],
)
def test_the_core_refuses_what_does_not_fit(changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        native(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"rank": 3},
        {"rank": 0, "a": b"", "b": b""},
        {"a_dtype": "F64"},
        {"b_dtype": "U8"},
        {"rounding": "twice"},
        {"scale": float("nan")},
        {"scale": 1e39},
        {"a": b""},
    ],
)
def test_factors_that_do_not_fit_are_refused(changes: dict[str, Any]) -> None:
    right: dict[str, Any] = {"rows": 3, "columns": 4, "rank": 2, "scale": 1.0}
    right |= {"a": bytes(32), "b": bytes(24), "a_dtype": "F32", "b_dtype": "F32"}
    Factors(**right)
    with pytest.raises(InvalidInputError):
        Factors(**(right | changes))


def test_factors_that_no_reader_holds_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="at most"):
        Factors(1, (1 << 24) + 1, 16, 1.0, b"", bytes(16), "I8", "I8")


def test_dtypes_and_places_that_do_not_exist() -> None:
    base, factors = made(2, 3, 1, 1)
    with pytest.raises(InvalidInputError, match="F64"):
        low_rank.predict(base, factors, dtype="F64")
    with pytest.raises(InvalidInputError, match="-1"):
        low_rank.predict(base, factors, dtype="BF16", first_element=-1)
    with pytest.raises(InvalidInputError, match="outside"):
        low_rank.predict(base, factors, dtype="BF16", first_element=1)
