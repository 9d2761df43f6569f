"""Whether a tensor's change is stored as factors and a residual, and as which: data in, a plan out.

The plan's sizes are those of real payloads, coded window by window; the factors' own count in. Nothing is stored here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from textnlp_fast.delta import codec, low_rank
from textnlp_fast.delta.low_rank import Factors
from textnlp_fast.delta.low_rank_detection import detect_rank, evenly
from textnlp_fast.delta.low_rank_recovery import (
    Clock,
    Effort,
    Fit,
    effort_of,
    fit,
    fixed_point,
    single_precision,
)
from textnlp_fast.delta.rounding_intervals import FREE, Words, widened, words_of
from textnlp_fast.errors import InvalidInputError

__all__ = ["LowRankPlan", "coded_bytes", "plan_low_rank"]

_WINDOW_BYTES: Final = 16 << 20
# Bits of a factor element that no rounding of factors goes below while the residual stays small.
_LEAST_FACTOR_BITS: Final = 9
# Misses after the fit from which a merge may have rounded its product first.
_MANY_MISSES: Final = 0.005
# Elements on which the forms of a known adapter are compared.
_TRIAL_ROWS: Final = 64


@dataclass(frozen=True, slots=True)
class LowRankPlan:
    """Factors, and what storing a tensor with them takes, in bytes of coded payload.

    ``dense_bytes`` is what the tensor takes against its base without them. ``stopped_early``: the time budget ended
    before the effort's rounds did, so another run may find others.
    """

    factors: Factors
    a_bytes: int
    b_bytes: int
    residual_bytes: int
    dense_bytes: int
    stopped_early: bool

    @property
    def total_bytes(self) -> int:
        return self.a_bytes + self.b_bytes + self.residual_bytes


def plan_low_rank(
    base: Any,
    target: Any,
    shape: tuple[int, int],
    dtype: str,
    *,
    adapter: Factors | None = None,
    adapter_stored: bool = False,
    effort: str = "default",
    time_budget_s: float | None = None,
    dense_bytes: int | None = None,
    threads: int = 0,
) -> LowRankPlan | None:
    """Plan a rows x columns tensor as base + scale * B A and a residual, or None if it is smaller without.

    ``base`` and ``target`` are buffers of its bytes. ``adapter`` gives the factors that were merged, where known; the
    plan may hold them in another form, if that is smaller in all. ``adapter_stored``: the reader has them, so that
    their own form costs nothing. Without an adapter factors are looked for (``effort``: ``fast``, ``default`` or
    ``max``), and changes that are not of low rank are refused within milliseconds. ``time_budget_s`` (wall time) ends
    a fit's rounds and trials early; rounding the factors and measuring the plan come on top. ``dense_bytes``: what
    plain delta frames take, where the caller knows it already. Raises :class:`InvalidInputError` if sizes do not fit
    or the dtype is not BF16, F16 or F32.
    """
    work, clock = effort_of(effort), Clock(time_budget_s)
    before, after = words_of(base, dtype), words_of(target, dtype)
    if before.size != after.size or after.size != shape[0] * shape[1]:
        raise InvalidInputError(
            f"a tensor of shape {shape} has {shape[0] * shape[1]} elements; the base has {before.size}, "
            f"the target {after.size}"
        )
    if after.size == 0:
        return None
    before, after = before.reshape(shape), after.reshape(shape)
    if adapter is not None and (adapter.rows, adapter.columns) != tuple(shape):
        raise InvalidInputError(
            f"the adapter is for a tensor of {adapter.rows} x {adapter.columns}, this one has {shape[0]} x {shape[1]}",
            hint="Check that the adapter belongs to this model.",
        )
    rank = detect_rank(before, after, dtype, thorough=work.thorough) if adapter is None else adapter.rank
    if rank == 0:
        return None
    if dense_bytes is None:
        dense_bytes = coded_bytes(target, base, dtype, threads=threads)
    if adapter is None and rank * sum(shape) * _LEAST_FACTOR_BITS >= 8 * dense_bytes:
        return None
    plans = []
    for factors in _candidates(before, after, dtype, rank, adapter, work, clock):
        stored = adapter_stored and adapter is not None and (factors.a, factors.b) == (adapter.a, adapter.b)
        a_bytes, b_bytes = (
            0 if stored else coded_bytes(data, None, kind, threads=threads)
            for data, kind in ((factors.a, factors.a_dtype), (factors.b, factors.b_dtype))
        )
        residual = _residual_bytes(base, target, factors, dtype, threads=threads)
        plans.append(LowRankPlan(factors, a_bytes, b_bytes, residual, dense_bytes, clock.stopped_early))
    best = min(plans, key=lambda plan: plan.total_bytes)
    return best if best.total_bytes < dense_bytes else None


def coded_bytes(data: Any, base: Any, dtype: str, *, threads: int = 0) -> int:
    """Bytes of a tensor's frames, window by window."""
    view = memoryview(data).cast("B")
    prior = None if base is None else memoryview(base).cast("B")
    return sum(
        len(codec.encode(view[at], None if prior is None else prior[at], dtype=dtype, threads=threads))
        for at in _windows(len(view))
    )


def _residual_bytes(base: Any, target: Any, factors: Factors, dtype: str, *, threads: int) -> int:
    prior, wanted = memoryview(base).cast("B"), memoryview(target).cast("B")
    element = prior.nbytes // (factors.rows * factors.columns)
    total = 0
    for at in _windows(len(wanted)):
        made = bytearray(len(wanted[at]))
        low_rank.predict_into(
            prior[at], made, factors, dtype=dtype, first_element=at.start // element, threads=threads
        )
        total += len(codec.encode(wanted[at], made, dtype=dtype, threads=threads))
    return total


def _windows(size: int) -> list[slice]:
    return [slice(begin, min(begin + _WINDOW_BYTES, size)) for begin in range(0, size, _WINDOW_BYTES)]


def _candidates(
    before: Words, after: Words, dtype: str, rank: int, adapter: Factors | None, work: Effort, clock: Clock
) -> Iterator[Factors]:
    """Factors worth measuring."""
    if adapter is None:
        found = _fitted(before, after, dtype, rank, work, clock)
    else:
        known = _as_merged(before, after, dtype, adapter)
        yield known
        a, b = _floats(known)
        b = b * known.scale
        if not (np.abs(a) < FREE).all() or not (np.abs(b) < FREE).all():
            return
        found = fit(
            before, after, dtype, rank, effort=work, clock=clock, rounding=known.rounding, start=(a, b)
        )
    for noise in work.noises:
        if noise != work.noises[0] and not clock.go_on():
            break
        yield fixed_point(found, before, after, dtype, effort=work, noise=noise)
    if dtype == "F32" and adapter is None:
        yield single_precision(found, before, after, dtype)


def _fitted(before: Words, after: Words, dtype: str, rank: int, work: Effort, clock: Clock) -> Fit:
    """The better of the fits to a merge that rounds once and to one that rounds its product first."""
    found = fit(before, after, dtype, rank, effort=work, clock=clock)
    if dtype == "F32" or found.missed < _MANY_MISSES:
        return found
    other = fit(before, after, dtype, rank, effort=work, clock=clock, rounding="delta")
    return other if other.missed < found.missed else found


# --- known adapters -----------------------------------------------------------------------------------------


def _as_merged(before: Words, after: Words, dtype: str, adapter: Factors) -> Factors:
    """The form of an adapter that predicts most of some rows: libraries cast factors, and round on the way."""
    forms = [adapter]
    if dtype != "F32" and (adapter.a_dtype, adapter.b_dtype) != (dtype, dtype):
        forms.append(_cast(adapter, dtype))
    # One of equal value that comes first stays: fewer roundings, the factors as they are.
    return min(
        (_rounded_at(form, rounding) for form in forms for rounding in low_rank.ROUNDINGS),
        key=lambda form: _missed_rows(before, after, dtype, form),
    )


def _missed_rows(before: Words, after: Words, dtype: str, form: Factors) -> int:
    missed = 0
    for row in evenly(len(before), _TRIAL_ROWS):
        made = low_rank.predict(
            before[row].tobytes(), form, dtype=dtype, first_element=int(row) * form.columns, threads=1
        )
        missed += int(np.count_nonzero(words_of(made, dtype) != after[row]))
    return missed


def _rounded_at(form: Factors, rounding: str) -> Factors:
    return Factors(
        form.rows, form.columns, form.rank, form.scale, form.a, form.b, form.a_dtype, form.b_dtype, rounding
    )


def _floats(form: Factors) -> tuple[Any, Any]:
    """A and B as matrices of fp64, without the scale."""

    def values(data: bytes | bytearray, dtype: str) -> Any:
        if dtype in ("I8", "I16"):
            return np.frombuffer(data, dtype=np.int8 if dtype == "I8" else np.int16).astype(np.float64)
        return widened(words_of(data, dtype), dtype)

    return (
        values(form.a, form.a_dtype).reshape(form.rank, form.columns),
        values(form.b, form.b_dtype).reshape(form.rows, form.rank),
    )


def _cast(form: Factors, dtype: str) -> Factors:
    """The factors in another type, to nearest even."""
    a, b = (_narrowed(part.astype(np.float32), dtype) for part in _floats(form))
    return Factors(form.rows, form.columns, form.rank, form.scale, a, b, dtype, dtype, form.rounding)


def _narrowed(values: Any, dtype: str) -> bytes:
    if dtype == "F16":
        with np.errstate(over="ignore"):
            return bytes(values.astype(np.float16).tobytes())
    bits = values.view(np.uint32)
    rounded = ((bits.astype(np.uint64) + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)
    return bytes(np.where(np.isnan(values), 0x7FC0, rounded).astype(np.uint16).tobytes())
