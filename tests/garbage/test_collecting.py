"""Collections: what goes goes, what stays stays whole, and a second one finds nothing to do."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from textnlp_fast.errors import (
    CorruptDataError,
    InvalidInputError,
    ModelNotFoundError,
    TextnlpFastError,
    VersionExistsError,
    VersionNotFoundError,
)
from textnlp_fast.hashing import blake3_hex
from textnlp_fast.storage import CollectionOptions, GarbageReport, Repository, RetentionRules
from textnlp_fast.storage.extents import object_key
from textnlp_fast.storage.garbage import collecting, removing
from textnlp_fast.storage.garbage.collecting import collect_garbage
from textnlp_fast.storage.garbage.document import Garbage, read_garbage
from textnlp_fast.storage.garbage.removing import remove_versions
from textnlp_fast.storage.markers import MARKER_BYTES
from textnlp_fast.storage.registry.references import read_references
from textnlp_fast.storage.registry.registry import Registry

Collect = Callable[..., GarbageReport]


def objects_of(root: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in (root / "objects").rglob("*") if path.is_file()}


def reopened(repository: Repository) -> Repository:
    return Repository.open(repository.url, options=repository.options)


def check_versions(tmp_path: Path, repository: Repository, makers: Any, numbers: list[int]) -> None:
    """These versions, and no others, are there, and come back byte for byte."""
    repository = reopened(repository)
    assert repository.models() == ({"m": [f"1.{number}.0" for number in numbers]} if numbers else {})
    for number in numbers:
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        repository.pull("m", f"1.{number}.0", tmp_path / "out")
        assert makers.tree(tmp_path / "out") == makers.tree(tmp_path / f"in{number}")
    report = repository.verify()
    assert report.ok, report.problems
    assert not report.unreferenced


@pytest.mark.parametrize(
    "rule",
    [
        ("*", RetentionRules(keep_stages=frozenset({"drafts"}))),
        ("n", RetentionRules(keep_last=1)),
    ],
)
def test_rules_for_what_is_not_there_delete_nothing(
    tmp_path: Path, history: Repository, makers: Any, rule: tuple[str, RetentionRules]
) -> None:
    before = makers.tree(tmp_path / "repository")
    policy = [rule, ("*", RetentionRules(keep_last=1))]
    with pytest.raises((InvalidInputError, ModelNotFoundError)):
        history.collect_garbage(CollectionOptions(policy=policy, delete=True, grace_s=0))
    assert makers.tree(tmp_path / "repository") == before


def test_nothing_goes_unless_it_is_asked_for(tmp_path: Path, history: Repository, makers: Any) -> None:
    before = makers.tree(tmp_path / "repository")
    report = history.collect_garbage(CollectionOptions(policy=[("*", RetentionRules(keep_last=1))]))
    assert report.going == ["m@1.0.0", "m@1.1.0", "m@1.2.0", "m@1.3.0"]
    assert report.verdicts[-1].reasons == ("latest", "among the last 1")
    assert not report.deleted
    assert makers.tree(tmp_path / "repository") == before


def test_old_versions_go_and_their_space_is_free(
    tmp_path: Path, history: Repository, makers: Any, collect: Collect
) -> None:
    root = tmp_path / "repository"
    before = objects_of(root)
    predicted = history.collect_garbage(CollectionOptions(policy=[("*", RetentionRules(keep_last=2))]))
    report = collect(history, keep_last=2)
    after = objects_of(root)
    assert report.going == ["m@1.0.0", "m@1.1.0", "m@1.2.0"]
    gone = {digest: size for digest, size in before.items() if digest not in after}
    assert (report.swept, report.swept_bytes) == (len(gone), sum(gone.values()))
    assert (predicted.unused_objects, predicted.unused_bytes) == (len(gone), sum(gone.values()))
    assert set(after) == set().union(*(history.manifest("m", v).objects for v in ("1.3.0", "1.4.0")))
    check_versions(tmp_path, history, makers, [3, 4])
    again = collect(history, keep_last=2)
    assert (again.going, again.unused_objects, again.swept, again.waiting) == ([], 0, 0, 0)
    assert objects_of(root) == after


def test_a_single_version_goes(tmp_path: Path, history: Repository, makers: Any, collect: Collect) -> None:
    collect(history, versions=[("m", "1.4.0")])
    check_versions(tmp_path, history, makers, [0, 1, 2, 3])
    with pytest.raises(VersionNotFoundError, match=r"no version 1\.4\.0"):
        reopened(history).pull("m", "1.4.0", tmp_path / "out")
    with pytest.raises(VersionNotFoundError):
        collect(history, versions=[("m", "1.4.0")])


def test_a_version_that_went_can_be_pushed_again(
    tmp_path: Path, history: Repository, makers: Any, collect: Collect
) -> None:
    collect(history, versions=[("m", "1.4.0")])
    again = reopened(history).push(tmp_path / "in4", "m", "1.4.0")
    assert not again.already_there
    check_versions(tmp_path, history, makers, [0, 1, 2, 3, 4])
    # What it held was swept: a delete of that may be on its way still, so it has another name now.
    assert reopened(history).manifest("m", "1.4.0").salts
    collect(history, versions=[("m", "1.4.0")])
    with pytest.raises(VersionExistsError, match="was deleted, and had other files"):
        reopened(history).push(tmp_path / "in3", "m", "1.4.0")
    assert not reopened(history).push(tmp_path / "in4", "m", "1.4.0").already_there


def test_all_versions_of_a_model_can_go(
    tmp_path: Path, history: Repository, makers: Any, collect: Collect
) -> None:
    collect(history, versions=[("m", f"1.{number}.0") for number in range(5)])
    check_versions(tmp_path, history, makers, [])
    assert objects_of(tmp_path / "repository") == {}
    markers = list((tmp_path / "repository" / "models").rglob("versions/*.json"))
    assert len(markers) == 5
    assert {path.stat().st_size for path in markers} == {MARKER_BYTES}
    assert not reopened(history).push(tmp_path / "in2", "m", "1.2.0").already_there
    check_versions(tmp_path, history, makers, [2])


def test_unused_objects_wait_out_their_grace(tmp_path: Path, history: Repository, makers: Any) -> None:
    now = 1_000_000.0

    def run(**changes: Any) -> GarbageReport:
        options = CollectionOptions(delete=True, grace_s=3600, lease_s=2, **changes)
        return collect_garbage(history.store, history._versions, options, history.options, clock=lambda: now)

    stored = objects_of(tmp_path / "repository")
    first = run(versions=[("m", "1.4.0")])
    assert first.swept == 0
    assert first.waiting > 0
    assert first.next_due_s == now + 3600
    assert objects_of(tmp_path / "repository") == stored
    now += 3599
    assert run().swept == 0
    now -= 10_000  # a collector whose clock is behind
    assert run().swept == 0
    now += 10_002 + 3600
    last = run()
    assert last.swept == first.waiting
    assert last.swept_bytes == first.waiting_bytes
    check_versions(tmp_path, history, makers, [0, 1, 2, 3])


def test_a_manifest_that_cannot_be_read_stops_everything(
    tmp_path: Path, history: Repository, makers: Any, collect: Collect
) -> None:
    manifest = tmp_path / "repository" / "models" / "m" / "versions" / "1.1.0.json"
    data = manifest.read_bytes()
    manifest.write_bytes(data.replace(b'"message":""', b'"message":"x"'))
    stored = objects_of(tmp_path / "repository")
    with pytest.raises(CorruptDataError, match="nothing was collected"):
        collect(history, keep_last=1)
    assert objects_of(tmp_path / "repository") == stored
    manifest.write_bytes(data)
    check_versions(tmp_path, history, makers, [0, 1, 2, 3, 4])


def test_what_an_interrupted_push_left_goes(
    tmp_path: Path, history: Repository, makers: Any, collect: Collect
) -> None:
    stray = b"left behind" * 100
    history.store.put_object(object_key(blake3_hex(stray)), stray)
    report = collect(history)
    assert (report.swept, report.swept_bytes) == (1, len(stray))
    check_versions(tmp_path, history, makers, [0, 1, 2, 3, 4])


def test_lost_objects_of_a_version_whose_base_went_are_made_again(
    tmp_path: Path, history: Repository, makers: Any, collect: Collect
) -> None:
    collect(history, keep_last=2)
    for path in (tmp_path / "repository" / "objects").rglob("*"):
        if path.is_file():
            path.unlink()
    before = reopened(history).manifest("m", "1.3.0")
    for number in (3, 4):
        assert reopened(history).push(tmp_path / f"in{number}", "m", f"1.{number}.0").already_there
    after = reopened(history).manifest("m", "1.3.0")
    assert after.same_files(before)
    assert (after.created_at, after.message) == (before.created_at, before.message)
    assert collect(history).swept > 0  # what the attempt to make the same objects again left
    check_versions(tmp_path, history, makers, [3, 4])


def test_names_that_were_swept_are_forgotten_in_time(
    tmp_path: Path, history: Repository, makers: Any, collect: Collect, monkeypatch: pytest.MonkeyPatch
) -> None:
    collect(history, versions=[("m", "1.4.0")])
    assert (read_garbage(history.store).garbage.era, len(read_garbage(history.store).garbage.swept)) == (0, 1)
    monkeypatch.setattr("textnlp_fast.storage.garbage.document.MAX_SWEPT", 1)
    collect(history, versions=[("m", "1.3.0")])
    assert read_garbage(history.store).garbage == Garbage(era=1)
    reopened(history).push(tmp_path / "in3", "m", "1.3.0")
    newest = reopened(history).manifest("m", "1.3.0")
    assert newest.new_objects == set(newest.salts)
    assert all(salt.startswith("01000000") for salt in newest.salts.values())
    check_versions(tmp_path, history, makers, [0, 1, 2, 3])


def test_objects_of_a_version_with_suffixes_are_made_again(
    tmp_path: Path, history: Repository, makers: Any, collect: Collect
) -> None:
    collect(history, versions=[("m", "1.4.0")])
    reopened(history).push(tmp_path / "in4", "m", "1.4.0")
    manifest = reopened(history).manifest("m", "1.4.0")
    (name,) = manifest.salts
    path = tmp_path / "repository" / "objects" / name[:2] / name
    data = path.read_bytes()
    path.unlink()
    assert reopened(history).push(tmp_path / "in4", "m", "1.4.0").already_there
    assert path.read_bytes() == data
    assert reopened(history).manifest("m", "1.4.0") == manifest


def test_odd_rules_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="not negative"):
        CollectionOptions(grace_s=-1)
    with pytest.raises(InvalidInputError, match="latest"):
        RetentionRules(keep_last=0)


def test_what_the_registry_names_stays(
    tmp_path: Path, history: Repository, makers: Any, collect: Collect
) -> None:
    registry = Registry(history)
    registry.set_alias("m", "champion", "1.0.0")
    registry.pin("m", "1.1.0", "the paper's")
    report = collect(history, keep_last=1)
    reasons = {verdict.facts.version: verdict.reasons for verdict in report.verdicts}
    assert reasons["1.0.0"] == ("alias champion",)
    assert reasons["1.1.0"] == ("pinned: the paper's",)
    check_versions(tmp_path, history, makers, [0, 1, 4])
    with pytest.raises(InvalidInputError, match="alias champion"):
        collect(history, versions=[("m", "1.0.0")])
    with pytest.raises(VersionNotFoundError):
        registry.set_alias("m", "other", "1.2.0")
    registry.delete_alias("m", "champion")
    assert collect(history, keep_last=1).going == ["m@1.0.0"]


def test_a_version_that_is_named_while_it_goes_stays(
    tmp_path: Path, history: Repository, makers: Any, collect: Collect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Named after the collector looked, and before it acts; and while it is barred already."""
    registry = Registry(history)
    refused: list[str] = []

    def name_some(*arguments: Any) -> dict[str, str]:
        registry.set_alias("m", "late", "1.0.0")
        return remove_versions(*arguments)

    def name_more(*arguments: Any) -> str:
        with pytest.raises(TextnlpFastError) as caught:
            registry.set_alias("m", "later", "1.2.0")
        refused.append(str(caught.value))
        return remove_one(*arguments)

    remove_one = removing._remove_one
    monkeypatch.setattr(collecting, "remove_versions", name_some)
    monkeypatch.setattr(removing, "_remove_one", name_more)
    report = collect(history, keep_last=2)
    assert report.spared == {"m@1.0.0": "alias late"}
    assert len(refused) == 2
    check_versions(tmp_path, history, makers, [0, 3, 4])


def test_a_removal_that_was_cut_short_is_settled(
    tmp_path: Path, history: Repository, makers: Any, collect: Collect, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: Any) -> str:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(removing, "_remove_one", die)
        with pytest.raises(KeyboardInterrupt):
            collect(history, keep_last=4)
    assert read_references(history.store, "m").retiring == {"1.0.0"}
    collect(history)
    assert not read_references(history.store, "m").retiring
    Registry(history).set_alias("m", "alive", "1.0.0")
    check_versions(tmp_path, history, makers, [0, 1, 2, 3, 4])
