"""Pushes that let prices decide: what they choose is what is stored, and every version comes back."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from textnlp_fast.contents.documents import seal_document
from textnlp_fast.errors import CorruptDataError, StorageUnavailableError
from textnlp_fast.storage import Prices, PushReport, Readers, Repository, StorageConfig, TransferOptions
from textnlp_fast.storage.config import DEFAULT_PRICES
from textnlp_fast.storage.manifest import chain_of
from textnlp_fast.storage.planning import plan_pull

Makers = Any

WAITING = replace(DEFAULT_PRICES, usd_per_restore_s=0.008)
ARCHIVE = replace(DEFAULT_PRICES, usd_per_restore_s=0.00001, retention_months=36)
FRESH = Readers(reads_per_version=8)


def open_with(place: Path, prices: Prices | None, readers: Readers = FRESH, **options: Any) -> Repository:
    chosen = TransferOptions(shard_bytes=1 << 16, threads=2, prices=prices, readers=readers, **options)
    return Repository.open(place, create=True, options=chosen, window_bytes=1 << 13)


def push_run(
    tmp_path: Path, makers: Makers, repository: Repository, count: int, share: float = 0.05
) -> list[PushReport]:
    """Versions 1.0.0, 1.1.0, ... of a model whose weights move a little each time."""
    tensors = makers.tensors()
    reports = []
    for number in range(count):
        folder = tmp_path / f"in{number}"
        if not folder.exists():
            makers.write(folder / "model.safetensors", tensors)
        reports.append(repository.push(folder, "m", f"1.{number}.0"))
        tensors = makers.nudge(tensors, number, share)
    return reports


def fetched(repository: Repository, version: str) -> int:
    """Bytes that who holds nothing reads from the repository."""
    return plan_pull(repository.manifest("m", version), {}).fetch_bytes


def deepest(repository: Repository, version: str) -> int:
    manifest = repository.manifest("m", version)
    return max(len(chain_of(manifest.contents, digest)) - 1 for digest in manifest.wanted())


def files_below(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_thirty_versions(tmp_path: Path, makers: Makers) -> None:
    repository = open_with(tmp_path / "priced", WAITING)
    reports = push_run(tmp_path, makers, repository, 30)
    plain = open_with(tmp_path / "plain", None)
    push_run(tmp_path, makers, plain, 30)

    assert [report.parent for report in reports] == [None, *(f"m@1.{number}.0" for number in range(29))]
    whole = [number for number, report in enumerate(reports) if report.base is None]
    assert whole[0] == 0
    assert 3 <= len(whole) <= 15, whole
    for number, report in enumerate(reports):
        version = f"1.{number}.0"
        manifest = repository.manifest("m", version)
        # What the report says is how it is stored.
        if number in whole:
            assert deepest(repository, version) == 0
            assert report.stored_bytes > report.raw_bytes / 3
        else:
            assert report.stored_bytes < report.raw_bytes / 4
            assert manifest.coded_against is not None
            below = repository.manifest(*manifest.coded_against).wanted()
            own = {base for digest in manifest.wanted() for base in manifest.contents[digest].bases}
            assert own <= below
        if number:
            assert manifest.anchor is not None
            assert report.reason == manifest.anchor.reason
        repository.pull("m", version, tmp_path / "out")
        assert makers.tree(tmp_path / "out") == makers.tree(tmp_path / f"in{number}")
        shutil.rmtree(tmp_path / "out")
        repository.pull("m", version, tmp_path / "kept")  # over the version before
        assert makers.tree(tmp_path / "kept") == makers.tree(tmp_path / f"in{number}")
    assert repository.verify().ok

    versions = [f"1.{number}.0" for number in range(30)]
    most = max(deepest(repository, version) for version in versions)
    assert most < max(deepest(plain, version) for version in versions) == 8
    # Waiting costs: nobody decodes much more than a version stored whole.
    assert max(fetched(repository, version) for version in versions) < 1.5 * fetched(repository, "1.0.0")


def test_where_waiting_is_cheap_nothing_is_whole_twice(tmp_path: Path, makers: Makers) -> None:
    repository = open_with(tmp_path / "r", ARCHIVE, Readers(reads_per_version=0.1))
    reports = push_run(tmp_path, makers, repository, 14)
    assert [number for number, report in enumerate(reports) if report.base is None] == [0]
    assert max(deepest(repository, f"1.{number}.0") for number in range(14)) <= 8


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_the_depth_stays_a_hard_limit(tmp_path: Path, makers: Makers, depth: int) -> None:
    prices = replace(ARCHIVE, retention_months=1000)
    repository = open_with(tmp_path / "r", prices, Readers(reads_per_version=0), max_chain_depth=depth)
    push_run(tmp_path, makers, repository, 8)
    assert max(deepest(repository, f"1.{number}.0") for number in range(8)) == depth


def test_a_jump_is_stored_whole_at_once(tmp_path: Path, makers: Makers) -> None:
    repository = open_with(tmp_path / "r", DEFAULT_PRICES)
    push_run(tmp_path, makers, repository, 3)
    other = makers.write(tmp_path / "other" / "model.safetensors", makers.tensors(seed=99))
    report = repository.push(other.parent, "m", "2.0.0")
    assert report.base is None
    assert report.reason.startswith("stored whole: ")
    assert report.parent == "m@1.2.0"
    assert repository.log("m")[-1].parent == "1.2.0"


def test_who_names_a_parent_gets_it(tmp_path: Path, makers: Makers) -> None:
    hurried = replace(WAITING, usd_per_restore_s=1)
    repository = open_with(tmp_path / "r", hurried)
    assert [report.base for report in push_run(tmp_path, makers, repository, 2)] == [None, None]
    named = open_with(tmp_path / "named", hurried)
    push_run(tmp_path, makers, named, 1)
    report = named.push(tmp_path / "in1", "m", "1.1.0", parent="1.0.0")
    assert report.base == report.parent == "m@1.0.0"
    assert report.reason == ""
    assert named.manifest("m").anchor is None
    assert deepest(named, "1.1.0") == 1


class _Cut:
    """The repository's store goes away before the manifest is written."""

    def __init__(self, repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*_: object) -> None:
            raise StorageUnavailableError("the store went away")

        monkeypatch.setattr(repository._versions, "publish", fail)


@pytest.mark.parametrize("prices", [WAITING, DEFAULT_PRICES, None])
def test_an_interrupted_push_makes_the_same_objects_again(
    tmp_path: Path, makers: Makers, monkeypatch: pytest.MonkeyPatch, prices: Prices | None
) -> None:
    place = tmp_path / "r"
    bases = set()
    tensors = makers.tensors()
    for number in range(7):
        tensors = makers.nudge(tensors, number)
        source = makers.write(tmp_path / f"in{number}" / "model.safetensors", tensors).parent
        with monkeypatch.context() as patched:
            cut = open_with(place, prices)
            _Cut(cut, patched)
            with pytest.raises(StorageUnavailableError):
                cut.push(source, "m", f"1.{number}.0")
        objects = files_below(place / "objects")
        # Another process, with the parent's files at hand, another number of threads and less memory.
        again = Repository.open(
            place,
            options=TransferOptions(
                shard_bytes=1 << 16,
                threads=1,
                memory_budget_bytes=64 << 20,
                prices=prices,
                readers=FRESH,
            ),
        )
        report = again.push(
            source, "m", f"1.{number}.0", base_path=tmp_path / f"in{number - 1}" if number else None
        )
        assert report.uploaded_bytes == 0
        assert files_below(place / "objects") == objects
        bases.add(report.base)
        # And once it is published, lost objects come back the same, whatever it was coded against.
        for path in (place / "objects").rglob("*"):
            if path.is_file() and path.name in again.manifest("m").new_objects:
                path.unlink()
        mended = open_with(place, None).push(source, "m", f"1.{number}.0")
        assert mended.already_there
        assert mended.base == report.base
        assert files_below(place / "objects") == objects
    assert open_with(place, prices).verify().ok
    assert None in bases
    assert len(bases) > (1 if prices else 6)


@pytest.mark.parametrize("broken", range(5))
def test_an_unreadable_ancestor_stops_nothing(tmp_path: Path, makers: Makers, broken: int) -> None:
    place = tmp_path / "r"
    push_run(tmp_path, makers, open_with(place, ARCHIVE, Readers(reads_per_version=0.1)), 6)
    path = place / "models" / "m" / "versions" / f"1.{broken}.0.json"
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    new = makers.write(tmp_path / "new" / "model.safetensors", makers.nudge(makers.tensors(), 77)).parent
    for prices in (ARCHIVE, WAITING):
        repository = open_with(place, prices)
        report = repository.push(new, "m", "2.0.0" if prices is ARCHIVE else "2.1.0")
        assert report.reason or report.new_contents == 0
        repository.pull("m", None, tmp_path / "out")
        assert makers.tree(tmp_path / "out") == makers.tree(new)


def test_a_parent_with_a_hostile_name_stops_nothing(tmp_path: Path, makers: Makers) -> None:
    place = tmp_path / "r"
    push_run(tmp_path, makers, open_with(place, ARCHIVE, Readers(reads_per_version=0.1)), 3)
    for name in ("../../etc", "m"):
        path = place / "models" / "m" / "versions" / "1.2.0.json"
        document = json.loads(path.read_bytes())
        del document["digest"]
        document["parent"] = [name, "../passwd"]
        path.write_bytes(seal_document(document))
        new = makers.write(tmp_path / name[-1] / "model.safetensors", makers.nudge(makers.tensors(), 77))
        report = open_with(place, ARCHIVE).push(new.parent, "m", "2.0.0")
        assert report.parent == "m@1.2.0"
        (place / "models" / "m" / "versions" / "2.0.0.json").unlink()


def test_an_older_base_that_lost_objects_is_not_built_on(tmp_path: Path, makers: Makers) -> None:
    """The version is whole then: coding against what is lost would lose it too."""
    place = tmp_path / "r"
    prices, readers = ARCHIVE, Readers(reads_per_version=0)
    push_run(tmp_path, makers, open_with(place, prices, readers, max_chain_depth=1), 3)
    root = open_with(place, prices).manifest("m", "1.0.0")
    for digest in root.new_objects:
        (place / "objects" / digest[:2] / digest).unlink()
    new = makers.write(tmp_path / "new" / "model.safetensors", makers.nudge(makers.tensors(), 77)).parent
    repository = open_with(place, prices, readers, max_chain_depth=1)
    repository.push(new, "m", "2.0.0")
    repository.pull("m", "2.0.0", tmp_path / "out")
    assert makers.tree(tmp_path / "out") == makers.tree(new)


def test_no_more_manifests_are_read_than_without_prices(
    tmp_path: Path, makers: Makers, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "r"
    push_run(tmp_path, makers, open_with(place, ARCHIVE, Readers(reads_per_version=0.1)), 10)
    counts = []
    for prices in (None, ARCHIVE):
        repository = open_with(place, prices)
        reads: list[str] = []
        read = repository._versions._read

        def counted(name: str, version: str, reads: list[str] = reads, read: Any = read) -> Any:
            reads.append(version)
            return read(name, version)

        monkeypatch.setattr(repository._versions, "_read", counted)
        folder = tmp_path / f"new-{prices is None}"
        makers.write(folder / "model.safetensors", makers.nudge(makers.tensors(), len(counts) + 50))
        repository.push(folder, "m", f"2.{len(counts)}.0")
        counts.append(len([version for version in reads if version.startswith("1.")]))
    assert counts == [10, 10]


def test_damaged_bytes_of_the_parent_are_told_as_ever(tmp_path: Path, makers: Makers) -> None:
    place = tmp_path / "r"
    push_run(tmp_path, makers, open_with(place, WAITING), 1)
    for path in (place / "objects").rglob("*"):
        if path.is_file():
            path.write_bytes(bytes(byte ^ 0x40 for byte in path.read_bytes()))
    makers.write(tmp_path / "new" / "model.safetensors", makers.nudge(makers.tensors(), 5))
    with pytest.raises(CorruptDataError, match=r"stored base of tensor .* is damaged"):
        open_with(place, WAITING).push(tmp_path / "new", "m", "1.1.0")


def test_what_did_not_change_counts_for_nothing(tmp_path: Path, makers: Makers) -> None:
    """One tensor of many moves: the others are found again and have no part in the price."""
    repository = open_with(tmp_path / "r", WAITING)
    tensors = makers.tensors()
    rng = np.random.default_rng(0)
    for number in range(6):
        folder = tmp_path / f"in{number}"
        makers.write(folder / "model.safetensors", tensors)
        report = repository.push(folder, "m", f"1.{number}.0")
        if number:
            anchor = repository.manifest("m", f"1.{number}.0").anchor
            assert anchor is not None
            moved = tensors["layers.1.q_proj.weight"].nbytes
            assert anchor.delta_bytes < anchor.whole_bytes <= moved
            assert report.new_contents <= 2
        change = (rng.random(tensors["layers.1.q_proj.weight"].shape) < 0.05).astype(np.uint16)
        tensors = {**tensors, "layers.1.q_proj.weight": tensors["layers.1.q_proj.weight"] + change}
        repository.pull("m", f"1.{number}.0", tmp_path / "out")
        assert makers.tree(tmp_path / "out") == makers.tree(folder)


def test_a_described_bucket_takes_prices_too(tmp_path: Path, makers: Makers) -> None:
    hurried = replace(WAITING, usd_per_restore_s=1)
    config = StorageConfig(bucket_name="r", root=tmp_path, prices=hurried, readers=FRESH)
    repository = Repository.from_config(config, create=True)
    assert (repository.options.prices, repository.options.readers) == (hurried, FRESH)
    assert [report.base for report in push_run(tmp_path, makers, repository, 3)] == [None] * 3
    assert StorageConfig(bucket_name="r").transfer == TransferOptions()
