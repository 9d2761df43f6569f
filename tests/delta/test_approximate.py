"""Both written forms of every approximation come back; anything else is refused with a list of what there is."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from textnlp_fast.delta.approximate import (
    Approximation,
    LowRank,
    MaxAbs,
    MaxUlp,
    SignScale,
    Threshold,
    TopK,
    from_json,
    parse,
)
from textnlp_fast.errors import InvalidInputError

positive = st.floats(min_value=0, exclude_min=True, allow_infinity=False)
approximations = st.one_of(
    st.builds(MaxUlp, st.integers(1, 2**31 - 1)),
    st.builds(MaxAbs, positive),
    st.builds(TopK, st.floats(min_value=0, max_value=1, exclude_min=True)),
    st.builds(Threshold, positive),
    st.builds(LowRank, st.integers(1, 4096)),
    st.builds(SignScale, st.sampled_from(["tensor", "row"])),
)


@given(approximations)
def test_both_forms_come_back(asked: Approximation) -> None:
    assert parse(str(asked)) == asked
    assert from_json(json.loads(json.dumps(asked.to_json(), allow_nan=False))) == asked


def test_the_forms_are_the_documented_ones() -> None:
    assert parse("max_ulp=2") == MaxUlp(2)
    assert parse(" max_abs=1e-5 ") == MaxAbs(1e-5)
    assert parse("top_k=0.01").to_json() == {"top_k": 0.01}
    assert parse("threshold=1e-4") == Threshold(1e-4)
    assert parse("low_rank=16").to_json() == {"low_rank": 16}
    assert parse("sign_scale") == SignScale("tensor")
    assert parse("sign_scale=row").to_json() == {"sign_scale": "row"}
    assert from_json({"max_abs": 1}) == MaxAbs(1.0)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "max_ulp",
        "max_ulp=",
        "max_ulp=0",
        "max_ulp=-1",
        "max_ulp=1.0",
        "max_ulp= 2",
        "max_ulp=1_0",
        "max_ulp=٣",
        "max_ulp=99999999999",
        "max_ulp=2147483648",
        "max_abs=0",
        "max_abs=-1",
        "max_abs=nan",
        "max_abs=inf",
        "top_k=1.1",
        "max_abs=1_0",
        "max_abs=x",
        "top_k=0",
        "threshold=1e999",
        "low_rank=5000",
        "sign_scale=",
        "sign_scale=column",
        "exact",
        "MAX_ULP=2",
        "max_ulp=2,top_k=1",
        "value=1",
        "max_ulp=" + "9" * 10000,
    ],
)
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(InvalidInputError, match="Known: max_ulp=2"):
        parse(text)


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        "max_ulp",
        {},
        {"max_ulp": 1, "top_k": 0.1},
        {"max_ulp": True},
        {"max_ulp": 1.0},
        {"max_ulp": "1"},
        {"max_abs": None},
        {"max_abs": float("nan")},
        {"max_abs": float("inf")},
        {"max_abs": 10**400},
        {"top_k": False},
        {"top_k": [1]},
        {"sign_scale": 1},
        {"sign_scale": "rows"},
        {"low_rank": 0},
        {"other": 1},
        {3: 1},
    ],
)
def test_other_documents_are_refused(document: Any) -> None:
    with pytest.raises(InvalidInputError, match="Known: max_ulp=2"):
        from_json(document)
