"""Recipes over contents that the patch itself makes: right, and in proportion, however they are nested."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from delta.handmade import write_patch
from delta.models import WINDOW, tree
from reference import patch as reference
from textnlp_fast.contents.windows import OpenFiles
from textnlp_fast.delta import apply_patch, inspect_patch, making, read_patch
from textnlp_fast.delta.recipe import Piece, Pieces, Recipe, Whole
from textnlp_fast.delta.source import held_places
from textnlp_fast.errors import CorruptDataError
from textnlp_fast.hashing import blake3_hex


@st.composite
def layered(draw: st.DrawFn) -> tuple[bytes, list[tuple[bytes, Recipe | None]], list[bytes]]:
    """A source content, contents made of it and of each other, and which of them make the target."""
    source = random.Random(draw(st.integers(0, 99))).randbytes(draw(st.integers(1, 3 * WINDOW)))
    known = [source]
    stored: dict[bytes, Recipe | None] = {}
    for _ in range(draw(st.integers(1, 6))):
        kind = draw(st.sampled_from(["alone", "whole", "pieces", "pieces"]))
        base = draw(st.sampled_from(known))
        recipe: Recipe | None = None
        data = base
        if kind == "whole":
            recipe = Whole(blake3_hex(base), len(base))
        elif kind == "pieces":
            pieces, data = [], b""
            for _ in range(draw(st.integers(1, 5))):
                part = draw(st.sampled_from(known))
                offset = draw(st.integers(0, len(part) - 1))
                count = draw(st.integers(1, len(part) - offset))
                if draw(st.integers(0, 4)):
                    pieces.append(Piece(blake3_hex(part), offset, count))
                    data += part[offset : offset + count]
                else:
                    pieces.append(Piece(None, 0, count))
                    data += bytes(count)
            recipe = Pieces(tuple(pieces))
        changed = bytearray(data)
        changed[draw(st.integers(0, len(data) - 1))] ^= draw(st.integers(1, 255))
        if bytes(changed) not in known:
            stored[bytes(changed)] = recipe
            known.append(bytes(changed))
    wanted = draw(st.lists(st.sampled_from(known), min_size=1, max_size=4))
    return source, list(stored.items()), wanted


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(layered(), st.data())
def test_recipes_of_recipes(case: tuple[bytes, Any, list[bytes]], data: st.DataObject) -> None:

    source, stored, wanted = case
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "src").mkdir()
        (root / "src" / "a").write_bytes(source)
        write_patch(
            root / "p",
            {"a": [source]},
            {"b": wanted},
            stored,
            frame_size=data.draw(st.sampled_from([64, 1 << 12])),
        )
        apply_patch(root / "p", root / "src", root / "out", threads=2)
        assert tree(root / "out") == {"b": b"".join(wanted)}
        assert reference.apply((root / "p").read_bytes(), {"a": source}) == {"b": b"".join(wanted)}
        inspect_patch(root / "p")
        file = read_patch(root / "p")
        with OpenFiles() as files:
            maker = making.Maker(file, files, held_places(file.patch, root / "src"), bounded=True)
            for content in wanted:
                begin = data.draw(st.integers(0, len(content)))
                out = bytearray(data.draw(st.integers(0, len(content) - begin)))
                maker.read_into(blake3_hex(content), begin, memoryview(out))
                assert out == content[begin : begin + len(out)]


def nested(levels: int, root: Path) -> tuple[Path, bytes]:
    """Each content is the one before in pieces of one byte, backwards: every byte asks for a frame."""
    size = 2048
    data = random.Random(0).randbytes(size)
    (root / "src").mkdir()
    (root / "src" / "a").write_bytes(data)
    stored: list[tuple[bytes, Recipe | None]] = []
    made = data
    for level in range(levels):
        digest = blake3_hex(made)
        recipe = Pieces(tuple(Piece(digest, size - 1 - at, 1) for at in range(size)))
        made = made[::-1][:-1] + bytes([level])
        stored.append((made, recipe))
    write_patch(root / "p", {"a": [data]}, {"b": [made]}, stored, frame_size=2048)
    return root / "p", made


def test_recipes_of_recipes_take_no_more_than_their_size(tmp_path: Path) -> None:
    patch, made = nested(8, tmp_path)  # 2048 ** 8 bytes of work, were every byte asked for anew
    apply_patch(patch, tmp_path / "src", tmp_path / "out")
    assert tree(tmp_path / "out") == {"b": made}


def test_reading_here_and_there_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:

    monkeypatch.setattr(making, "_SLACK_BYTES", 1 << 20)
    monkeypatch.setattr(making, "_KEPT_BYTES", 0)
    file = read_patch(nested(8, tmp_path)[0])
    with OpenFiles() as files:
        maker = making.Maker(file, files, held_places(file.patch, tmp_path / "src"), bounded=True)
        with pytest.raises(CorruptDataError, match="too often") as caught:
            maker.read_into(next(iter(file.patch.target.parts())), 0, memoryview(bytearray(64)))
    assert "Apply" in caught.value.hint


def test_the_memory_of_reading_here_and_there_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each level of bases takes the frames that it needs a part of: two, were they not kept, and 2 ** 40 in all."""
    size = 4 * WINDOW
    data = random.Random(0).randbytes(size)
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a").write_bytes(data)
    stored: list[tuple[bytes, Recipe | None]] = []
    made = data
    for level in range(40):
        digest = blake3_hex(made)
        # A shift by an odd number: frames of one level never meet those of the next.
        recipe = Pieces((Piece(digest, 65, size - 65), Piece(digest, 0, 65)))
        made = made[65:] + made[:64] + bytes([level])
        stored.append((made, recipe))
    write_patch(tmp_path / "p", {"a": [data]}, {"b": [made]}, stored, frame_size=WINDOW)
    file = read_patch(tmp_path / "p")
    for room, enough in ((200 * WINDOW, True), (20 * WINDOW, False)):
        monkeypatch.setattr(making, "_MOST_ROOM_BYTES", room)
        with OpenFiles() as files:
            maker = making.Maker(file, files, held_places(file.patch, tmp_path / "src"), bounded=True)
            out = bytearray(64)
            if enough:
                maker.read_into(blake3_hex(made), 100, memoryview(out))
                assert out == made[100:164]
                continue
            with pytest.raises(CorruptDataError, match="too much memory"):
                maker.read_into(blake3_hex(made), 100, memoryview(out))
    apply_patch(tmp_path / "p", tmp_path / "src", tmp_path / "out")
    assert tree(tmp_path / "out") == {"b": made}
