"""Patches from strangers: an error or the right model, never a wrong one, and never without bound."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from delta.handmade import rewritten, write_patch
from delta.models import WINDOW, Model, Tensor, files_of, nudged, tree, write
from textnlp_fast.delta import apply_patch, create_patch, inspect_patch, read_patch, squash_patches
from textnlp_fast.errors import CorruptDataError, TextnlpFastError, UnsupportedFormatError
from textnlp_fast.hashing import blake3_hex


def small() -> tuple[Model, Model]:
    source = random.Random(1)
    weights = Tensor(
        "BF16", (40, 64), bytes(b for _ in range(40 * 64) for b in (source.randrange(256), 0x3C))
    )
    old: Model = {"model.safetensors": {"w": weights, "b": Tensor("F32", (2,), bytes(8))}, "c.json": b"{}"}
    new: Model = {"model.safetensors": {"w": nudged(weights, 3)}, "d.json": b"[]"}
    return old, new


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("hostile")
    old, new = small()
    create_patch(write(old, root / "old"), write(new, root / "new"), root / "p", window_bytes=WINDOW)
    return root


def test_every_flipped_byte_is_noticed_or_harmless(place: Path) -> None:
    data = bytearray((place / "p").read_bytes())
    wanted = files_of(small()[1])
    harmed, out = place / "harmed", place / "flipped"
    refused = 0
    for position in range(len(data)):
        data[position] ^= 0xFF if position % 3 else 1 << position % 8
        harmed.write_bytes(data)
        try:
            apply_patch(harmed, place / "old", out, threads=1)
        except TextnlpFastError as error:
            refused += 1
            assert error.hint
            assert not out.exists()
        else:
            assert tree(out) == wanted
            for path in out.rglob("*"):
                path.unlink()
            out.rmdir()
        data[position] ^= 0xFF if position % 3 else 1 << position % 8
    assert refused > 0.95 * len(data)
    assert not list(place.glob(".*"))


def test_every_cut_is_noticed(place: Path) -> None:
    data = (place / "p").read_bytes()
    for count in {*range(0, len(data), 97), *range(20), len(data) - 1}:
        (place / "cut").write_bytes(data[:count])
        with pytest.raises(CorruptDataError):
            read_patch(place / "cut")
    (place / "cut").write_bytes(data + b"x")
    with pytest.raises(CorruptDataError, match="cut short"):
        read_patch(place / "cut")


def stored_in(document: dict[str, Any]) -> dict[str, Any]:
    """The entry of the one large content."""
    entry: dict[str, Any] = max(document["contents"].values(), key=lambda row: int(row["size"]))
    return entry


def set_stored(**fields: Any) -> Callable[[dict[str, Any]], None]:
    return lambda document: stored_in(document).update(fields)


def set_path(path: str, end: str = "target") -> Callable[[dict[str, Any]], None]:
    return lambda document: document[end]["files"][0].update(path=path)


def lie_about_size(document: dict[str, Any]) -> None:
    digest = next(iter(document["held"]))
    document["held"][digest][0] += 1


def own_base(document: dict[str, Any]) -> None:
    digest = next(name for name, row in document["contents"].items() if row is stored_in(document))
    document["contents"][digest]["base"] = digest


def held_and_stored(document: dict[str, Any]) -> None:
    digest, row = next(iter(document["contents"].items()))
    document["held"][digest] = [row["size"], row["dtype"]]


def spare_held(document: dict[str, Any]) -> None:
    document["held"]["f" * 64] = [5, "U8"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (set_path("../../etc/passwd"), "relative path"),
        (set_path("/etc/passwd"), "relative path"),
        (set_path("../secret", "source"), "relative path"),
        (set_path("a\0b"), "unprintable"),
        (set_path(".textnlp-fast-partial/commit"), "reserved"),
        (set_path("d.json/x"), "digest|runs through"),
        (set_path("x.json"), "make its digest"),
        (set_stored(size=1 << 60), "outside 0"),
        (set_stored(size=-1), "outside 0"),
        (set_stored(size=True), "no 'size'"),
        (set_stored(extents=[]), "extents"),
        (set_stored(extents=[[0, 1]] * 2), "overlap"),
        (set_stored(extents=[[0, 1], [1, 1]]), "gap|overlap|end at byte"),
        (set_stored(extents=[[0, 10**9], [0, 1]]), "outside the payload"),
        (set_stored(extents=[[-1, 1], [0, 1]]), "outside the payload"),
        (set_stored(extents=[[0, 0], [0, 1]]), "outside the payload"),
        (set_stored(extents=[[0, 2**70], [0, 1]]), "outside the payload"),
        (set_stored(extents=[["0", 1], [0, 1]]), "two integers"),
        (set_stored(extents=[[0, 1, 1], [0, 1]]), "two integers"),
        (set_stored(base="f" * 64), "not located"),
        (set_stored(base="x"), "digest|hex"),
        (set_stored(base=7), "recipe"),
        (set_stored(base={"pieces": [["f" * 64, 0, 5120]]}), "not located"),
        (set_stored(base={"pieces": [[None, 0, 1 << 51]]}), "recipe"),
        (set_stored(dtype="../x"), "odd dtype"),
        (own_base, "cycle"),
        (held_and_stored, "stored as well"),
        (spare_held, "not those of the source"),
        (lie_about_size, "add up|has"),
        (lambda document: document.update(window_bytes=1), "window_bytes"),
        (lambda document: document.update(window_bytes=1 << 40), "window_bytes"),
        (lambda document: document.update(window_bytes=8192), "extents"),
        (lambda document: document.update(payload=["f" * 64]), "payload"),
        (lambda document: document["payload"].__setitem__(1, 10**30), "outside 0"),
        (lambda document: document["payload"].__setitem__(1, 0), "outside the payload"),
        (lambda document: document["source"].update(version=7), "version"),
        (lambda document: document["target"].update(version="a/b"), "not a version"),
        (lambda document: document["target"].update(digest="f" * 64), "make its digest"),
        (lambda document: document["target"]["files"].append(document["target"]["files"][0]), "twice"),
        (lambda document: document["target"]["files"].append("x"), "not an object"),
        (lambda document: document.update(strategy="<b>"), "strategy"),
        (lambda document: document.update(metadata={"x": 1}), "metadata"),
        (lambda document: document.pop("held"), "no 'held'"),
        (lambda document: document.update(contents=[]), "no 'contents'"),
    ],
)
def test_hostile_indexes_are_refused(
    place: Path, change: Callable[[dict[str, Any]], None], reason: str
) -> None:
    (place / "bad").write_bytes(rewritten((place / "p").read_bytes(), change))
    for use in (read_patch, inspect_patch):
        with pytest.raises(CorruptDataError, match=reason):
            use(place / "bad")


@pytest.mark.parametrize(
    "change",
    [
        lambda document: document.update(format=2),
        set_stored(base={"oracle": []}),
        set_stored(codec="zip"),
    ],
)
def test_newer_patches_ask_for_an_upgrade(place: Path, change: Callable[[dict[str, Any]], None]) -> None:
    data = (place / "p").read_bytes()
    (place / "newer").write_bytes(rewritten(data, change))
    with pytest.raises(UnsupportedFormatError) as caught:
        read_patch(place / "newer")
    assert "Upgrade" in caught.value.hint
    (place / "newer").write_bytes(data[:7] + b"\x02" + data[8:])
    with pytest.raises(UnsupportedFormatError, match="format 2"):
        read_patch(place / "newer")


def test_a_damaged_frame_is_not_taken_for_a_newer_one(place: Path) -> None:
    file = read_patch(place / "p")
    data = bytearray((place / "p").read_bytes())
    data[file.payload_offset] |= 0xF0
    (place / "harmed").write_bytes(data)
    with pytest.raises(CorruptDataError, match="changed since it was written"):
        apply_patch(place / "harmed", place / "old", place / "out")
    with pytest.raises(CorruptDataError, match="changed since it was written"):
        inspect_patch(place / "harmed")
    with pytest.raises(CorruptDataError, match="changed since it was written"):
        read_patch(place / "harmed").open(place / "old")
    with pytest.raises(CorruptDataError, match="changed since it was written"):
        squash_patches([place / "harmed", _identity(place)], place / "squashed")
    assert not (place / "squashed").exists()


def _identity(place: Path) -> Path:
    create_patch(place / "new", place / "new", place / "identity", window_bytes=WINDOW)
    return place / "identity"


def test_links_do_not_lead_out_of_the_destination(place: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    dest = tmp_path / "dest"
    dest.mkdir()
    (dest / "sub").symlink_to(outside)
    data = b"x" * 100
    write_patch(tmp_path / "p", {"a": [b"old"]}, {"sub/evil": [data]}, [(data, None)])
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a").write_bytes(b"old")
    with pytest.raises(TextnlpFastError, match="in the way"):
        apply_patch(tmp_path / "p", tmp_path / "src", dest)
    assert not list(outside.iterdir())


@pytest.mark.parametrize("change", ["two", "three"])
def test_cycles_of_bases_are_refused(tmp_path: Path, change: str) -> None:
    contents = [random.Random(n).randbytes(100) for n in range(3)]
    names = [blake3_hex(content) for content in contents]
    (tmp_path / "src").mkdir()
    write_patch(tmp_path / "p", {"a": [b"x"]}, {"b": contents}, [(content, None) for content in contents])

    def close(document: dict[str, Any]) -> None:
        loop = names[:2] if change == "two" else names
        for name, below in zip(loop, [*loop[1:], loop[0]], strict=True):
            document["contents"][name]["base"] = {"pieces": [[below, 0, 50], [below, 50, 50]]}

    (tmp_path / "p").write_bytes(rewritten((tmp_path / "p").read_bytes(), close))
    with pytest.raises(CorruptDataError, match="cycle"):
        read_patch(tmp_path / "p")


def test_long_chains_are_refused(tmp_path: Path) -> None:
    contents = [bytes([number]) * 64 for number in range(70)]
    names = [blake3_hex(content) for content in contents]
    write_patch(tmp_path / "p", {"a": [b"x"]}, {"b": contents}, [(content, None) for content in contents])

    def chain(document: dict[str, Any], length: int) -> None:
        for above, below in pairwise(names[:length]):
            document["contents"][above]["base"] = below

    plain = (tmp_path / "p").read_bytes()
    (tmp_path / "q").write_bytes(rewritten(plain, lambda document: chain(document, 64)))
    read_patch(tmp_path / "q")
    (tmp_path / "q").write_bytes(rewritten(plain, lambda document: chain(document, 65)))
    with pytest.raises(CorruptDataError, match="63 bases"):
        read_patch(tmp_path / "q")


def test_memory_is_bounded_by_the_budget(tmp_path: Path) -> None:
    """A model a hundred times the budget."""
    window, budget = 1 << 16, 1 << 18
    old, new = tmp_path / "old.safetensors", tmp_path / "new.safetensors"
    weights = Tensor("BF16", (1 << 24,), random.Random(1).randbytes(1 << 25))
    write({"m": {"w": weights}}, old)
    write({"m": {"w": nudged(weights, 1)}}, new)
    wanted = new.read_bytes()
    del weights
    tracemalloc.start()
    try:
        create_patch(old, new, tmp_path / "p", window_bytes=window, memory_budget_bytes=budget, threads=2)
        apply_patch(tmp_path / "p", old, tmp_path / "out.safetensors", memory_budget_bytes=budget, threads=2)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (tmp_path / "out.safetensors").read_bytes() == wanted
    assert peak < 4 * budget + (4 << 20)  # beside the budget: reading buffers of 1 MiB, coded bounds, JSON
