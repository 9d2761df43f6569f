"""What is in the repository must be in its log."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from storage.audit.tamperer import key_of
from textnlp_fast.contents.documents import seal_document
from textnlp_fast.errors import StorageUnavailableError
from textnlp_fast.hashing import blake3_hex
from textnlp_fast.objectstore import ObjectStore
from textnlp_fast.storage import Repository, TransferOptions
from textnlp_fast.storage.audit import AuditPolicy, AuditReport, log_of, record, verify_log


def verified(store: ObjectStore, *, deep: bool = False) -> AuditReport:
    return verify_log(store, log_of(store, AuditPolicy()), deep=deep)


def kinds(report: AuditReport) -> set[str]:
    return {problem.kind for problem in report.problems}


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository.open(
        tmp_path / "r", create=True, options=TransferOptions(shard_bytes=1 << 16, threads=1)
    )


@pytest.fixture
def model(tmp_path: Path) -> Path:
    header = b'{"w":{"dtype":"U8","shape":[8],"data_offsets":[0,8]}}'
    path = tmp_path / "m.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    return path


def test_a_version_that_is_there_has_a_record(repository: Repository, model: Path) -> None:
    repository.push(model, "org/m", "1.0.0")
    repository.push(model, "org/m", "1.1.0")
    report = verified(repository.store, deep=True)
    assert report.ok, report.problems
    assert (report.records, report.versions) == (3, 2)
    repository.push(model, "org/m", "1.1.0")  # changes nothing, and is not recorded
    assert verified(repository.store).records == 3


def test_a_version_that_somebody_smuggled_in_shows(repository: Repository, model: Path) -> None:
    repository.push(model, "m", "1.0.0")
    for number in (1,):
        repository.store.delete(key_of(number))
    assert kinds(verified(repository.store)) == {"unrecorded"}
    repository.store.delete(key_of(0))
    assert kinds(verified(repository.store)) == {"unrecorded"}


def test_a_manifest_that_somebody_replaced_shows(repository: Repository, model: Path) -> None:
    repository.push(model, "m", "1.0.0")
    key = "models/m/versions/1.0.0.json"
    document = json.loads(repository.store.get(key))
    del document["digest"]
    repository.store.put_object(key, seal_document({**document, "message": "all is well"}))
    assert verified(repository.store).ok  # without reading manifests
    assert kinds(verified(repository.store, deep=True)) == {"replaced"}


def test_versions_from_before_the_log_are_known(
    repository: Repository, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEXTNLP_FAST_AUDIT", "off")
    repository.push(model, "m", "1.0.0")
    assert kinds(verified(repository.store)) == {"unrecorded"}
    monkeypatch.delenv("TEXTNLP_FAST_AUDIT")
    repository.push(model, "m", "1.1.0")
    assert verified(repository.store).ok
    monkeypatch.setenv("TEXTNLP_FAST_AUDIT", "off")
    repository.push(model, "m", "1.2.0")
    assert kinds(verified(repository.store)) == {"unrecorded"}


def test_a_version_that_somebody_took_away_shows(
    repository: Repository, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.push(model, "m", "1.0.0")
    repository.store.delete("models/m/versions/1.0.0.json")
    report = verified(repository.store)
    assert report.ok  # it may be that the push was killed
    assert report.gone == ["m@1.0.0"]
    monkeypatch.setenv("TEXTNLP_FAST_AUDIT", "full")
    Repository.open(repository.url).push(model, "m", "1.1.0")
    assert verified(repository.store).ok
    repository.store.delete("models/m/versions/1.1.0.json")
    assert kinds(verified(repository.store)) == {"removed"}


def test_a_version_that_was_attempted_often_is_known_by_its_last_attempts(
    repository: Repository, model: Path
) -> None:
    for number in range(70):
        detail = {"manifest": f"{number:064x}"}
        if number == 0:
            repository.push(model, "m", "1.0.0")
        record(repository.store, action="push", model="m", version="1.0.0", detail=detail, outcome="intended")
    manifest = blake3_hex(repository.store.get("models/m/versions/1.0.0.json"))
    assert kinds(verified(repository.store, deep=True)) == {"replaced"}
    record(repository.store, action="push", model="m", version="1.0.0", detail={"manifest": manifest})
    assert verified(repository.store, deep=True).ok


def test_a_version_that_was_collected_is_no_loss(repository: Repository, model: Path) -> None:
    for version in ("1.0.0", "1.1.0"):
        repository.push(model, "m", version)
    record(repository.store, action="gc.delete", model="m", version="1.0.0", outcome="intended")
    repository.store.delete("models/m/versions/1.0.0.json")
    report = verified(repository.store)
    assert report.ok
    assert report.gone == []


def test_a_push_that_failed_is_no_loss(
    repository: Repository, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = type(repository.store).compare_and_swap

    def refuse(self: ObjectStore, key: str, *arguments: Any) -> Any:
        if "versions" in key:
            raise StorageUnavailableError("no answer")
        return write(self, key, *arguments)

    monkeypatch.setattr(type(repository.store), "compare_and_swap", refuse)
    monkeypatch.setattr(
        type(repository.store), "create", lambda self, key, data: refuse(self, key, data, None)
    )
    with pytest.raises(StorageUnavailableError):
        repository.push(model, "m", "1.0.0")
    report = verified(repository.store)
    assert report.ok
    assert report.gone == []
    assert report.records == 3  # begun, intended, failed


def test_reads_are_recorded_if_that_is_asked_for(
    repository: Repository, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.push(model, "m", "1.0.0")
    repository.pull("m", "1.0.0", tmp_path / "out")
    repository.verify("m")
    assert verified(repository.store).records == 2
    monkeypatch.setenv("TEXTNLP_FAST_AUDIT_READS", "true")
    repository.pull("m", None, tmp_path / "out")
    repository.verify("m")
    told = [json.loads(repository.store.get(key_of(number))) for number in (2, 3)]
    assert [(one["action"], one["version"], one["outcome"]) for one in told] == [
        ("pull", "1.0.0", "done"),
        ("verify", None, "done"),
    ]
    assert verified(repository.store).ok
