"""Repositories that were made once and committed open for ever; what a newer version wrote is refused, and named so."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from reference.repository import read_version
from textnlp_fast.contents.documents import seal_document
from textnlp_fast.errors import UnsupportedFormatError, VersionNotFoundError
from textnlp_fast.storage import CollectionOptions, Registry, Repository
from textnlp_fast.storage.garbage.document import read_garbage

COMMITTED = Path(__file__).parent / "repositories"
NAMES = ["format-1", "collected"]
AT_ONCE: dict[str, Any] = {"delete": True, "grace_s": 0, "push_grace_s": 0}


@pytest.fixture(autouse=True)
def no_audit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEXTNLP_FAST_AUDIT", "off")


def opened(tmp_path: Path, name: str) -> Repository:
    shutil.copytree(COMMITTED / name, tmp_path / "repository")
    return Repository.open(tmp_path / "repository")


def expected(name: str) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = json.loads((COMMITTED / f"{name}.json").read_text())
    return found


def check(tmp_path: Path, repository: Repository, versions: dict[str, dict[str, str]]) -> None:
    for version, files in versions.items():
        repository.pull("org/tiny", version, tmp_path / "out")
        for path, digest in files.items():
            assert hashlib.sha256((tmp_path / "out" / path).read_bytes()).hexdigest() == digest, path
    assert repository.verify().ok


@pytest.mark.parametrize("name", NAMES)
def test_every_version_comes_back(tmp_path: Path, name: str) -> None:
    repository, versions = opened(tmp_path, name), expected(name)
    assert repository.models() == {"org/tiny": list(versions)}
    check(tmp_path, repository, versions)


@pytest.mark.parametrize("name", NAMES)
def test_a_reader_written_from_the_format_reads_it_too(name: str) -> None:
    for version, files in expected(name).items():
        read = read_version(COMMITTED / name, "org/tiny", version)
        assert {path: hashlib.sha256(data).hexdigest() for path, data in read.items()} == files


@pytest.mark.parametrize("name", NAMES)
def test_the_next_version_goes_on_top(tmp_path: Path, name: str) -> None:
    repository = opened(tmp_path, name)
    newest = list(expected(name))[-1]
    repository.pull("org/tiny", newest, tmp_path / "model")
    report = repository.push(tmp_path / "model", "org/tiny", "3.0.0")
    assert report.parent == f"org/tiny@{newest}"
    assert report.new_contents == 0


@pytest.mark.parametrize("name", NAMES)
def test_a_collection_leaves_every_version_whole(tmp_path: Path, name: str) -> None:
    repository, versions = opened(tmp_path, name), expected(name)
    repository.collect_garbage(CollectionOptions(rebase=True, **AT_ONCE))
    check(tmp_path, repository, versions)
    assert not repository.verify().unreferenced
    assert not list(repository.store.list("pushes"))


def test_the_collected_repository_has_all_that_collections_leave(tmp_path: Path) -> None:
    repository = opened(tmp_path, "collected")
    manifests = {version: repository.manifest("org/tiny", version) for version in ("1.4.0", "1.5.0", "1.6.0")}
    assert any(manifest.salts for manifest in manifests.values())
    assert any(not isinstance(content.base, str) for content in manifests["1.6.0"].contents.values())
    garbage = read_garbage(repository.store).garbage
    assert garbage.swept
    assert len(list(repository.store.list("pushes"))) == 1
    with pytest.raises(VersionNotFoundError):
        repository.manifest("org/tiny", "1.0.0")
    assert Registry(repository).resolve("org/tiny", "champion") == "1.4.0"


@pytest.mark.parametrize(
    "key",
    ["repository.json", "garbage.json", "models/org/tiny/versions/1.4.0.json", "models/org/tiny/refs.json"],
)
def test_a_newer_format_is_refused(tmp_path: Path, key: str) -> None:
    opened(tmp_path, "collected")
    path = tmp_path / "repository" / key
    document = json.loads(path.read_bytes())
    del document["digest"]
    path.write_bytes(seal_document({**document, "format": 99}))
    stored = {each: each.read_bytes() for each in (tmp_path / "repository").rglob("*") if each.is_file()}
    with pytest.raises(UnsupportedFormatError, match="format 99"):
        Repository.open(tmp_path / "repository").collect_garbage(CollectionOptions(**AT_ONCE))
    now = {
        each: each.read_bytes()
        for each in (tmp_path / "repository").rglob("*")
        if each.is_file() and each.relative_to(tmp_path / "repository").parts[0] not in ("leases", ".locks")
    }
    assert now == stored


def test_a_newer_kind_of_marker_is_refused(tmp_path: Path) -> None:
    """A reader of the next format shows it as unsupported, not as damaged."""
    repository = opened(tmp_path, "collected")
    path = tmp_path / "repository" / "models" / "org" / "tiny" / "versions" / "1.0.0.json"
    path.write_bytes(seal_document({"format": 4, "kind": "marker of another size", "write_id": "0" * 32}))
    with pytest.raises(UnsupportedFormatError, match="format 4"):
        repository.manifest("org/tiny", "1.0.0")
    with pytest.raises(UnsupportedFormatError, match="nothing was collected"):
        repository.collect_garbage(CollectionOptions(**AT_ONCE))
