"""The journal of a download: what it claims after kills, power cuts and harm."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from textnlp_fast.errors import ConflictError
from textnlp_fast.objectstore import ObjectStore, open_store
from textnlp_fast.objectstore.transfers import TransferSettings, download
from textnlp_fast.objectstore.transfers import journal as journal_module
from textnlp_fast.objectstore.transfers.digests import PartHasher
from textnlp_fast.objectstore.transfers.journal import DownloadHeader, Journal
from textnlp_fast.objectstore.transfers.moving import source_of
from textnlp_fast.objectstore.transfers.protocol import UploadPlan, plan_parts
from textnlp_fast.objectstore.transfers.upload_journal import FileState, UploadJournal

HEADER = DownloadHeader("s3://bucket/key", '"etag"', 1000, 100)


def _written(path: Path) -> dict[int, str]:
    journal = Journal(path)
    journal.begin(HEADER)
    journal.claim(0, "aa")
    journal.claim(3, "bb")
    mark = journal.mark()
    journal.claim(4, "cc")
    journal.synced(mark)
    journal.claim(5, "dd")
    journal.disown([3])
    journal.close()
    return {0: "aa", 4: "cc", 5: "dd"}


def _read(path: Path) -> Journal:
    journal = Journal(path)
    journal.close()
    return journal


def test_claims_survive_a_kill(tmp_path: Path) -> None:
    claims = _written(tmp_path / "j")
    journal = _read(tmp_path / "j")
    assert (journal.header, journal.claims) == (HEADER, claims)


def test_after_a_power_cut_only_what_was_synced_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _written(tmp_path / "j")
    monkeypatch.setattr(journal_module, "boot_id", lambda: "another boot")
    assert _read(tmp_path / "j").claims == {0: "aa"}  # 4 came after the mark, 3 was disowned


def test_where_the_system_names_no_boot_only_what_was_synced_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "boot_id", lambda: "")
    _written(tmp_path / "j")
    assert _read(tmp_path / "j").claims == {0: "aa"}


@given(cut=st.integers(0, 2000))
def test_a_journal_cut_anywhere_claims_nothing_that_was_not_claimed(
    cut: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("cut") / "j"
    _written(path)
    path.write_bytes(path.read_bytes()[:cut])
    journal = _read(path)
    assert journal.header in (None, HEADER)
    assert journal.claims.items() <= {0: "aa", 3: "bb", 4: "cc", 5: "dd"}.items()
    again = Journal(path)  # and it can be written to again, behind what was whole
    again.claim(9, "ee")
    again.close()
    if journal.header is not None:
        assert _read(path).header == HEADER


@given(seed=st.integers(0, 1 << 30))
def test_a_journal_with_a_flipped_bit_claims_nothing_that_was_not_claimed(
    seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("flip") / "j"
    _written(path)
    data = bytearray(path.read_bytes())
    place = random.Random(seed).randrange(len(data) * 8)
    data[place // 8] ^= 1 << place % 8
    path.write_bytes(data)
    journal = _read(path)
    assert journal.header in (None, HEADER)
    assert journal.claims.items() <= {0: "aa", 3: "bb", 4: "cc", 5: "dd"}.items()


@pytest.mark.parametrize("data", [b"", b"\0" * 4096, b"x" * 10, b'00000000 {"format":1}\n', b"\xff\xfe\n"])
def test_what_is_no_journal_is_an_empty_one(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "j").write_bytes(data)
    journal = _read(tmp_path / "j")
    assert (journal.header, journal.claims) == (None, {})


def test_one_process_at_a_time_works_with_a_journal(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j")
    with pytest.raises(ConflictError, match="another transfer is at work"):
        Journal(tmp_path / "j")
    journal.remove()
    other = Journal(tmp_path / "j")
    journal.close()
    other.close()


CONTENT = random.Random(1).randbytes(1_024_000)
SETTINGS = TransferSettings(part_bytes=102_400)


def _begun(folder: Path, claims: dict[int, str], part: bytes) -> ObjectStore:
    """A store with an object, and what an unfinished download of it left: its journal and its file."""
    store = open_store(folder / "store")
    store.put_object("m", CONTENT)
    source = source_of(store, "m", SETTINGS)
    state = source.look()
    journal = Journal(folder / "out.part.journal")
    journal.begin(DownloadHeader(source.url, state.identity, state.size, 102_400))
    for number, digest in claims.items():
        journal.claim(number, digest)
    journal.close()
    (folder / "out.part").write_bytes(part)
    return store


def test_claims_of_parts_that_are_not_there_are_found_out(tmp_path: Path) -> None:
    store = _begun(tmp_path, dict.fromkeys([*range(10), 99], "00" * 32), bytes(1_024_000))
    report = download(store, "m", tmp_path / "out", SETTINGS)
    assert (report.moved_bytes, report.resumed_bytes) == (1_024_000, 0)
    assert (tmp_path / "out").read_bytes() == CONTENT


def test_parts_that_were_harmed_on_the_disk_are_read_again(tmp_path: Path) -> None:
    claims = {}
    for piece in plan_parts(len(CONTENT), 102_400)[:5]:
        hasher = PartHasher(piece, len(CONTENT))
        hasher.update(memoryview(CONTENT)[piece.offset :][: piece.length])
        claims[piece.number] = hasher.claim()
    part = bytearray(CONTENT[:512_000] + bytes(512_000))
    part[250_000] ^= 1
    store = _begun(tmp_path, claims, bytes(part))
    report = download(store, "m", tmp_path / "out", SETTINGS)
    assert (report.moved_bytes, report.resumed_bytes) == (614_400, 409_600)
    assert (tmp_path / "out").read_bytes() == CONTENT


def test_a_link_in_the_place_of_the_unfinished_file_is_not_followed(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store")
    store.put_object("m", b"new")
    (tmp_path / "precious").write_bytes(b"old")
    (tmp_path / "out.part").symlink_to(tmp_path / "precious")
    with pytest.raises(Exception, match="cannot write"):
        download(store, "m", tmp_path / "out", TransferSettings())
    assert (tmp_path / "precious").read_bytes() == b"old"


def test_the_journal_of_an_upload_is_its_owners_and_comes_back_as_it_was(tmp_path: Path) -> None:
    file = FileState("/model.bin", 250, 1 << 62, 1 << 61, 7)
    journal = UploadJournal("gs://b/k", file, UploadPlan(250, "ab" * 32, 100, [1, 2, 3], 4), "id", 1234.5)
    journal.write(tmp_path / "j.json")
    assert UploadJournal.read(tmp_path / "j.json") == journal
    assert (tmp_path / "j.json").stat().st_mode & 0o077 == 0
    assert [path.name for path in tmp_path.iterdir()] == ["j.json"]


@given(seed=st.integers(0, 1 << 30))
def test_a_harmed_journal_of_an_upload_is_none(seed: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("harm") / "j.json"
    file = FileState("/model.bin", 250, 5, 6, 7)
    journal = UploadJournal("gs://b/k", file, UploadPlan(250, "ab" * 32, 100, [1, 2, 3], 4), "id", 1234.5)
    journal.write(path)
    data = bytearray(path.read_bytes())
    data[random.Random(seed).randrange(len(data))] ^= 1 << seed % 8
    path.write_bytes(data)
    assert UploadJournal.read(path) in (None, journal)
