"""Files of a version read by ranges: the bytes that were pushed, no more fetched than is needed, wrong ones noticed."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from delta.models import WINDOW, Model, Tensor, files_of, models, noise, nudged, successors, weights, write
from textnlp_fast.errors import CorruptDataError, InvalidInputError, TextnlpFastError
from textnlp_fast.objectstore import ObjectStore, open_store
from textnlp_fast.storage import Repository, TransferOptions
from textnlp_fast.storage.stored_files import StoredFiles


def pushed(root: Path, *versions: Model, window_bytes: int = WINDOW) -> Repository:
    repository = Repository.open(root / "repo", create=True, window_bytes=window_bytes)
    for number, model in enumerate(versions):
        repository.push(write(model, root / f"v{number}"), "m", f"1.{number}.0")
    return repository


@given(data=st.data(), check_parts=st.booleans())
@settings(max_examples=12)
def test_any_range_is_what_was_pushed(data: st.DataObject, check_parts: bool) -> None:
    old = data.draw(models())
    new = data.draw(successors(old))
    with TemporaryDirectory() as folder:
        repository = pushed(Path(folder), old, new)
        files = repository.files("m", "1.1.0", check_parts=check_parts)
        expected = files_of(new)
        assert {path: entry.size for path, entry in files.entries.items()} == {
            path: len(content) for path, content in expected.items()
        }
        for path, content in expected.items():
            assert files.read(path) == content
            for _ in range(3):
                begin = data.draw(st.integers(0, len(content)))
                end = data.draw(st.integers(begin, len(content) + 10))
                assert files.read(path, begin, end) == content[begin:end]
            assert b"".join(files.blocks(path)) == content
            with open(Path(folder, "copy"), "w+b") as copy:  # noqa: PTH123  (its descriptor is wanted)
                files.copy(path, copy.fileno())
                assert Path(folder, "copy").read_bytes() == content


def large(seed: int) -> Model:
    """A tensor of 2 MiB: too large to be made whole whatever is asked."""
    return {"model.safetensors": {"w": Tensor("BF16", (1 << 13, 128), noise(1 << 21, seed))}}


def counted(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """The bytes that were read of objects since it was asked last."""
    read = [0]
    get_ranges = ObjectStore.get_ranges

    def many(self: ObjectStore, key: str, offsets: Sequence[int], lengths: Sequence[int]) -> Any:
        read[0] += sum(lengths)
        return get_ranges(self, key, offsets, lengths)

    monkeypatch.setattr(ObjectStore, "get_ranges", many)

    def since() -> int:
        value, read[0] = read[0], 0
        return value

    return since


def test_a_range_fetches_the_windows_that_hold_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = large(1)
    repository = pushed(tmp_path, model, window_bytes=1 << 18)
    content = files_of(model)["model.safetensors"]
    files = repository.files("m", "1.0.0")
    files.header("model.safetensors")
    since = counted(monkeypatch)
    assert files.read("model.safetensors", 1 << 20, (1 << 20) + 100) == content[1 << 20 : (1 << 20) + 100]
    # Two of eight windows: the file's bytes are not those of the tensor.
    part = since()
    assert files.read("model.safetensors") == content
    assert 0 < part <= since() / 3


def test_small_contents_are_fetched_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model: Model = {"m.safetensors": {"w": weights(1)}}
    content = files_of(model)["m.safetensors"]
    files = pushed(tmp_path, model).files("m")
    since = counted(monkeypatch)
    assert files.read("m.safetensors", 0, 8) == content[:8]
    assert files.read("m.safetensors", 1000, 1100) == content[1000:1100]
    assert since() > 0
    for begin in range(0, len(content) - 100, 1000):
        assert files.read("m.safetensors", begin, begin + 8) == content[begin : begin + 8]
    assert since() == 0


@pytest.mark.parametrize("what", ["whole", "small", "part", "copy"])
def test_bytes_that_rotted_are_noticed(tmp_path: Path, what: str) -> None:
    model = {"m.safetensors": {"w": weights(1)}} if what == "small" else large(2)
    repository = pushed(tmp_path, model, window_bytes=1 << 18)
    name = next(iter(model))
    # In the middle: headers lie at the ends.
    shard = max(
        (path for path in (tmp_path / "repo/objects").rglob("*") if path.is_file()), key=os.path.getsize
    )
    data = bytearray(shard.read_bytes())
    for offset in range(len(data) // 4, 3 * len(data) // 4, 64):
        data[offset] ^= 0x55
    shard.chmod(0o644)
    shard.write_bytes(data)
    files = repository.files("m", check_parts=what == "part")
    with pytest.raises(CorruptDataError):
        if what == "part":
            files.read(name, 1 << 19, (1 << 19) + 10)
        elif what == "copy":
            with (tmp_path / "copy").open("w+b") as copy:
                files.copy(name, copy.fileno())
        else:
            files.read(name)


def test_what_is_not_there(tmp_path: Path) -> None:
    repository = pushed(tmp_path, {"m.safetensors": {"w": weights(1)}, "config.json": b"{}"})
    files: StoredFiles = repository.files("m")
    for call in (
        lambda: files.read("other"),
        lambda: files.read("../m.safetensors"),
        lambda: files.read_into("config.json", 1, memoryview(bytearray(2))),
        lambda: files.read_into("config.json", -1, memoryview(bytearray(1))),
        lambda: files.header("config.json"),
    ):
        with pytest.raises(InvalidInputError):
            call()
    assert files.read("config.json", 2) == files.read("config.json", 5, 9) == b""
    with pytest.raises(TextnlpFastError):
        repository.files("m", "9.0.0")


def test_a_chain_of_deltas(tmp_path: Path) -> None:
    versions = [{"m.safetensors": {"w": weights(3, rows=8192)}}]
    for number in range(3):
        versions.append({"m.safetensors": {"w": nudged(versions[-1]["m.safetensors"]["w"], number)}})
    repository = pushed(tmp_path, *versions, window_bytes=1 << 16)
    for number, model in enumerate(versions):
        content = files_of(model)["m.safetensors"]
        files = repository.files("m", f"1.{number}.0")
        for begin in range(0, len(content), len(content) // 7):
            assert files.read("m.safetensors", begin, begin + 999) == content[begin : begin + 999]


def test_options_are_those_of_the_repository(tmp_path: Path) -> None:
    pushed(tmp_path, {"m.safetensors": {"w": weights(1)}})
    options = TransferOptions(threads=1)
    repository = Repository(open_store(tmp_path / "repo"), options)
    assert (
        repository.files("m").read("m.safetensors")
        == files_of({"m.safetensors": {"w": weights(1)}})["m.safetensors"]
    )
