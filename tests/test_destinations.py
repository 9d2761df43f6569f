"""What a user named as destination is replaced if it is a file, and nothing else is."""

from __future__ import annotations

import os
import socket
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from textnlp_fast.contents.staging import check_destination
from textnlp_fast.delta.patch_file import new_patch
from textnlp_fast.destinations import file_destination
from textnlp_fast.errors import InvalidInputError
from textnlp_fast.objectstore import open_store
from textnlp_fast.objectstore.transfers import TransferSettings, download, upload


def _socket(path: Path) -> None:
    where = Path.cwd()
    os.chdir(path.parent)  # a socket's whole path may have 107 bytes only
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(where)


def _device(path: Path) -> None:
    try:
        os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 7))
    except PermissionError:
        pytest.skip("device nodes are root's")


MAKERS: dict[str, Callable[[Path], None]] = {
    "fifo": os.mkfifo,
    "socket": _socket,
    "device": _device,
    "directory": Path.mkdir,
}


@pytest.fixture(params=MAKERS)
def special(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """What is no file, of each kind in turn, in a folder of its own."""
    path = tmp_path / "place" / "x"
    path.parent.mkdir()
    MAKERS[request.param](path)
    return path


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "m.bin"
    path.write_bytes(b"content" * 1000)
    return path


def _kind(path: Path) -> int:
    return stat.S_IFMT(path.lstat().st_mode)


def _is_untouched(path: Path, before: int) -> bool:
    return _kind(path) == before and [each.name for each in path.parent.iterdir()] == [path.name]


def test_a_download_replaces_nothing_but_a_file(special: Path, source: Path) -> None:
    before = _kind(special)
    with pytest.raises(InvalidInputError, match=r"only a file is replaced"):
        download(open_store(source.parent), source.name, special)
    assert _is_untouched(special, before)


def test_an_upload_replaces_nothing_but_a_file(special: Path, source: Path) -> None:
    before = _kind(special)
    with pytest.raises(InvalidInputError, match=r"only a file is replaced"):
        upload(source, open_store(special.parent), special.name)
    assert _is_untouched(special, before)


def test_a_store_replaces_no_device_and_deletes_none(special: Path) -> None:
    before = _kind(special)
    store = open_store(special.parent)
    with pytest.raises(InvalidInputError):
        store.put_object("x", b"1")
    with pytest.raises(InvalidInputError):
        store.create("x", b"1")
    store.delete("x")
    assert _kind(special) == before
    assert list(store.list()) == []


def test_neither_a_pull_nor_a_patch_replaces_anything_but_files(special: Path) -> None:
    with pytest.raises(InvalidInputError, match="in the way"):
        check_destination(special.parent, ["x"])
    with pytest.raises(InvalidInputError, match="only a file"), new_patch(special):
        pass
    assert [each.name for each in special.parent.iterdir()] == ["x"]


def test_no_fifo_keeps_a_transfer_waiting(tmp_path: Path, source: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    settings = TransferSettings(state_folder=tmp_path / "state")
    for place in (tmp_path / "store", f"memory://{tmp_path}"):
        with pytest.raises(InvalidInputError, match="no file"):
            upload(fifo, open_store(place), "m", settings)
    with pytest.raises(InvalidInputError, match="no file"):
        download(open_store(tmp_path), "fifo", tmp_path / "out")
    os.mkfifo(tmp_path / "out.part.journal")
    with pytest.raises(InvalidInputError, match="is no file"):
        download(open_store(tmp_path), source.name, tmp_path / "out")
    (tmp_path / "out.part.journal").unlink()
    os.mkfifo(tmp_path / "out.part")
    with pytest.raises(InvalidInputError, match="is no file"):
        download(open_store(tmp_path), source.name, tmp_path / "out")


def test_a_link_stays_a_link_and_its_file_is_replaced(tmp_path: Path, source: Path) -> None:
    (tmp_path / "far").mkdir()
    real, link = tmp_path / "far" / "real", tmp_path / "link"
    real.write_bytes(b"old")
    link.symlink_to(real)
    assert file_destination(link) == real
    download(open_store(tmp_path), source.name, link)
    assert link.is_symlink()
    assert real.read_bytes() == source.read_bytes()
    assert [each.name for each in real.parent.iterdir()] == ["real"]
    dangling = tmp_path / "dangling"
    dangling.symlink_to(tmp_path / "far" / "new")
    download(open_store(tmp_path), source.name, dangling)
    assert (tmp_path / "far" / "new").read_bytes() == source.read_bytes()


def test_links_to_what_is_no_file_are_refused(tmp_path: Path, source: Path) -> None:
    read, write = os.pipe()
    with os.fdopen(read), os.fdopen(write), (tmp_path / "gone").open("wb") as gone:
        (tmp_path / "gone").unlink()
        (tmp_path / "loop").symlink_to(tmp_path / "loop")
        (tmp_path / "null").symlink_to("/dev/null")
        for place in (
            f"/proc/self/fd/{write}",
            f"/proc/self/fd/{gone.fileno()}",
            tmp_path / "loop",
            tmp_path / "null",
        ):
            with pytest.raises(InvalidInputError):
                file_destination(place)
            with pytest.raises(InvalidInputError):
                download(open_store(tmp_path), source.name, place)
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


def test_an_upload_into_a_folder_refuses_a_link(tmp_path: Path, source: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "store" / "x").symlink_to(tmp_path / "real")
    with pytest.raises(InvalidInputError, match="is a link"):
        upload(source, open_store(tmp_path / "store"), "x")
    assert (tmp_path / "real").read_bytes() == b"old"


def test_a_file_that_others_keep_replacing_has_a_name(tmp_path: Path) -> None:
    """Seen by another inode at each look, it is a file all the same."""
    place, stop = tmp_path / "f", threading.Event()
    place.write_bytes(b"")

    def replace() -> None:
        while not stop.is_set():
            new = tmp_path / "new"
            new.write_bytes(b"")
            new.replace(place)

    thread = threading.Thread(target=replace)
    thread.start()
    try:
        for _ in range(2000):
            assert file_destination(place) == place.resolve()
    finally:
        stop.set()
        thread.join()
