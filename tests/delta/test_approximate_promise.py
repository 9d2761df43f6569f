"""A promise tells what was measured, comes back from JSON, and is enforced."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from delta.inputs import FLOATS, INTEGERS, Words, changes, moved, weights
from delta.test_approximate import approximations
from reference.approximations import steps_apart, value
from textnlp_fast.delta.approximate import Approximation, MaxAbs, MaxUlp, SignScale, Threshold, TopK
from textnlp_fast.delta.elements import ELEMENTS
from textnlp_fast.delta.promise import Measurement, Promise, TensorPromise, check
from textnlp_fast.delta.quantise import quantise
from textnlp_fast.errors import CorruptDataError, InternalError, PromiseBrokenError

ALL = (MaxUlp(2), MaxAbs(1e-3), TopK(0.3), Threshold(1e-3), SignScale("row"))


@given(changes(FLOATS + INTEGERS))
def test_measured_is_what_the_oracle_measures(case: tuple[str, Words, Words]) -> None:
    dtype, target, base = case
    finite = ELEMENTS[dtype].is_finite(target) & ELEMENTS[dtype].is_finite(base)
    target, base = target[finite], base[finite]
    measured = Measurement(dtype)
    for begin in range(0, target.size, 5):
        measured.add(target[begin : begin + 5], base[begin : begin + 5], base[begin : begin + 5])
    promise = measured.promise(None)
    pairs = list(zip(target.tolist(), base.tolist(), strict=True))
    apart = [abs((value(a, dtype) or 0) - (value(b, dtype) or 0)) for a, b in pairs]
    squares = sum(error * error for error in apart)
    assert promise.elements == len(pairs)
    assert promise.max_ulp == max((steps_apart(a, b, dtype) for a, b in pairs), default=0)
    if max(apart, default=0) < 2**1000:
        assert promise.max_abs == pytest.approx(float(max(apart, default=0)), rel=1e-15, abs=0)
    if squares < 2**1020:
        scale = 2**600  # squares of the smallest numbers are none in float64
        assert promise.dropped_l2 == pytest.approx(
            math.isqrt(int(squares * scale**4)) / scale**2, rel=1e-9, abs=0
        )
    assert promise.dropped_l2 == promise.change_l2
    assert math.isfinite(promise.dropped_l2)


tensors = st.builds(
    TensorPromise,
    approximations,
    st.sampled_from(FLOATS),
    st.integers(10, 2**52),
    st.integers(0, 10),
    st.integers(0, 2**64 - 1),
    *(st.floats(0, allow_infinity=False) for _ in range(3)),
)


@given(st.dictionaries(st.text(max_size=5), tensors, max_size=3))
def test_json_comes_back(entries: dict[str, TensorPromise]) -> None:
    promise = Promise(entries)
    assert Promise.from_json(json.loads(json.dumps(promise.to_json(), allow_nan=False))) == promise
    assert promise.elements == sum(tensor.elements for tensor in entries.values())
    assert promise.max_ulp == max([0, *(tensor.max_ulp for tensor in entries.values())])
    assert math.isfinite(promise.change_l2)


def good() -> dict[str, Any]:
    return TensorPromise(MaxUlp(2), "BF16", 9, 3, 2, 0.5, 0.7, 0.9).to_json()


@pytest.mark.parametrize(
    ("key", "bad"),
    [
        ("asked", "max_ulp=2"),
        ("asked", {"max_ulp": 0}),
        ("asked", {}),
        ("asked", None),
        ("dtype", "F4"),
        ("dtype", []),
        ("elements", -1),
        ("elements", 2.0),
        ("elements", True),
        ("elements", 2**53),
        ("kept", 10),
        ("kept", None),
        ("max_ulp", 2**64),
        ("max_ulp", "2"),
        ("max_abs", float("nan")),
        ("max_abs", float("inf")),
        ("max_abs", -1.0),
        ("dropped_l2", 10**400),
        ("dropped_l2", True),
        ("change_l2", None),
        ("change_l2", "1"),
    ],
)
def test_broken_documents_are_refused(key: str, bad: Any) -> None:
    assert TensorPromise.from_json(good()).kept == 3
    with pytest.raises(CorruptDataError):
        TensorPromise.from_json({**good(), key: bad})


@pytest.mark.parametrize("document", [None, [], 3, {"a": None}, {"a": {}}, {"a": {**good(), "more": 1}}])
def test_other_documents_are_refused(document: Any) -> None:
    with pytest.raises(CorruptDataError):
        Promise.from_json(document)


def model(asked: Approximation, dtype: str) -> tuple[Promise, dict[str, Words], dict[str, Words]]:
    original, sent, promises = {}, {}, {}
    for seed, name in enumerate(("q_proj", "norm")):
        base = weights(dtype, 400, seed)
        original[name] = moved(dtype, base, seed + 5, size=0.004)
        sent[name], promises[name] = quantise(
            asked, original[name], base, dtype=dtype, shape=(20, 20) if seed == 0 else None, name=name
        )
    return Promise(promises), original, sent


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("asked", ALL, ids=str)
def test_a_kept_promise_passes_and_a_broken_one_is_named(asked: Approximation, dtype: str) -> None:
    promise, original, sent = model(asked, dtype)
    promise = Promise.from_json(json.loads(json.dumps(promise.to_json())))
    check(promise, original, sent)
    check(promise, original, original)
    worse = dict(sent)
    worse["q_proj"] = sent["q_proj"].copy()
    worse["q_proj"][7] = ELEMENTS[dtype].rounded(np.array([300.0]))[0]
    with pytest.raises(PromiseBrokenError, match="'q_proj'") as caught:
        check(promise, original, worse)
    assert caught.value.tensor == "q_proj"
    asked_for = isinstance(asked, MaxUlp | MaxAbs | Threshold)
    assert caught.value.bound in ([str(asked)] if asked_for else ["max_ulp", "max_abs"])
    assert "Make the patch again" in str(caught.value)


@pytest.mark.parametrize("bound", ["max_ulp", "max_abs", "dropped_l2"])
def test_each_measured_bound_is_enforced(bound: str) -> None:
    promise, original, sent = model(TopK(0.1), "BF16")
    entry = promise.tensors["q_proj"].to_json()
    entry[bound] = entry[bound] // 2 if bound == "max_ulp" else entry[bound] * 0.999
    tighter = Promise({**promise.tensors, "q_proj": TensorPromise.from_json(entry)})
    with pytest.raises(PromiseBrokenError) as caught:
        check(tighter, original, sent)
    assert (caught.value.tensor, caught.value.bound) == ("q_proj", bound)


def test_specials_sizes_and_names_are_enforced() -> None:
    promise, original, sent = model(MaxUlp(2), "BF16")
    for worse, bound, tensor in (
        (
            {**sent, "norm": np.where(np.arange(400) == 3, 0x7FC0, sent["norm"]).astype(np.uint16)},
            "exact",
            "norm",
        ),
        ({**sent, "norm": sent["norm"][:-1]}, "elements", "norm"),
        ({**sent, "norm": sent["norm"].tobytes()[:-1]}, "elements", "norm"),
        ({"norm": sent["norm"]}, "names", "q_proj"),
        ({**sent, "extra": sent["norm"]}, "names", "extra"),
    ):
        with pytest.raises(PromiseBrokenError) as caught:
            check(promise, original, worse)
        assert (caught.value.tensor, caught.value.bound) == (tensor, bound)
    with pytest.raises(PromiseBrokenError) as caught:
        check(promise, {n: w[:9] for n, w in original.items()}, {n: w[:9] for n, w in sent.items()})
    assert caught.value.bound == "elements"


def test_a_promise_about_a_lost_nan_cannot_be_made() -> None:
    measured = Measurement("BF16")
    measured.add(np.array([0x7FC0], np.uint16), np.array([0], np.uint16))
    with pytest.raises(InternalError, match="not finite"):
        measured.promise(MaxUlp(1))
