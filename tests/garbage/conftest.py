"""A repository with some versions, and the means to collect in it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from storage.conftest import Makers
from textnlp_fast.storage import CollectionOptions, GarbageReport, Repository, RetentionRules, TransferOptions

OPTIONS = TransferOptions(shard_bytes=1 << 16, threads=2)
AT_ONCE: dict[str, Any] = {"delete": True, "grace_s": 0, "push_grace_s": 0, "lease_s": 2.0}


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Journals of uploads that others on this machine began are none of a test's business."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def makers() -> type[Makers]:
    return Makers


@pytest.fixture
def options() -> TransferOptions:
    return OPTIONS


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository.open(tmp_path / "repository", create=True, options=OPTIONS, window_bytes=1 << 12)


@pytest.fixture
def history(tmp_path: Path, repository: Repository) -> Repository:
    """Five versions of `m`, each but the first coded against the one before; their files are in `in0` to `in4`."""
    tensors = Makers.tensors()
    for number in range(5):
        Makers.directory(tmp_path / f"in{number}", tensors)
        repository.push(tmp_path / f"in{number}", "m", f"1.{number}.0")
        tensors = Makers.nudge(tensors, number)
    return repository


@pytest.fixture
def collect() -> Callable[..., GarbageReport]:
    """Collects at once: `collect(repository, keep_last=2)`, `collect(repository, versions=[("m", "1.0.0")])`."""

    def run(repository: Repository, *, keep_last: int | None = None, **options: Any) -> GarbageReport:
        policy = [("*", RetentionRules(keep_last=keep_last))] if keep_last else []
        return repository.collect_garbage(CollectionOptions(**{**AT_ONCE, "policy": policy, **options}))

    return run
