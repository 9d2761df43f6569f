"""Versions that are stored anew: the same files, fewer bytes, and readers who were there before."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from textnlp_fast.storage import CollectionOptions, GarbageReport, Repository, RetentionRules, TransferOptions

Collect = Callable[..., GarbageReport]
COUNT = 9


@pytest.fixture
def chain(tmp_path: Path, makers: Any) -> Repository:
    """Nine versions, each coded against the one before."""
    options = TransferOptions(shard_bytes=1 << 16, threads=2, prices=None, max_chain_depth=32)
    repository = Repository.open(tmp_path / "repository", create=True, options=options, window_bytes=1 << 12)
    tensors = makers.tensors()
    for number in range(COUNT):
        makers.directory(tmp_path / f"in{number}", tensors)
        repository.push(
            tmp_path / f"in{number}",
            "m",
            f"1.{number}.0",
            message=f"step {number}",
            metadata={"n": str(number)},
        )
        tensors = makers.nudge(tensors, number, 0.4)
    return repository


def stored(root: Path) -> int:
    return sum(path.stat().st_size for path in (root / "objects").rglob("*") if path.is_file())


def check(tmp_path: Path, repository: Repository, makers: Any, numbers: range) -> None:
    repository = Repository.open(repository.url, options=repository.options)
    for number in numbers:
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        repository.pull("m", f"1.{number}.0", tmp_path / "out")
        assert makers.tree(tmp_path / "out") == makers.tree(tmp_path / f"in{number}")
    report = repository.verify()
    assert report.ok, report.problems
    assert not report.unreferenced


def test_versions_whose_bases_went_are_stored_anew(
    tmp_path: Path, chain: Repository, makers: Any, collect: Collect
) -> None:
    root = tmp_path / "repository"
    policy = [("*", RetentionRules(keep_last=2))]
    (proposal,) = chain.collect_garbage(CollectionOptions(policy=policy)).rebased
    assert proposal.versions == ("1.7.0", "1.8.0")
    before = chain.manifest("m", "1.7.0")
    without = collect(chain, keep_last=2)
    assert without.rebased == ()
    full = stored(root)
    report = collect(chain, keep_last=2, rebase=True)
    assert report.rebased_bytes > 0
    saved = full - stored(root)
    assert saved == report.swept_bytes - report.rebased_bytes
    assert saved > full / 10
    assert saved > (proposal.freed_bytes - proposal.added_bytes) / 2
    check(tmp_path, chain, makers, range(COUNT - 2, COUNT))
    after = Repository.open(chain.url).manifest("m", "1.7.0")
    assert after.same_files(before)
    assert (after.parent, after.created_at, after.message, after.metadata) == (
        before.parent,
        before.created_at,
        before.message,
        before.metadata,
    )
    assert after.coded_against is None
    assert after.write_id != before.write_id
    again = collect(chain, keep_last=2, rebase=True)
    assert (again.rebased, again.swept, again.unused_objects) == ((), 0, 0)


def test_a_reader_who_remembers_the_old_manifest_is_served(
    tmp_path: Path, chain: Repository, makers: Any, collect: Collect
) -> None:
    reader = Repository.open(chain.url, options=chain.options)
    old = reader.manifest("m", "1.7.0")
    collect(chain, keep_last=2, rebase=True)
    assert reader.manifest("m", "1.7.0") is old
    reader.pull("m", "1.7.0", tmp_path / "out")
    assert makers.tree(tmp_path / "out") == makers.tree(tmp_path / "in7")


def test_a_writer_who_remembers_the_old_manifest_builds_on_what_is_there(
    tmp_path: Path, chain: Repository, makers: Any, collect: Collect
) -> None:
    writer = Repository.open(chain.url, options=chain.options)
    for number in range(COUNT):
        writer.manifest("m", f"1.{number}.0")
    collect(chain, keep_last=2, rebase=True)
    makers.directory(tmp_path / f"in{COUNT}", makers.nudge(makers.tensors(), 77, 0.4))
    writer.push(tmp_path / f"in{COUNT}", "m", f"1.{COUNT}.0")
    check(tmp_path, chain, makers, range(COUNT - 2, COUNT + 1))


def test_shards_of_which_little_is_needed_are_packed_anew(
    tmp_path: Path, repository: Repository, makers: Any, collect: Collect
) -> None:
    rng = np.random.default_rng(5)
    parts = {f"t{number}": rng.integers(0, 1 << 16, 1 << 11, np.uint16) for number in range(12)}
    makers.write(tmp_path / "a.safetensors", parts)
    makers.write(tmp_path / "b.safetensors", {name: parts[name] for name in ("t0", "t5", "t11")})
    repository.push(tmp_path / "a.safetensors", "m", "1.0.0")
    assert repository.push(tmp_path / "b.safetensors", "m", "1.1.0").stored_bytes < 1000
    collect(repository, keep_last=1)
    full = stored(tmp_path / "repository")
    report = collect(repository, keep_last=1, rebase=True)
    assert report.rebased_bytes > 0
    assert stored(tmp_path / "repository") < full / 2
    repository.pull("m", "1.1.0", tmp_path / "out")
    assert (tmp_path / "out" / "b.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    assert repository.verify().ok


def test_what_another_model_needs_stays(
    tmp_path: Path, chain: Repository, makers: Any, collect: Collect
) -> None:
    chain.push(tmp_path / "in0", "other", "1.0.0")
    report = collect(chain, keep_last=2, rebase=True)
    assert report.swept == 0 or report.rebased
    other = Repository.open(chain.url)
    other.pull("other", "1.0.0", tmp_path / "out")
    assert makers.tree(tmp_path / "out") == makers.tree(tmp_path / "in0")
    check(tmp_path, chain, makers, range(COUNT - 2, COUNT))
