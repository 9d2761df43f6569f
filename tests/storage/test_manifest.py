"""The manifest round-trips, and a hostile one is refused with the reason."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from textnlp_fast.contents.documents import seal_document
from textnlp_fast.contents.entries import FileEntry, file_digest
from textnlp_fast.delta.recipe import Whole
from textnlp_fast.errors import CorruptDataError, DigestMismatchError, UnsupportedFormatError
from textnlp_fast.hashing import blake3_hex
from textnlp_fast.storage.manifest import Anchor, Content, Extent, Manifest, serialize_manifest
from textnlp_fast.storage.manifest_reading import parse_manifest

A, B, C, H = (character * 64 for character in "abcd")
OBJECT = "e" * 64


def make_manifest() -> Manifest:
    contents = {
        H: Content(H, "OPAQUE", 100, "frames", None, (Extent(OBJECT, 0, 90),)),
        A: Content(
            A,
            "BF16",
            10_000,
            "frames",
            Whole(B, 10_000),
            tuple(Extent(OBJECT, 100 + n * 50, 50) for n in range(3)),
        ),
        B: Content(
            B, "BF16", 10_000, "frames", None, tuple(Extent(OBJECT, 300 + n * 90, 90) for n in range(3))
        ),
        C: Content(C, "OPAQUE", 7, "raw", None, (Extent(OBJECT, 600, 7),)),
    }
    weights = FileEntry("model.safetensors", 10_100, "safetensors", file_digest([H, A]), (H, A), ("weight",))
    config = FileEntry("sub/config.json", 7, "blob", file_digest([C]), (C,))
    return Manifest(
        model="org/name",
        version="1.0.0",
        parent=("org/name", "0.9.0"),
        created_at="2025-01-01T00:00:00Z",
        write_id="00",
        window_bytes=4096,
        files=(weights, config),
        contents=contents,
        objects={OBJECT: 1000},
        new_objects=frozenset({OBJECT}),
        message="größer",
        metadata={"step": "7"},
    )


def resealed(change: Callable[[dict[str, Any]], None]) -> bytes:
    """A manifest with a change and a digest that agrees with it: what an attacker would write."""
    document = json.loads(serialize_manifest(make_manifest()))
    del document["digest"]
    change(document)
    return seal_document(document)


def test_round_trip_is_exact_and_canonical() -> None:
    manifest = make_manifest()
    data = serialize_manifest(manifest)
    assert parse_manifest(data) == manifest
    assert serialize_manifest(parse_manifest(data)) == data
    document = json.loads(data)
    rest = {key: value for key, value in document.items() if key != "digest"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert document["digest"] == blake3_hex(text.encode())


@pytest.mark.parametrize("base", [None, ("org/name", "0.8.0")])
def test_an_anchor_round_trips(base: tuple[str, str] | None) -> None:
    manifest = replace(make_manifest(), anchor=Anchor(base, 900, 800, "größer"))
    data = serialize_manifest(manifest)
    assert parse_manifest(data) == manifest
    assert manifest.coded_against == base
    assert make_manifest().coded_against == make_manifest().parent
    assert set(json.loads(data)) - set(json.loads(serialize_manifest(make_manifest()))) == {"anchor"}


def test_every_flipped_bit_is_noticed() -> None:
    data = bytearray(serialize_manifest(make_manifest()))
    for position in range(len(data)):
        for bit in (0, 5):
            data[position] ^= 1 << bit
            with pytest.raises((CorruptDataError, UnsupportedFormatError)):
                parse_manifest(bytes(data))
            data[position] ^= 1 << bit


def set_path(path: str) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        document["files"][1]["path"] = path

    return change


ANCHOR = {"base": None, "whole_bytes": 9, "delta_bytes": 8, "reason": ""}


def anchored(value: object) -> Callable[[dict[str, Any]], None]:
    return lambda document: document.update(anchor=value)


def in_content(digest: str, **fields: Any) -> Callable[[dict[str, Any]], None]:
    return lambda document: document["contents"][digest].update(fields)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (set_path("../../etc/passwd"), "relative path"),
        (set_path("/etc/passwd"), "relative path"),
        (set_path("a/./b"), "relative path"),
        (set_path("a\\..\\b"), "unprintable|relative"),
        (set_path("a\0b"), "unprintable"),
        (set_path(""), "empty"),
        (set_path("x/" * 4000), "too long"),
        (set_path(".textnlp-fast.json"), "reserved"),
        (set_path(".git/hooks/post-checkout"), "git runs"),
        (set_path("sub/.GIT/config"), "git runs"),
        (set_path("sub/.git"), "git runs"),
        (set_path("model.safetensors"), "twice"),
        (set_path("model.safetensors/x"), "runs through"),
        (anchored(7), "no 'anchor'"),
        (anchored({}), "no 'whole_bytes'"),
        (anchored({**ANCHOR, "whole_bytes": -1}), "outside 0"),
        (anchored({**ANCHOR, "delta_bytes": 1 << 60}), "outside 0"),
        (anchored({**ANCHOR, "reason": 1}), "no 'reason'"),
        (anchored({**ANCHOR, "base": "0.9.0"}), "base of anchor"),
        (in_content(A, size=1 << 60), "outside 0"),
        (in_content(A, size=-1), "outside 0"),
        (in_content(A, size=True), "no 'size'"),
        (in_content(A, size=1e9), "no 'size'"),
        (in_content(A, size=10_001), "add up"),
        (in_content(A, extents=[]), "extents"),
        (in_content(A, extents=[[0, 0, 50]] * 4), "extents"),
        (in_content(A, extents=[[1, 0, 50]] * 3), "names object 1"),
        (in_content(A, extents=[[-1, 0, 50]] * 3), "names object -1"),
        (in_content(A, extents=[[0, 990, 50]] * 3), "outside its object"),
        (in_content(A, extents=[[0, -1, 50]] * 3), "outside its object"),
        (in_content(A, extents=[[0, 0, 0]] * 3), "outside its object"),
        (in_content(A, extents=[[0, 0, 2**70]] * 3), "outside its object"),
        (in_content(A, extents=[[0, 0, "50"]] * 3), "three integers"),
        (in_content(B, base=A), "cycle"),
        (in_content(A, base=A), "cycle"),
        (in_content(A, base="f" * 64), "not located"),
        (in_content(A, base=H), "needs 10000 bytes"),
        (in_content(A, base="B"), "64 lower-case hex"),
        (in_content(A, codec="zip"), "does not know"),
        (in_content(C, extents=[[0, 0, 6]]), "takes 6 bytes for 7"),
        (in_content(A, dtype="../x"), "odd dtype"),
        (lambda document: document.update(window_bytes=1), "window_bytes"),
        (lambda document: document.update(window_bytes=1 << 40), "window_bytes"),
        (lambda document: document["objects"].append([OBJECT, 5]), "twice"),
        (lambda document: document["objects"].append(["../x", 5]), "not a digest"),
        (lambda document: document["objects"][0].__setitem__(1, 10**30), "outside 0"),
        (lambda document: document["files"][0].update(size=5), "add up"),
        (lambda document: document["files"][0].update(digest=A), "make its digest"),
        (lambda document: document["files"][0].update(header="f" * 64), "not located"),
        (lambda document: document["files"][0].update(kind="pickle"), "does not know"),
        (lambda document: document["files"][0].update(tensors=[["weight"]]), "pairs"),
        (lambda document: document["files"].append("x"), "not an object"),
        (lambda document: document.update(parent="0.9.0"), "parent"),
        (lambda document: document.update(metadata={"step": 7}), "metadata"),
        (lambda document: document.pop("contents"), "no 'contents'"),
        (lambda document: document.update(new_objects=[1]), "new_objects"),
        (lambda document: document.update(new_objects=[-1]), "new_objects"),
    ],
)
def test_hostile_manifests_are_refused(change: Callable[[dict[str, Any]], None], reason: str) -> None:
    with pytest.raises(CorruptDataError, match=reason):
        parse_manifest(resealed(change))


def test_long_chains_are_refused() -> None:
    def change(document: dict[str, Any]) -> None:
        row = document["contents"][B]
        names = [f"{number:064x}" for number in range(200)]
        for name, base in zip(names, [*names[1:], None], strict=True):
            document["contents"][name] = {**row, "base": base}
        document["contents"][B]["base"] = names[0]

    with pytest.raises(CorruptDataError, match="more than 63 bases"):
        parse_manifest(resealed(change))


def test_unknown_format_asks_for_an_upgrade() -> None:
    with pytest.raises(UnsupportedFormatError, match="format 3") as caught:
        parse_manifest(resealed(lambda document: document.update(format=3)))
    assert "Upgrade" in caught.value.hint


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b"{",
        b'{"format":1,"format":1}',
        b'{"format":NaN}',
        b'{"format":true}',
        b'{"format":"1"}',
        b"\xff\xfe",
        b"[" * 200_000,
        b'{"format":' + b"9" * 10_000 + b"}",
        b'{"format":1,"x":"\\ud800"}',
    ],
)
def test_what_is_no_manifest_is_refused(data: bytes) -> None:
    with pytest.raises(CorruptDataError):
        parse_manifest(data)


def test_a_stale_digest_is_a_mismatch() -> None:
    document = json.loads(serialize_manifest(make_manifest()))
    document["message"] = "other"
    with pytest.raises(DigestMismatchError):
        parse_manifest(json.dumps(document).encode())
