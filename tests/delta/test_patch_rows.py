"""Tensors and rows of a target alone: what is given, what is read for it, what is refused."""

from __future__ import annotations

import random
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from delta.models import WINDOW, Model, Tensor, make, models, successors, weights, write
from textnlp_fast.contents.windows import OpenFiles
from textnlp_fast.delta import create_patch, inspect_patch, read_patch
from textnlp_fast.errors import DigestMismatchError, InvalidInputError

quick = settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])


@quick
@given(models().flatmap(lambda old: st.tuples(st.just(old), successors(old))), st.data())
def test_tensors_and_rows_alone(pair: tuple[Model, Model], data: st.DataObject) -> None:
    with TemporaryDirectory() as folder:
        root = Path(folder)
        old, new = (write(model, root / name) for model, name in zip(pair, ("old", "new"), strict=True))
        patch = make(old, new, root / "p.tnpatch")
        with read_patch(patch).open(old) as opened:
            for path, content in pair[1].items():
                if isinstance(content, bytes):
                    continue
                for name, tensor in content.items():
                    found = opened.tensor(name, file=path)
                    assert (found.dtype, found.shape, bytes(found.data)) == (
                        tensor.dtype,
                        tensor.shape,
                        tensor.data,
                    )
                    if tensor.shape and tensor.shape[0]:
                        begin = data.draw(st.integers(0, tensor.shape[0]))
                        end = data.draw(st.integers(begin, tensor.shape[0]))
                        some = opened.rows(name, begin, end, file=path)
                        assert some.shape == (end - begin, *tensor.shape[1:])
                        assert some.data == tensor.data[begin * tensor.row_bytes : end * tensor.row_bytes]


def test_rows_and_tensors_that_are_not_there(tmp_path: Path, patch: Path) -> None:
    with read_patch(patch).open(tmp_path / "old") as opened:
        assert opened.names == ["q", "norm", "k", "scalar"]
        with pytest.raises(InvalidInputError, match="no tensor 'x'"):
            opened.tensor("x")
        with pytest.raises(InvalidInputError, match="no tensor"):
            opened.tensor("q", file="model-2.safetensors")
        for begin, end in ((-1, 2), (3, 2), (0, 65)):
            with pytest.raises(InvalidInputError, match="has no rows"):
                opened.rows("q", begin, end)
        with pytest.raises(InvalidInputError, match="has no rows"):
            opened.rows("scalar", 0, 0)


@pytest.mark.parametrize("check", [True, False])
def test_another_source_is_named(tmp_path: Path, patch: Path, old: Model, *, check: bool) -> None:
    """A model of the same names and shapes: what a patch makes of it is garbage, or nothing at all."""
    other = {**old, "model-1.safetensors": {"q": weights(99), "norm": Tensor("F32", (3,), bytes(12))}}
    root = write(other, tmp_path / "other")
    with read_patch(patch).open(root, check=check) as opened:
        for whole in (lambda: opened.tensor("q"), lambda: opened.rows("q", 0, 64)):
            with pytest.raises(DigestMismatchError, match=r"other/model-1\.safetensors changed"):
                whole()
        if check:
            with pytest.raises(DigestMismatchError, match=r"other/model-1\.safetensors changed"):
                opened.rows("q", 3, 4)
        assert opened.tensor("norm").data == bytes(12)  # the same in both


def test_a_source_that_changes_under_open_hands_is_noticed_by_whole_tensors(
    tmp_path: Path, patch: Path
) -> None:
    with read_patch(patch).open(tmp_path / "old") as opened:
        opened.tensor("q")
        path = tmp_path / "old/model-1.safetensors"
        with path.open("r+b") as file:
            file.seek(path.stat().st_size - 12 - 300)  # of q, before norm
            file.write(bytes(b ^ 0x21 for b in path.read_bytes()[-312:-300]))
        for whole in (lambda: opened.tensor("q"), lambda: opened.rows("q", 0, 64)):
            with pytest.raises(DigestMismatchError, match="changed"):
                whole()


def test_rows_read_only_the_windows_that_cover_them(
    tmp_path: Path, patch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = read_patch(patch)
    digest = next(iter(file.patch.target.files[0].parts[1:]))
    reads: list[tuple[str, int, int]] = []
    plain = OpenFiles.read

    def counted(self: OpenFiles, location: str, view: memoryview, offset: int) -> None:
        reads.append((location, offset, len(view)))
        plain(self, location, view, offset)

    with file.open(tmp_path / "old", check=False) as opened:
        opened.tensor("norm")  # the header is read now
        monkeypatch.setattr(OpenFiles, "read", counted)
        opened.rows("q", 17, 19)  # 256 bytes a row: inside window 1
        offset, length = file.patch.contents[digest].extents[1]
        window = (str(patch), file.payload_offset + offset, length)
        # The window is looked through for its one frame, which is then read.
        assert [read for read in reads if read[0] == str(patch)] == [window, window]
        assert [count for location, _, count in reads if location != str(patch)] == [WINDOW]
        reads.clear()
        assert len(opened.rows("q", 20, 31).data) == 11 * 256  # of the same frame, which is kept
        assert reads == []


def test_rows_read_only_the_frames_that_cover_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames of 256 KiB in one window of 16 MiB."""
    data = random.Random(1).randbytes(1 << 21)
    old: Model = {"m": {"w": Tensor("U8", (2048, 1024), data)}}
    moved = bytearray(data)
    moved[::5] = bytes(len(moved[::5]))
    before = write(old, tmp_path / "old.safetensors")
    after = write({"m": {"w": Tensor("U8", (2048, 1024), bytes(moved))}}, tmp_path / "new.safetensors")
    create_patch(before, after, tmp_path / "p", strategy="dense")
    stored = inspect_patch(tmp_path / "p").payload_bytes
    reads: list[tuple[str, int]] = []
    plain = OpenFiles.read

    def counted(self: OpenFiles, location: str, view: memoryview, offset: int) -> None:
        reads.append((Path(location).name, len(view)))
        plain(self, location, view, offset)

    with read_patch(tmp_path / "p").open(before, check=False) as opened:
        opened.rows("w", 0, 1)
        monkeypatch.setattr(OpenFiles, "read", counted)
        assert opened.rows("w", 1000, 1100).data == moved[1000 * 1024 : 1100 * 1024]
    assert sum(count for name, count in reads if name == "old.safetensors") == 2 << 18
    assert sum(count for name, count in reads if name == "p") < stored / 3
