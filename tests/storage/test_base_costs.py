"""What readers are asked for: counted before a version is written, and kept to when it is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage import layouts
from storage.test_planning import SIZE, content, digest, local, manifest
from storage.test_push_recipes import opened, written
from textnlp_fast.contents.windows import OpenFiles
from textnlp_fast.delta.recipe import Cast, Piece, Pieces, Recipe, Transposed, Whole, with_sources
from textnlp_fast.errors import CorruptDataError, InvalidInputError
from textnlp_fast.storage.base_costs import BaseCost, cost_of
from textnlp_fast.storage.manifest import Content, depth_of
from textnlp_fast.storage.object_windows import new_maker
from textnlp_fast.storage.planning import MAX_ADOPTED_DEPTH, adopt, plan_pull, plan_push

Makers = Any


def pieces(*names: str) -> Pieces:
    """As many bytes of each, SIZE in all."""
    each, rest = divmod(SIZE, len(names))
    sizes = [each + rest, *[each] * (len(names) - 1)]
    return Pieces(tuple(Piece(digest(name), 0, size) for name, size in zip(names, sizes, strict=True)))


def made_of(name: str, base: Recipe) -> Content:
    plain = content(name)
    return Content(plain.digest, plain.dtype, plain.size, plain.codec, base, plain.extents)


graphs = st.lists(st.lists(st.integers(0, 100), max_size=3), min_size=1, max_size=12)


@given(graphs)
def test_bases_and_recipes_are_counted_along_the_longest_way(graph: list[list[int]]) -> None:
    contents: dict[str, Content] = {}
    expected: list[tuple[int, int]] = []
    for number, picks in enumerate(graph):
        below = sorted({pick % number for pick in picks}) if number else []
        name = f"n{number}"
        if len(below) == 1:
            one: Content = content(name, f"n{below[0]}")
        elif below:
            one = made_of(name, pieces(*(f"n{pick}" for pick in below)))
        else:
            one = content(name)
        contents[one.digest] = one
        bases = 1 + max(expected[pick][0] for pick in below) if below else 0
        recipes = (len(below) > 1) + max((expected[pick][1] for pick in below), default=0)
        expected.append((bases, recipes))
        cost = cost_of(contents, one.digest)
        assert (cost.bases, cost.recipes) == (bases, recipes)
        assert depth_of(contents, one.digest) == bases
        assert cost.work >= 1 + bases


@pytest.mark.parametrize("change", layouts.CHANGES)
@pytest.mark.parametrize("window_bytes", [1 << 12, 1 << 14])
def test_readers_decode_no_more_than_was_counted(
    tmp_path: Path, makers: Makers, change: str, window_bytes: int
) -> None:
    before, after = layouts.CHANGES[change]
    first = before(layouts.model(layers=2))
    second = layouts.trained(after(first))
    repository = opened(tmp_path / "r", window_bytes)
    for number, tensors in enumerate((first, layouts.trained(first, 3), second, layouts.trained(second, 4))):
        written(makers, tmp_path / f"v{number}", tensors)
        repository.push(tmp_path / f"v{number}", "m", f"1.{number}.0")
    version = repository.manifest("m", "1.3.0")
    for one in version.wanted():
        located, cost = version.contents[one], cost_of(version.contents, one)
        with OpenFiles() as files:
            maker = new_maker(
                repository._store, version.contents, window_bytes, files, {}, budget_bytes=0, threads=1
            )
            for begin in range(0, located.size, window_bytes):
                maker.read(one, begin, min(begin + window_bytes, located.size))
        # The last window is short, and counts as a frame of the least size.
        assert 0 < maker._decoded <= cost.work * (located.size + (1 << 12))


def test_a_recipe_of_full_chains_is_made_of_their_roots() -> None:
    chains = [content(f"{name}0") for name in "ab"]
    chains += [content(f"{name}{n}", f"{name}{n - 1}") for name in "ab" for n in range(1, 9)]
    parent = manifest(chains, {"a": "a8", "b": "b3"})
    recipe = pieces("a8", "b3")
    plan = plan_push([local({"w": "x"})], parent, [], recipes={digest("x"): recipe})
    (step,) = [step for step in plan.steps if step.part.name]
    assert step.base == pieces("a0", "b3")
    assert {digest("a0"), digest("b3"), digest("b0")} <= plan.reused.keys()
    assert digest("a8") not in plan.reused


def test_a_name_comes_before_a_recipe() -> None:
    parent = manifest([content("a"), content("b")], {"w": "a", "b": "b"})
    plan = plan_push([local({"w": "x"})], parent, [], recipes={digest("x"): pieces("a", "b")})
    assert [step.base for step in plan.steps if step.part.name] == [Whole(digest("a"), SIZE)]


@pytest.mark.parametrize("why", ["gone", "too deep", "too large to turn"])
def test_recipes_that_cannot_be_used_are_left_out(why: str) -> None:
    contents, recipe = [content("a"), content("b")], pieces("a", "b")
    if why == "gone":
        contents = contents[:1]
    elif why == "too deep":
        for number in range(4):
            contents.append(made_of(f"n{number}", pieces("a", f"n{number - 1}" if number else "b")))
        recipe = pieces("n3")
    parent = manifest(contents, {"a": "a"})
    tried: Recipe = recipe
    if why == "too large to turn":
        rows = 5 * parent.window_bytes // 64
        tried = Transposed(digest("a"), rows, 64, 1)
    plan = plan_push([local({"w": "x"})], parent, [], recipes={digest("x"): tried})
    assert [step.base for step in plan.steps if step.part.name] == [None]


def test_what_asks_too_much_is_not_taken_over() -> None:
    chain = [content("t0")] + [content(f"t{n}", f"t{n - 1}") for n in range(1, MAX_ADOPTED_DEPTH)]
    source = {one.digest: one for one in chain}
    source |= {one.digest: one for one in (made_of("deep", pieces(f"t{MAX_ADOPTED_DEPTH - 1}", "t0")),)}
    contents: dict[str, Content] = {}
    assert adopt(contents, source, digest(f"t{MAX_ADOPTED_DEPTH - 1}"))
    before = dict(contents)
    assert not adopt(contents, source, digest("deep"))
    assert contents == before
    assert not BaseCost(1, 5, 1).within(most_bases=8, most_work=64)
    assert not BaseCost(1, 1, 65).within(most_bases=8, most_work=64)


def test_pull_counts_what_recipes_are_made_of_once() -> None:
    contents = [content("a", cost=1000), content("b", cost=500)]
    contents += [made_of("x", pieces("a", "b")), made_of("y", pieces("b", "a"))]
    version = manifest(contents, {"x": "x", "y": "y"})
    plan = plan_pull(version, {})
    assert plan.fetch_bytes == 8 + 100 + 100 + 1000 + 500
    assert not any(step.is_local for step in plan.steps)


def test_other_contents_for_a_recipe() -> None:
    assert with_sources(pieces("a", "b"), {digest("a"): digest("c")}) == pieces("c", "b")
    cast = Cast(digest("a"), "F32", "BF16", 100)
    assert with_sources(cast, {digest("a"): digest("b")}) == Cast(digest("b"), "F32", "BF16", 100)
    with pytest.raises((InvalidInputError, CorruptDataError)):
        with_sources(pieces("a", "b"), {digest("a"): "no digest"})
