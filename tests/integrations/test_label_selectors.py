"""Label selectors, against an evaluator that works on the terms they were written from."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from textnlp_fast.errors import InvalidInputError
from textnlp_fast.integrations.label_selectors import parse_selector

KEYS = st.sampled_from(["app", "tier", "example.com/zone", "in", "notin"])
VALUES = st.sampled_from(["", "a", "b-1", "x_y.z"])
TERMS = st.one_of(
    st.tuples(st.sampled_from(["=", "==", "!="]), KEYS, st.lists(VALUES, min_size=1, max_size=1)),
    st.tuples(st.sampled_from(["in", "notin"]), KEYS, st.lists(VALUES, min_size=1, max_size=3)),
    st.tuples(st.sampled_from(["exists", "absent"]), KEYS, st.just([])),
)


def written(term: tuple[str, str, list[str]], space: str) -> str:
    sign, key, values = term
    if sign in ("in", "notin"):
        return f"{key} {sign} ({space}{f',{space}'.join(values)}{space})"
    if sign in ("exists", "absent"):
        return key if sign == "exists" else f"!{key}"
    return f"{key}{space}{sign}{space}{values[0]}"


def holds(term: tuple[str, str, list[str]], labels: dict[str, str]) -> bool:
    sign, key, values = term
    there = key in labels
    return {
        "exists": there,
        "absent": not there,
        "=": there and labels.get(key) == (values or [""])[0],
        "==": there and labels.get(key) == (values or [""])[0],
        "!=": not there or labels[key] != (values or [""])[0],
        "in": there and labels.get(key) in values,
        "notin": not there or labels[key] not in values,
    }[sign]


@given(
    terms=st.lists(TERMS, max_size=4),
    space=st.sampled_from(["", " "]),
    labels=st.dictionaries(KEYS, VALUES, max_size=3),
)
def test_terms_are_all_to_hold(
    terms: list[tuple[str, str, list[str]]], space: str, labels: dict[str, str]
) -> None:
    text = f",{space}".join(written(term, space) for term in terms)
    assert parse_selector(text)(labels) is all(holds(term, labels) for term in terms)


@pytest.mark.parametrize(
    "text",
    [",", "a,", "a=b,,c", "a>b", "a in", "a in (", "a in (b", "=b", "!", "a=b c", "a=-", "a in (b c)", "é=1"],
)
def test_others_are_refused(text: str) -> None:
    with pytest.raises(InvalidInputError, match="selector"):
        parse_selector(text)


@given(st.text(alphabet="ab,=!() in/notin.-", max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        assert parse_selector(text)({"a": "b"}) in (True, False)
    except InvalidInputError:
        return


def test_a_long_one_is_refused_soon() -> None:
    with pytest.raises(InvalidInputError, match="longer"):
        parse_selector("a" * 100_000)
    with pytest.raises(InvalidInputError):
        parse_selector("a" * 63 + "-" * 4000)
