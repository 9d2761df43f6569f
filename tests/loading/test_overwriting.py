"""The order of overwriting: whatever a tensor is made of is still there when its turn comes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from textnlp_fast.loading.overwriting import Needs, in_order

DIGESTS = "abcdef"


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[str], list[Needs], list[int]]:
    count = draw(st.integers(1, 7))
    names = st.sampled_from(DIGESTS)
    old = [draw(names) for _ in range(count)]
    needs = [Needs(draw(st.none() | names), draw(st.frozensets(names, max_size=2))) for _ in range(count)]
    return old, needs, [draw(st.integers(0, 9)) for _ in range(count)]


@given(cases())
def test_nothing_that_is_needed_is_gone(case: tuple[list[str], list[Needs], list[int]]) -> None:
    old, needs, sizes = case
    groups = in_order(old, needs, sizes)
    assert sorted(turn.number for group in groups for turn in group) == list(range(len(old)))
    memory: list[str | None] = list(old)
    kept: set[str] = set()
    for group in groups:
        kept |= {old[turn.number] for turn in group if turn.keep}
        leaving = {turn.number for turn in group}
        staying = {held for n, held in enumerate(memory) if n not in leaving}
        for turn in group:
            need = needs[turn.number]
            for digest in need.elsewhere & set(old):
                assert digest in staying or digest in kept
            if need.aligned in old and need.aligned not in staying | kept:
                # Its own window is read right before it is overwritten, and nobody else's in its place.
                assert need.aligned == old[turn.number]
                assert sum(old[n] == need.aligned for n in leaving) == 1
        for number in leaving:
            memory[number] = None


def test_a_line_needs_nothing_kept() -> None:
    needs = [Needs(None, frozenset(digest)) for digest in "bcd"] + [Needs("d", frozenset())]
    groups = in_order(list("abcd"), needs, [1] * 4)
    assert [[turn.number for turn in group] for group in groups] == [[0], [1], [2], [3]]
    assert not any(turn.keep for group in groups for turn in group)


def test_strangers_go_together() -> None:
    groups = in_order(list("abcc"), [Needs(digest, frozenset()) for digest in "abcc"], [1] * 4)
    assert [[turn.number for turn in group] for group in groups] == [[0, 1, 2], [3]]


def test_a_circle_keeps_the_smallest() -> None:
    groups = in_order(list("abc"), [Needs(digest, frozenset()) for digest in "bca"], [5, 3, 4])
    assert [turn.number for group in groups for turn in group if turn.keep] == [1]


def test_who_is_made_of_its_own_parts_is_kept() -> None:
    assert in_order(["a"], [Needs(None, frozenset("a"))], [1])[0][0].keep
    assert not in_order(["a"], [Needs("a", frozenset())], [1])[0][0].keep
