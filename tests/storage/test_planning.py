"""The planners are pure: what they decide can be read off their arguments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from textnlp_fast.contents.entries import FileEntry, file_digest
from textnlp_fast.contents.inventory import Held, LocalFile, LocalPart
from textnlp_fast.contents.windows import plan_units
from textnlp_fast.delta.recipe import Whole
from textnlp_fast.storage.manifest import Content, Extent, Manifest, depth_of
from textnlp_fast.storage.planning import adopt, plan_pull, plan_push

SIZE = 4096


def digest(text: str) -> str:
    return text.encode().hex().rjust(64, "0")


def content(name: str, base: str | None = None, *, cost: int = 100, size: int = SIZE) -> Content:
    extents = (Extent(digest(f"obj-{name}"), 0, cost),)
    whole = Whole(digest(base), size) if base else None
    return Content(digest(name), "BF16", size, "frames", whole, extents)


def manifest(contents: list[Content], tensors: Mapping[str, str], version: str = "1.0.0") -> Manifest:
    """A manifest whose one file holds a header `h` and tensors by name."""
    located = {one.digest: one for one in contents}
    header = Content(digest("h"), "OPAQUE", 8, "frames", None, (Extent(digest("obj-h"), 0, 8),))
    located[header.digest] = header
    parts = (header.digest, *(digest(name) for name in tensors.values()))
    size = sum(located[part].size for part in parts)
    entry = FileEntry("model.safetensors", size, "safetensors", file_digest(parts), parts, tuple(tensors))
    objects = {extent.object: 1000 for one in located.values() for extent in one.extents}
    return Manifest("m", version, None, "", "", 1 << 20, (entry,), located, objects)


def local(tensors: Mapping[str, str], *, path: str = "model.safetensors", dtype: str = "BF16") -> LocalFile:
    parts = [LocalPart(digest("h2"), "OPAQUE", 0, 8)]
    for name, text in tensors.items():
        parts.append(LocalPart(digest(text), dtype, parts[-1].offset + parts[-1].size, SIZE, name))
    return LocalFile(path, path, parts[-1].offset + SIZE, 0, "safetensors", tuple(parts))


def coded(plan_steps: object) -> dict[str, str | None]:
    """What each step is coded against, as JSON says it."""
    return {
        step.part.name: step.base.to_json() if step.base else None
        for step in plan_steps  # type: ignore[attr-defined]
    }


def test_a_new_model_is_coded_by_itself() -> None:
    plan = plan_push([local({"w": "x", "v": "y"})], None, [])
    assert coded(plan.steps) == {"": None, "w": None, "v": None}
    assert not plan.reused


def test_the_same_name_in_the_parent_is_the_base() -> None:
    parent = manifest([content("x")], {"w": "x"})
    plan = plan_push([local({"w": "x2"})], parent, [])
    assert coded(plan.steps)["w"] == digest("x")
    assert digest("x") in plan.reused


def test_a_resharded_parent_still_gives_bases() -> None:
    parent = manifest([content("x")], {"w": "x"})
    plan = plan_push([local({"w": "x2"}, path="deep/other.safetensors")], parent, [])
    assert coded(plan.steps)["w"] == digest("x")


@pytest.mark.parametrize("kind", ["dtype", "size", "delta off"])
def test_no_base_of_another_kind(kind: str) -> None:
    parent = manifest([content("x", size=SIZE * 2 if kind == "size" else SIZE)], {"w": "x"})
    file = local({"w": "x2"}, dtype="F16" if kind == "dtype" else "BF16")
    plan = plan_push([file], parent, [], delta=kind != "delta off")
    assert coded(plan.steps)["w"] is None


def test_tied_renamed_and_known_tensors_are_stored_once() -> None:
    other = manifest([content("x")], {"elsewhere": "x"})
    plan = plan_push([local({"a": "x", "b": "y", "tied": "y"})], None, [other])
    assert coded(plan.steps) == {"": None, "b": None}
    assert set(plan.reused) == {digest("x")}


def test_a_full_chain_starts_again_at_its_root() -> None:
    chain = [content("t0")] + [content(f"t{n}", f"t{n - 1}") for n in range(1, 9)]
    parent = manifest(chain, {"w": "t8"})
    assert depth_of(parent.contents, digest("t8")) == 8
    plan = plan_push([local({"w": "new"})], parent, [], max_chain_depth=8)
    assert coded(plan.steps)["w"] == digest("t0")
    plan = plan_push([local({"w": "new"})], parent, [], max_chain_depth=9)
    assert coded(plan.steps)["w"] == digest("t8")


def test_chains_of_two_manifests_never_close_a_cycle() -> None:
    one = manifest([content("x", "y"), content("y")], {"w": "x"})
    two = manifest([content("y", "x"), content("x")], {"w": "y"}, "2.0.0")
    contents: dict[str, Content] = {}
    assert adopt(contents, one.contents, digest("x"))
    assert adopt(contents, two.contents, digest("y"))
    assert depth_of(contents, digest("x")) == 1
    assert depth_of(contents, digest("y")) == 0


def test_pull_takes_the_nearest_link_that_is_held() -> None:
    chain = [content("t0", cost=1000), content("t1", "t0", cost=10), content("t2", "t1", cost=20)]
    version = manifest(chain, {"w": "t2"})

    def cost(*held: str) -> int:
        plan = plan_pull(version, {digest(name): Held(name, 0) for name in (*held, "h")})
        return plan.fetch_bytes

    assert cost() == 1030
    assert cost("t0") == 30
    assert cost("t1", "t0") == 20
    assert cost("t2", "t1") == 0


def test_pull_makes_a_tied_tensor_once() -> None:
    version = manifest([content("x")], {"a": "x", "b": "x"})
    plan = plan_pull(version, {})
    places = {step.content.digest: step.targets for step in plan.steps}
    assert places[digest("x")] == ((0, 8), (0, 8 + SIZE))
    assert plan.write_bytes == 8 + 2 * SIZE


def test_pull_leaves_out_files_that_are_in_place() -> None:
    version = manifest([content("x")], {"a": "x"})
    assert plan_pull(version, {}, skip=frozenset({"model.safetensors"})).steps == ()


def test_parent_whose_base_is_gone_gives_no_base() -> None:
    parent = manifest([content("x")], {"w": "x"})
    parent = replace(parent, contents={digest("h"): parent.contents[digest("h")]})
    plan = plan_push([local({"w": "x2"})], parent, [])
    assert coded(plan.steps)["w"] is None


@given(st.lists(st.integers(0, 40_000), max_size=60), st.sampled_from([4096, 10_000, 1 << 20]))
def test_units_cover_every_byte_once_in_order(sizes: list[int], window: int) -> None:
    seen = []
    for unit in plan_units(sizes, window):
        assert sum(piece.length for piece in unit) <= window
        assert len(unit) == 1 or all(piece.length == sizes[piece.step] for piece in unit)
        seen += unit
    expected = [
        (step, offset) for step, size in enumerate(sizes) for offset in range(0, max(size, 1), window)
    ]
    assert [(piece.step, piece.offset) for piece in seen] == expected
    assert all(piece.window * window == piece.offset for piece in seen)
    assert sum(piece.length for piece in seen) == sum(sizes)
