"""Searches: what the little language says, and that whatever is not of it is refused with its place."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from textnlp_fast.errors import InvalidInputError, QueryError
from textnlp_fast.storage import Registry
from textnlp_fast.storage.registry.query import parse_query
from textnlp_fast.storage.registry.searching import search


@pytest.fixture
def described(registry: Registry, publish: object) -> Registry:
    """Two models of which something is said."""
    publish("org/n", "0.1.0", metadata={"architecture": "mamba"})  # type: ignore[operator]
    registry.move("m", "1.1.0", "staging")
    registry.set_alias("m", "champion", "1.1.0")
    registry.tag("m", None, {"team": "nlp"})
    registry.tag("m", "2.0.0", {"team": "vision"})
    registry.deploy("m", "1.0.0", "eu/serving")
    return registry


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", "m@2.1.0-rc.1 m@2.0.0 m@1.1.0 m@1.0.0 org/n@0.1.0"),
        ("name = m", "m@2.1.0-rc.1 m@2.0.0 m@1.1.0 m@1.0.0"),
        ('name = "org/*"', "org/n@0.1.0"),
        ("name = org/*", "org/n@0.1.0"),
        ("stage = Staging", "m@1.1.0"),
        ("alias = champ*", "m@1.1.0"),
        ("alias != champion and name = m", "m@2.1.0-rc.1 m@2.0.0 m@1.0.0"),
        ("target = eu/*", "m@1.0.0"),
        ("tag.team = nlp", "m@2.1.0-rc.1 m@1.1.0 m@1.0.0"),
        ("tag.team != nlp", "m@2.0.0 org/n@0.1.0"),
        ("tag.team = n*", ""),
        ("meta.architecture = mamba", "org/n@0.1.0"),
        ("version = ^1.0.0", "m@1.1.0 m@1.0.0"),
        ("version = ~1.0.0", "m@1.0.0"),
        ("version = ^0.1.0", "org/n@0.1.0"),
        ("version >= 2.0.0", "m@2.1.0-rc.1 m@2.0.0"),
        ("version < 2.1.0 and version > 2.0.0", "m@2.1.0-rc.1"),
        ("version = 1.1.0 or version = 1.0.0", "m@1.1.0 m@1.0.0"),
        ("not (stage = draft or name = org/n)", "m@1.1.0"),
        ("NOT not name = m AND version = 1.0.0", "m@1.0.0"),
        ("name = m and version = 1.0.0 or name = org/n", "m@1.0.0 org/n@0.1.0"),
        ("name = m and (version = 1.0.0 or name = org/n)", "m@1.0.0"),
        ("created >= 2020-01-01 and version = 1.0.0", "m@1.0.0"),
        ("created < 2020-01-01", ""),
        ("created > 2020-01-01T00:00:00Z and name = org/n", "org/n@0.1.0"),
        ("tag.team = 'nlp' and version=1.0.0", "m@1.0.0"),
        (r'tag.team = "n\lp" and version=1.0.0', "m@1.0.0"),
        ("tag.team = and", ""),
    ],
)
def test_a_query_finds_what_it_says(described: Registry, query: str, expected: str) -> None:
    assert " ".join(f"{row.name}@{row.version}" for row in search(described.repository, query)) == expected


@pytest.mark.parametrize(
    ("query", "place", "message"),
    [
        ("nam = m", 0, "'nam' is none of name"),
        ("name", 4, "is missing"),
        ("name =", 6, "value to compare name with is missing"),
        ("name = m version = 1.0.0", 9, "'and' or 'or' is missing"),
        ("name > m", 5, "no order"),
        ("  version = 1.0", 12, "no version like"),
        ("version >= ^1.0.0", 11, "no version like"),
        ("created = yesterday", 10, "no date like"),
        ("(name = m", 9, "closing parenthesis"),
        ("name = m)", 8, "'and' or 'or' is missing"),
        ("not", 3, "'the end'"),
        ("name = m and", 12, "'the end'"),
        ("tag. = x", 0, "none of"),
        ('name = "m', 7, "nothing that can stand here"),
        ("name = m and \x00 = 1", 13, "none of"),
        ("stage = 7", 8, "no stage"),
        ("(" * 200 + "name = m" + ")" * 200, 33, "nested more than"),
        ("name = " + "m" * 5000, 4000, "characters"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_place(query: str, place: int, message: str) -> None:
    with pytest.raises(QueryError, match=message) as caught:
        parse_query(query)
    assert caught.value.position == place
    assert isinstance(caught.value, InvalidInputError)


@given(st.text(alphabet="nameversiotg.=!<>()\"'\\ ~^*0123-and", max_size=60) | st.text(max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        parse_query(text)
    except QueryError as error:
        assert 0 <= error.position <= max(len(text), 4000)


def test_globs_that_would_take_for_ever_do_not(described: Registry) -> None:
    started = time.monotonic()
    assert list(search(described.repository, "name = " + "*a" * 300 + "b")) == []
    assert time.monotonic() - started < 60
