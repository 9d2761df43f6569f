"""Merges made here are found again at every rank, dtype and rounding; what is no merge is refused and costs little."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from textnlp_fast.delta import codec, low_rank, low_rank_planning
from textnlp_fast.delta.low_rank import Factors
from textnlp_fast.delta.low_rank_detection import detect_rank
from textnlp_fast.delta.low_rank_planning import LowRankPlan, coded_bytes, plan_low_rank
from textnlp_fast.delta.rounding_intervals import Words, intervals_of, widened, words_of
from textnlp_fast.errors import InvalidInputError

WORD = {"BF16": np.uint16, "F16": np.uint16, "F32": np.uint32}


def to_words(values: Any, dtype: str) -> Words:
    """Numbers rounded to a dtype, ties to even."""
    singles = values.astype(np.float32)
    if dtype == "F16":
        return np.asarray(singles.astype(np.float16).view(np.uint16))
    bits = singles.view(np.uint32)
    if dtype == "F32":
        return np.asarray(bits)
    return np.asarray(((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16))


def merge(
    rows: int, columns: int, rank: int, *,
    dtype: str = "BF16", rounding: str = "once", size: float = 0.002, seed: int = 1,
) -> tuple[bytes, bytes, Factors]:  # fmt: skip
    """Base, target and the fp32 factors that were merged: changes of about ``size`` in weights of about 0.04."""
    rng = np.random.default_rng(seed)
    spread = rng.gamma(4, 0.25, (rows, 1))
    base = to_words(rng.normal(0, 0.04, (rows, columns)) * spread, dtype).tobytes()
    decay = np.linspace(1, 0.3, rank)[:, None]
    a = (rng.normal(0, 0.05, (rank, columns)) * decay).astype(np.float32)
    b = rng.normal(0, size / 0.05 / rank**0.5 / 2 / 0.7, (rows, rank)).astype(np.float32)
    factors = Factors(rows, columns, rank, 2.0, a.tobytes(), b.tobytes(), "F32", "F32", rounding)
    return base, low_rank.predict(base, factors, dtype=dtype), factors


def restored(base: bytes, target: bytes, plan: LowRankPlan, dtype: str) -> bytes:
    """The target as a reader makes it: prediction, then the residual's frames."""
    made = low_rank.predict(base, plan.factors, dtype=dtype)
    payload = codec.encode(target, made, dtype=dtype)
    out = bytearray(len(target))
    codec.decode_into(payload, out, made)
    assert len(payload) == plan.residual_bytes
    return bytes(out)


def missed(base: bytes, target: bytes, plan: LowRankPlan, dtype: str) -> float:
    made = low_rank.predict(base, plan.factors, dtype=dtype)
    return float(np.mean(words_of(made, dtype) != words_of(target, dtype)))


# --- found --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["BF16", "F16"])
@pytest.mark.parametrize("rank", [1, 4, 16])
def test_a_merge_is_found(dtype: str, rank: int) -> None:
    base, target, _ = merge(256, 320, rank, dtype=dtype)
    plan = plan_low_rank(base, target, (256, 320), dtype)
    assert plan is not None and plan.factors.rank == rank
    assert restored(base, target, plan, dtype) == target
    # Coded alone, factors and residual are what the plan says, and most of the change is in the factors.
    assert plan.a_bytes == len(codec.encode(plan.factors.a, dtype="I16"))
    assert plan.total_bytes < 0.5 * plan.dense_bytes
    assert missed(base, target, plan, dtype) < 0.05
    assert not plan.stopped_early


def test_fp32_weights_are_found_too() -> None:
    base, target, _ = merge(192, 200, 3, dtype="F32")
    plan = plan_low_rank(base, target, (192, 200), "F32")
    assert plan is not None
    assert restored(base, target, plan, "F32") == target
    assert plan.total_bytes < 0.7 * plan.dense_bytes


def test_a_rank_above_the_newton_steps() -> None:
    base, target, _ = merge(512, 448, 48, size=0.004)
    plan = plan_low_rank(base, target, (512, 448), "BF16", effort="fast")
    assert plan is not None and plan.factors.rank == 48
    assert restored(base, target, plan, "BF16") == target


def test_a_merge_that_rounds_its_product_first_is_recognised() -> None:
    base, target, _ = merge(320, 320, 8, rounding="delta", size=0.01)
    plan = plan_low_rank(base, target, (320, 320), "BF16")
    assert plan is not None and plan.factors.rounding == "delta"
    assert missed(base, target, plan, "BF16") < 0.02


def test_more_effort_is_no_worse() -> None:
    base, target, _ = merge(256, 384, 8)
    sizes = []
    for effort in ("fast", "default", "max"):
        plan = plan_low_rank(base, target, (256, 384), "BF16", effort=effort)
        assert plan is not None
        sizes.append(plan.total_bytes)
    assert sizes[2] <= sizes[1] <= sizes[0]


def test_a_large_matrix_is_fitted_on_some_of_its_rows() -> None:
    """More rows than the effort samples: A from the sample, B for every row."""
    rows, columns = 4400, 256
    base, target, _ = merge(rows, columns, 4)
    plan = plan_low_rank(base, target, (rows, columns), "BF16", effort="fast")
    assert plan is not None and plan.factors.rank == 4
    assert restored(base, target, plan, "BF16") == target
    assert missed(base, target, plan, "BF16") < 0.1
    assert plan.total_bytes < 0.3 * plan.dense_bytes


def test_the_same_call_gives_the_same_factors() -> None:
    base, target, _ = merge(256, 256, 4)
    first, second = (plan_low_rank(base, target, (256, 256), "BF16") for _ in range(2))
    assert first == second


def test_a_time_budget_ends_early_and_says_so() -> None:
    base, target, _ = merge(256, 256, 4)
    plan = plan_low_rank(base, target, (256, 256), "BF16", effort="max", time_budget_s=0)
    assert plan is not None and plan.stopped_early
    assert restored(base, target, plan, "BF16") == target


@pytest.mark.parametrize("special", [0x7F80, 0xFF80, 0x7FC1, 0x7F7F, 0xFF7F])
def test_weights_that_are_no_numbers_disturb_nothing(special: int) -> None:
    """Infinities, NaNs and the largest numbers, which a merge leaves as they are."""
    base, target, _ = merge(256, 256, 4)
    before, after = (np.frombuffer(data, dtype=np.uint16).copy() for data in (base, target))
    before[5:4000:97] = after[5:4000:97] = special
    plan = plan_low_rank(before.tobytes(), after.tobytes(), (256, 256), "BF16")
    # Where nothing is known of 42 weights, a component or two may be spent on them.
    assert plan is not None and 4 <= plan.factors.rank <= 8
    assert restored(before.tobytes(), after.tobytes(), plan, "BF16") == after.tobytes()
    assert missed(base, target, plan, "BF16") < 0.05


@pytest.mark.parametrize("special", [0x7F80, 0x7FC1, 0x7F7F, 0x8000, 0x0001])
def test_weights_that_no_merge_made_are_survived(special: int) -> None:
    base, target, _ = merge(160, 160, 4)
    before, after = (np.frombuffer(data, dtype=np.uint16).copy() for data in (base, target))
    before[5:1500:97] = special
    after[9:4000:89] = special
    plan = plan_low_rank(before.tobytes(), after.tobytes(), (160, 160), "BF16")
    assert plan is None or restored(before.tobytes(), after.tobytes(), plan, "BF16") == after.tobytes()


# --- a known adapter ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("rounding", low_rank.ROUNDINGS)
def test_a_stored_adapter_leaves_nothing_but_headers(rounding: str) -> None:
    base, target, factors = merge(256, 256, 8, rounding=rounding, size=0.01)
    given = Factors(256, 256, 8, 2.0, factors.a, factors.b, "F32", "F32")
    plan = plan_low_rank(base, target, (256, 256), "BF16", adapter=given, adapter_stored=True)
    assert plan is not None and (plan.a_bytes, plan.b_bytes) == (0, 0)
    # A scale of a power of two: rounding the product and rounding it scaled are one.
    assert plan.factors.rounding == ("delta" if rounding == "steps" else rounding)
    assert 8 * plan.residual_bytes / (256 * 256) < 0.01
    assert missed(base, target, plan, "BF16") == 0


def test_an_adapter_that_was_cast_before_the_merge_is_recognised() -> None:
    base, _, factors = merge(256, 256, 8, size=0.01)
    a, b = (np.frombuffer(part, dtype=np.float32) for part in (factors.a, factors.b))
    cast = Factors(
        256,
        256,
        8,
        2.0,
        to_words(a, "BF16").tobytes(),
        to_words(b, "BF16").tobytes(),
        "BF16",
        "BF16",
        "delta",
    )
    target = low_rank.predict(base, cast, dtype="BF16")
    plan = plan_low_rank(base, target, (256, 256), "BF16", adapter=factors)
    assert plan is not None and plan.factors == cast
    assert missed(base, target, plan, "BF16") == 0


def test_an_adapter_that_is_not_stored_may_be_held_more_cheaply() -> None:
    base, target, factors = merge(256, 256, 8)
    plan = plan_low_rank(base, target, (256, 256), "BF16", adapter=factors)
    assert plan is not None
    own = coded_bytes(factors.a, None, "F32") + coded_bytes(factors.b, None, "F32")
    assert plan.total_bytes < own
    assert restored(base, target, plan, "BF16") == target


def test_a_wrong_adapter_is_not_used() -> None:
    base, target, _ = merge(256, 256, 2)
    _, _, other = merge(256, 256, 2, seed=9)
    assert plan_low_rank(base, target, (256, 256), "BF16", adapter=other) is None


def test_an_adapter_with_infinite_factors_is_survived() -> None:
    base, target, factors = merge(64, 64, 2)
    bad = Factors(64, 64, 2, 2.0, np.full(128, np.inf, np.float32).tobytes(), factors.b, "F32", "F32")
    assert plan_low_rank(base, target, (64, 64), "BF16", adapter=bad) is None


# --- refused ------------------------------------------------------------------------------------------------


def dense_step(kind: str) -> tuple[bytes, bytes]:
    """Both ends of a step that is no merge; master weights in fp32 are kept beside."""
    rng = np.random.default_rng(3)
    master = rng.normal(0, 0.04, (512, 512))
    if kind == "dense":
        after = master + rng.normal(0, 0.001, master.shape)
    elif kind == "correlated":  # as gradients are: a decaying spectrum without an end
        left, right = (
            np.linalg.qr(rng.normal(size=(512, 512)))[0],
            np.linalg.qr(rng.normal(size=(512, 512)))[0],
        )
        after = master + (left * (0.1 / np.arange(1, 513) ** 0.7)) @ right
    elif kind == "sparse":
        after = master + rng.normal(0, 0.001, master.shape) * (rng.random(master.shape) < 0.01)
    elif kind == "small":
        after = master + rng.normal(0, 2e-5, master.shape)
    else:
        after = master
    return to_words(master, "BF16").tobytes(), to_words(after, "BF16").tobytes()


@pytest.mark.parametrize("kind", ["dense", "correlated", "sparse", "small", "same"])
def test_what_is_no_merge_is_refused(kind: str) -> None:
    base, target = dense_step(kind)
    assert plan_low_rank(base, target, (512, 512), "BF16") is None


def test_a_refusal_fits_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fit takes a hundred times as long as the look that decides whether to try one."""

    def fit(*_arguments: Any, **_options: Any) -> Any:
        raise AssertionError("a fit was tried")

    monkeypatch.setattr(low_rank_planning, "_fitted", fit)
    for kind in ("dense", "correlated"):
        base, target = dense_step(kind)
        assert plan_low_rank(base, target, (512, 512), "BF16") is None
    base, target, _ = merge(64, 64, 4)
    with pytest.raises(AssertionError, match="a fit was tried"):
        plan_low_rank(base, target, (64, 64), "BF16")


def test_noise_on_a_merge_is_refused_or_still_exact() -> None:
    base, target, _ = merge(256, 256, 4)
    values = widened(words_of(target, "BF16"), "BF16")
    for noise in (1e-5, 1e-4, 1e-3):
        moved = to_words(values + np.random.default_rng(1).normal(0, noise, values.shape), "BF16").tobytes()
        plan = plan_low_rank(base, moved, (256, 256), "BF16")
        assert plan is None or (
            restored(base, moved, plan, "BF16") == moved and plan.total_bytes < plan.dense_bytes
        )


@pytest.mark.parametrize("shape", [(1, 4096), (4096, 1), (2, 3), (1, 1), (0, 5), (5, 0)])
def test_shapes_with_nothing_to_gain(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(2)
    base, target = (rng.integers(0, 1 << 16, shape, dtype=np.uint16).tobytes() for _ in range(2))
    assert plan_low_rank(base, target, shape, "BF16") is None


def test_any_bits_are_survived() -> None:
    rng = np.random.default_rng(4)
    for dtype in ("BF16", "F16", "F32"):
        base, target = (rng.integers(0, 256, 64 * 64 * 4, dtype=np.uint8).tobytes() for _ in range(2))
        columns = len(base) // 64 // np.dtype(WORD[dtype]).itemsize
        assert plan_low_rank(base, target, (64, columns), dtype) is None


def test_calls_that_do_not_fit() -> None:
    base, target, factors = merge(64, 64, 1)
    with pytest.raises(InvalidInputError, match="elements"):
        plan_low_rank(base, target, (64, 65), "BF16")
    with pytest.raises(InvalidInputError, match="elements"):
        plan_low_rank(base[:-2], target, (64, 64), "BF16")
    with pytest.raises(InvalidInputError, match="I8"):
        plan_low_rank(base, target, (64, 128), "I8")
    with pytest.raises(InvalidInputError, match="most"):
        plan_low_rank(base, target, (64, 64), "BF16", effort="most")
    with pytest.raises(InvalidInputError, match="64 x 64"):
        plan_low_rank(base, target, (32, 128), "BF16", adapter=factors)


# --- intervals ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rounding", ["once", "delta"])
@pytest.mark.parametrize("dtype", ["BF16", "F16"])
def test_intervals_hold_the_changes_that_round_to_the_target(dtype: str, rounding: str) -> None:
    """Every merged change lies in its interval; one just outside rounds to something else."""
    base, target, factors = merge(64, 200, 3, dtype=dtype, rounding=rounding, size=0.02)
    before, after = (words_of(data, dtype).reshape(64, 200) for data in (base, target))
    a, b = (np.frombuffer(part, dtype=np.float32).astype(np.float64) for part in (factors.a, factors.b))
    truth = 2 * b.reshape(64, 3) @ a.reshape(3, 200)
    intervals = intervals_of(before, after, dtype, rounding=rounding)
    # Bounds are fp32, and the merge adds in fp32.
    slack = 1e-3 * intervals.width + 2e-8
    assert ((truth >= intervals.low - slack) & (truth <= intervals.high + slack)).all()
    start = widened(before, dtype)

    def rounded(change: Any) -> Words:
        if rounding == "delta":
            change = widened(to_words(change, dtype), dtype)
        return to_words(start + change, dtype)

    for outside in (intervals.low - slack, intervals.high + slack):
        assert (rounded(outside.astype(np.float64)) != after).mean() > 0.99
    for inside in (intervals.low + slack, intervals.high - slack):
        assert (rounded(inside.astype(np.float64)) == after).mean() > 0.99


def test_the_rank_of_a_sample_is_that_of_the_whole() -> None:
    for rank in (2, 32, 100):
        base, target, _ = merge(900, 700, rank, size=0.02)
        found = detect_rank(*(words_of(data, "BF16").reshape(900, 700) for data in (base, target)), "BF16")
        assert abs(found - rank) <= rank // 20
