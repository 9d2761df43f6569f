"""Whatever lies in a destination, and whatever a manifest says, nothing outside of it is written or removed."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from textnlp_fast.contents.documents import seal_document
from textnlp_fast.contents.placing import move_into, remove_from
from textnlp_fast.errors import CorruptDataError, InvalidInputError, TextnlpFastError
from textnlp_fast.storage import Repository


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder with things that somebody wants to keep."""
    folder = tmp_path / "outside"
    (folder / "files").mkdir(parents=True)
    (folder / "files" / "precious").write_text("precious")
    (folder / "precious").write_text("precious")
    (folder / "vocab.json").write_text("precious")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def pushed(repository: Repository, makers: Any, tmp_path: Path) -> Repository:
    repository.push(makers.directory(tmp_path / "in", makers.tensors()), "m", "1.0.0")
    return repository


LINKS: dict[str, Callable[[Path, Path], None]] = {
    "a_folder_of_the_model": lambda dest, out: (dest / "tokenizer").symlink_to(out),
    "a_file_of_the_model": lambda dest, out: (dest / "config.json").symlink_to(out / "precious"),
    "the_staging_folder": lambda dest, out: (dest / ".textnlp-fast-partial").symlink_to(out),
    "the_record": lambda dest, out: (dest / ".textnlp-fast.json").symlink_to(out / "precious"),
    "the_records_next_state": lambda dest, out: (dest / ".textnlp-fast.json.new").symlink_to(
        out / "precious"
    ),
}


def _in_staging(name: str, target: str) -> Callable[[Path, Path], None]:
    def plant(dest: Path, out: Path) -> None:
        place = dest / ".textnlp-fast-partial" / name
        place.parent.mkdir(parents=True)
        place.symlink_to(out / target)

    return plant


LINKS |= {
    "the_staged_files": _in_staging("files", "files"),
    "a_folder_of_staged_files": _in_staging("files/tokenizer", "."),
    "a_staged_file": _in_staging("files/config.json", "precious"),
    "the_lock": _in_staging("lock", "precious"),
    "the_journal": _in_staging("progress", "precious"),
    "the_commit": _in_staging("commit", "precious"),
    "the_commits_next_state": _in_staging("commit.new", "precious"),
}


@pytest.mark.parametrize("name", LINKS)
def test_links_in_a_destination_lead_nowhere(
    pushed: Repository, tmp_path: Path, outside: Path, name: str
) -> None:
    dest = tmp_path / "dest"
    dest.mkdir()
    LINKS[name](dest, outside)
    before = contents(outside)
    try:
        pushed.pull("m", "1.0.0", dest)
    except TextnlpFastError:
        pass
    else:
        assert contents(dest)["config.json"] == (tmp_path / "in" / "config.json").read_bytes()
    assert contents(outside) == before


def test_links_beside_a_destination_that_is_not_there_lead_nowhere(
    pushed: Repository, tmp_path: Path, outside: Path
) -> None:
    (tmp_path / ".dest.textnlp-fast-partial").symlink_to(outside)
    before = contents(outside)
    with pytest.raises(InvalidInputError, match="is a link"):
        pushed.pull("m", "1.0.0", tmp_path / "dest")
    assert contents(outside) == before


def test_a_record_of_what_was_pulled_removes_nothing_through_a_link(
    pushed: Repository, tmp_path: Path, outside: Path
) -> None:
    """A record that claims another folder's file as this package's own, to have it removed."""
    dest = tmp_path / "dest"
    dest.mkdir()
    (dest / "sub").symlink_to(outside)
    status = (outside / "precious").stat()
    row = {"mtime_ns": status.st_mtime_ns, "parts": [["0" * 64, 8]], "path": "sub/precious", "size": 8}
    record = {"files": [row], "format": 1, "model": "m", "repository": "x", "version": "0.9.0"}
    (dest / ".textnlp-fast.json").write_text(json.dumps(record))
    with pytest.raises(InvalidInputError, match="in the way"):
        pushed.pull("m", "1.0.0", dest)
    assert (outside / "precious").read_text() == "precious"


@pytest.mark.parametrize("action", ["move", "remove"])
def test_a_folder_that_becomes_a_link_meanwhile_leads_nowhere(
    tmp_path: Path, outside: Path, action: str
) -> None:
    """Somebody swaps the folder for a link again and again, while files are placed below it."""
    dest = tmp_path / "dest"
    (dest / "sub").mkdir(parents=True)
    link, away = dest / "link", dest / "away"
    before = contents(outside)
    stop = threading.Event()

    swaps = 0

    def swap() -> None:
        nonlocal swaps
        while not stop.is_set():
            try:
                (dest / "sub").rename(away)
                link.symlink_to(outside)
                link.rename(dest / "sub")
                swaps += 1
                (dest / "sub").unlink()
                away.rename(dest / "sub")
            except OSError:  # the other made the folder anew, just now: begin again
                for left in (link, away):
                    if left.is_symlink():
                        left.unlink()
                    elif left.is_dir():
                        shutil.rmtree(left)
                (dest / "sub").mkdir(exist_ok=True)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        for _ in range(20_000):
            if swaps >= 300:
                break
            try:
                if action == "move":
                    (tmp_path / "staged").write_text("evil")
                    move_into(tmp_path / "staged", dest, "sub/precious")
                else:
                    remove_from(dest, "sub/precious")
            except (InvalidInputError, OSError):
                continue
    finally:
        stop.set()
        thread.join()
    assert swaps
    assert contents(outside) == before


NAMES = [
    "/etc/passwd",
    "../x",
    "a/../../x",
    "a/./x",
    "./x",
    "..",
    ".",
    "",
    "a//x",
    "a/",
    "/",
    "a\\..\\x",
    "C:\\x",
    "a\x00b",
    "a\nb",
    "a\u202eb",
    "\ud800",
    "x" * 256,
    "x/" * 2100 + "x",
    ".textnlp-fast.json",
    ".textnlp-fast-partial/commit",
    ".textnlp-fast/x",
]


@pytest.mark.parametrize("path", NAMES, ids=lambda path: ascii(path)[:24])
def test_a_path_of_a_manifest_stays_below_the_destination(
    pushed: Repository, tmp_path: Path, path: str
) -> None:
    place = "models/m/versions/1.0.0.json"
    document = json.loads(pushed.store.get(place))
    del document["digest"]
    next(entry for entry in document["files"] if entry["path"] == "config.json")["path"] = path
    try:
        data = seal_document(document)
    except UnicodeEncodeError:  # only escapes can carry it
        data = pushed.store.get(place).replace(b'"config.json"', b'"\\ud800"')
    pushed.store.put_object(place, data)
    fresh = Repository.open(pushed.url)
    before = set(tmp_path.iterdir())
    with pytest.raises(CorruptDataError):
        fresh.pull("m", "1.0.0", tmp_path / "dest")
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize("paths", [("a", "a"), ("a", "a/b"), ("a/b", "a")])
def test_paths_of_a_manifest_do_not_run_through_each_other(
    pushed: Repository, tmp_path: Path, paths: tuple[str, str]
) -> None:
    place = "models/m/versions/1.0.0.json"
    document = json.loads(pushed.store.get(place))
    del document["digest"]
    for entry, path in zip(document["files"], paths, strict=False):
        entry["path"] = path
    pushed.store.put_object(place, seal_document(document))
    with pytest.raises(CorruptDataError):
        Repository.open(pushed.url).pull("m", "1.0.0", tmp_path / "dest")


def test_files_that_become_one_are_refused(
    pushed: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a file system where `Config.json` and `config.json` are one name."""
    real = os.open

    def folding(path: Any, flags: int, *arguments: Any, **options: Any) -> int:
        text = os.fspath(path)
        if flags & os.O_CREAT and text.endswith(("config.json", "empty.txt")) and "files" in text:
            path = os.path.join(os.path.dirname(text), "one")  # noqa: PTH118, PTH120
        return real(path, flags, *arguments, **options)

    monkeypatch.setattr("textnlp_fast.storage.pull.os.open", folding)
    with pytest.raises(InvalidInputError, match="one name"):
        pushed.pull("m", "1.0.0", tmp_path / "dest")
    assert not (tmp_path / "dest").exists()
