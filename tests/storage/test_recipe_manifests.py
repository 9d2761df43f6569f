"""Manifests with recipes: written and read back, and refused where they lead astray, whoever wrote them."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage import layouts
from storage.conftest import Makers
from storage.test_manifest import OBJECT, A, B, H, make_manifest
from textnlp_fast.contents.documents import seal_document
from textnlp_fast.contents.entries import FileEntry, file_digest
from textnlp_fast.delta import codec, making
from textnlp_fast.delta.recipe import Cast, Piece, Pieces, Recipe, Strand, Transposed, Woven
from textnlp_fast.errors import CorruptDataError, TextnlpFastError, UnsupportedFormatError
from textnlp_fast.hashing import blake3_hex
from textnlp_fast.storage import Repository, TransferOptions
from textnlp_fast.storage.extents import object_key
from textnlp_fast.storage.manifest import Content, Extent, Manifest, serialize_manifest
from textnlp_fast.storage.manifest_reading import parse_manifest

SIZE = 10_000
RECIPES: dict[str, Recipe] = {
    "pieces": Pieces((Piece(B, 5000, 5000), Piece(None, 0, 100), Piece(B, 0, 4900))),
    "weave": Woven(100, (Strand(B, 0, 60, 60), Strand(None, 0, 40, 0))),
    "transpose": Transposed(B, 50, 100, 2),
    "cast": Cast(H, "F8_E4M3", "BF16", 200),
}


def with_recipe(recipe: Recipe) -> Manifest:
    """The manifest of the other tests, with a recipe under its tensor."""
    manifest = make_manifest()
    changed = replace(manifest.contents[A], base=recipe)
    if recipe.size_bytes != SIZE:
        changed = replace(changed, size=recipe.size_bytes, extents=(Extent(OBJECT, 100, 50),))
    contents = {**manifest.contents, A: changed}
    weights = replace(manifest.files[0], size=100 + recipe.size_bytes)
    return replace(manifest, contents=contents, files=(weights, manifest.files[1]))


@pytest.mark.parametrize("kind", RECIPES)
def test_round_trip(kind: str) -> None:
    manifest = with_recipe(RECIPES[kind])
    data = serialize_manifest(manifest)
    assert json.loads(data)["format"] == 2
    assert parse_manifest(data) == manifest
    assert serialize_manifest(parse_manifest(data)) == data


def test_without_recipes_the_format_is_what_it_was() -> None:
    assert json.loads(serialize_manifest(make_manifest()))["format"] == 1


def resealed(base: Any, **fields: Any) -> bytes:
    document = json.loads(serialize_manifest(with_recipe(RECIPES["pieces"])))
    del document["digest"]
    document["contents"][A]["base"] = base
    document["contents"][A].update(fields)
    return seal_document(document)


@pytest.mark.parametrize(
    ("base", "reason"),
    [
        ({"pieces": [[B, 0, SIZE - 1]]}, "makes 9999 bytes"),
        ({"pieces": [[B, 1, SIZE]]}, "needs 10001 bytes"),
        ({"pieces": [[B, -1, SIZE]]}, "offset"),
        ({"pieces": [[B, 0, SIZE], [None, 0, 0]]}, "length"),
        ({"pieces": [["f" * 64, 0, SIZE]]}, "not located"),
        ({"pieces": [[A, 0, SIZE]]}, "cycle"),
        ({"pieces": []}, "pieces"),
        ({"pieces": {}}, "not a list"),
        ({"weave": [1 << 60, [[B, 0, 1, 0]]]}, "groups"),
        ({"weave": [SIZE, [[B, 0, 1, 2]]]}, "needs 19999 bytes"),
        ({"transpose": [B, 1 << 30, 1 << 30, 8]}, "size"),
        ({"transpose": [B, 50, 100, 3]}, "1, 2, 4 or 8"),
        ({"cast": [B, "BF16", "F16"]}, "another type"),
        ({"cast": [B, "F32", "BF16"]}, "needs 20000 bytes"),
        ({"pieces": [[B, 0, SIZE]], "weave": []}, "one key"),
        ([B], "neither"),
        (7, "neither"),
        (True, "neither"),
    ],
)
def test_hostile_recipes_are_refused(base: Any, reason: str) -> None:
    with pytest.raises(CorruptDataError, match=reason):
        parse_manifest(resealed(base))


@pytest.mark.parametrize(
    "base",
    [
        {"magic": []},
        {"low_rank": [B, "1" * 64, "2" * 64, 50, 100, 1, 0, "I8", "I8", "once"]},
        {"sign_scale": [B, "1" * 64, "2" * 64, 25, 200]},
        {"cast": [B, "F4", "BF16"]},
    ],
)
def test_what_this_version_does_not_make_asks_for_an_upgrade(base: Any) -> None:
    with pytest.raises(UnsupportedFormatError) as caught:
        parse_manifest(resealed(base))
    assert "Upgrade" in caught.value.hint


def test_format_1_has_no_recipes() -> None:
    document = json.loads(resealed({"pieces": [[B, 0, SIZE]]}))
    del document["digest"]
    document["format"] = 1
    with pytest.raises(CorruptDataError, match="format 1 does not know"):
        parse_manifest(seal_document(document))


def test_raw_windows_have_no_recipe() -> None:
    rows = [[0, 0, 4096], [0, 0, 4096], [0, 0, 1808]]
    document = json.loads(resealed({"pieces": [[B, 0, SIZE]]}, codec="raw", extents=rows))
    del document["digest"]
    document["objects"] = [[OBJECT, 5000]]
    with pytest.raises(CorruptDataError, match="raw and names a base"):
        parse_manifest(seal_document(document))


@pytest.mark.parametrize(("count", "refused"), [(4, False), (5, True)])
def test_recipes_of_recipes_are_bounded(count: int, refused: bool) -> None:
    document = json.loads(serialize_manifest(with_recipe(RECIPES["pieces"])))
    del document["digest"]
    row = document["contents"][B]
    names = [f"{number:064x}" for number in range(count - 1)]
    for name, below in zip([A, *names], [*names, B], strict=True):
        document["contents"][name] = {**row, "base": {"pieces": [[below, 0, SIZE]]}}
    if not refused:
        parse_manifest(seal_document(document))
        return
    with pytest.raises(CorruptDataError, match="more than 4 recipes"):
        parse_manifest(seal_document(document))


# --- a real repository, changed by a stranger -------------------------------------------------------------


def opened(place: Path) -> Repository:
    options = TransferOptions(shard_bytes=1 << 16, threads=2)
    return Repository.open(place, create=True, options=options, window_bytes=1 << 12)


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, bytes]]:
    """A repository whose second version has recipes of every kind, and the files of that version."""
    root = tmp_path_factory.mktemp("attacked")
    plain = layouts.model(layers=2)
    wide = layouts.widened({"wide.weight": plain["embed.weight"]})
    turned = {"small.weight": plain["embed.weight"][:64, :64]}
    Makers.write(root / "a" / "model.safetensors", {**plain, **wide, **turned})
    second = {
        **layouts.fused(plain),
        **layouts.narrowed(wide),
        "small.kernel": turned["small.weight"].T.copy(),
        "embed.weight": layouts.grown(plain)["embed.weight"],
    }
    for name, heads in layouts.interleaved(plain).items():
        if name == "layers.1.qkv.weight":
            second[name] = heads
    Makers.write(root / "b" / "model.safetensors", layouts.trained(second))
    repository = opened(root / "r")
    repository.push(root / "a", "m", "1.0.0")
    repository.push(root / "b", "m", "1.1.0")
    bases = [content.base for content in repository.manifest("m", "1.1.0").contents.values()]
    assert {type(base) for base in bases} >= {Pieces, Woven, Transposed, Cast}
    return root / "r", Makers.tree(root / "b")


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where every value inside a JSON value is."""
    found = [path]
    if isinstance(value, dict):
        found += [place for key, inner in value.items() for place in places(inner, (*path, key))]
    elif isinstance(value, list):
        found += [place for number, inner in enumerate(value) for place in places(inner, (*path, number))]
    return found


def mutated(data: st.DataObject, document: dict[str, Any]) -> None:
    contents = document["contents"]
    digests = sorted(contents)
    digest = data.draw(st.sampled_from([d for d in digests if isinstance(contents[d]["base"], dict)]))
    base = contents[digest]["base"]
    place = data.draw(st.sampled_from(places(base)))
    new = data.draw(
        st.one_of(
            st.integers(-2, 300),
            st.sampled_from([1 << 20, 1 << 40, 1 << 52, 1 << 60, 4096, 8192]),
            st.sampled_from(digests),
            st.sampled_from([None, True, "", "F32", "BF16", [], {}, [[None, 0, 1]], 1.5]),
        )
    )
    if not place:
        contents[digest]["base"] = new
        return
    for step in place[:-1]:
        base = base[step]
    if isinstance(base[place[-1]], int) and isinstance(new, int) and data.draw(st.booleans()):
        new = max(0, base[place[-1]] + new % 65 - 32)
    base[place[-1]] = copy.deepcopy(new)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_mutated_recipes_never_lead_to_other_files(
    tmp_path: Path, attacked: tuple[Path, dict[str, bytes]], data: st.DataObject
) -> None:
    root, files = attacked
    path = root / "models" / "m" / "versions" / "1.1.0.json"
    honest = path.read_bytes()
    document = json.loads(honest)
    del document["digest"]
    for _ in range(data.draw(st.integers(1, 3))):
        mutated(data, document)
    try:
        path.write_bytes(seal_document(document))
        repository = opened(root)
        out = tmp_path / "out"
        shutil.rmtree(out, ignore_errors=True)
        try:
            repository.pull("m", "1.1.0", out)
        except (CorruptDataError, UnsupportedFormatError) as error:
            assert not out.exists()
            assert str(error)
            assert not repository.verify("m", "1.1.0").ok
        else:
            assert Makers.tree(out) == files
    finally:
        path.write_bytes(honest)


# --- work in proportion -----------------------------------------------------------------------------------


def crafted(place: Path, contents: list[tuple[bytes, Recipe | None]]) -> Repository:
    """A repository with one version, a file of these contents, each coded against its recipe in frames of 4 KiB."""
    repository = opened(place)
    known: dict[str, bytes] = {}
    located: dict[str, Content] = {}
    objects: dict[str, int] = {}
    for data, recipe in contents:
        base = recipe.read(0, len(data), lambda name, begin, end: known[name][begin:end]) if recipe else None
        windows = [
            codec.encode(data[at : at + 4096], None if base is None else base[at : at + 4096], dtype="U8")
            for at in range(0, len(data), 4096)
        ]
        body, digest, extents = b"".join(windows), blake3_hex(data), []
        name, offset = blake3_hex(body), 0
        for window in windows:
            extents.append(Extent(name, offset, len(window)))
            offset += len(window)
        repository._store.put_object(object_key(name), memoryview(body))
        objects[name] = len(body)
        known[digest] = data
        located[digest] = Content(digest, "U8", len(data), "frames", recipe, tuple(extents))
    parts = tuple(located)
    entry = FileEntry("model.bin", sum(map(len, known.values())), "blob", file_digest(parts), parts)
    manifest = Manifest("m", "1.0.0", None, "", "00", 4096, (entry,), located, objects, frozenset(objects))
    repository._versions.publish(manifest)
    return opened(place)


def everything(repository: Repository, tmp_path: Path) -> list[Callable[[], Any]]:
    return [
        lambda: repository.pull("m", None, tmp_path / "out"),
        lambda: repository.verify("m", "1.0.0").raise_if_bad(),
    ]


def test_recipes_that_ask_for_the_same_bytes_too_often_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(making, "_SLACK_BYTES", 1 << 20)
    source = bytes(number * 7 % 251 for number in range(4096 * 64))
    name = blake3_hex(source)
    # A byte of each of 64 windows in turn, 256 times: more windows than a reader keeps.
    pieces = Pieces(
        tuple(Piece(name, window * 4096 + turn, 1) for turn in range(256) for window in range(64))
    )
    target = bytes(source[piece.offset] for piece in pieces.pieces)
    repository = crafted(tmp_path / "r", [(source, None), (target, pieces)])
    for action in everything(repository, tmp_path):
        with pytest.raises(CorruptDataError, match="too often") as caught:
            action()
        assert isinstance(caught.value, TextnlpFastError)
    assert not (tmp_path / "out").exists()


def test_recipes_over_raw_and_nested_contents_are_read(tmp_path: Path) -> None:
    source = bytes(number * 7 % 251 for number in range(10_000))
    halves = source[5000:] + source[:5000]
    first = Pieces((Piece(blake3_hex(source), 5000, 5000), Piece(blake3_hex(source), 0, 5000)))
    woven = Woven(100, (Strand(blake3_hex(halves), 50, 50, 100), Strand(blake3_hex(halves), 0, 50, 100)))
    swapped = b"".join(halves[at + 50 : at + 100] + halves[at : at + 50] for at in range(0, 10_000, 100))
    repository = crafted(tmp_path / "r", [(source, None), (halves, first), (swapped, woven)])
    repository.pull("m", None, tmp_path / "out")
    assert (tmp_path / "out" / "model.bin").read_bytes() == source + halves + swapped
    assert repository.verify().ok
