"""Killed at any write, a push leaves no version without a record, and a log that verifies."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from textnlp_fast.objectstore import ObjectStore
from textnlp_fast.storage import Repository, TransferOptions
from textnlp_fast.storage.audit import log_of, verify_log

OPTIONS = TransferOptions(shard_bytes=1 << 16, threads=1)
WRITES = ("put_object", "create", "compare_and_swap")


def write_model(path: Path, seed: int) -> Path:
    header = b'{"w":{"dtype":"U8","shape":[64],"data_offsets":[0,64]}}'
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes([seed]) * 64)
    return path


def push_and_die(place: Path, model: Path, step: int, *, after: bool) -> bool:
    """Pushes in a child that is killed at its write number `step`, before or after it; whether it came to that."""
    child = os.fork()
    if not child:
        try:
            left = [step]
            for name in WRITES:
                write = getattr(ObjectStore, name)

                def dying(self: ObjectStore, *arguments: Any, write: Any = write) -> Any:
                    left[0] -= 1
                    if left[0] < 0 and not after:
                        os.kill(os.getpid(), 9)
                    result = write(self, *arguments)
                    if left[0] < 0:
                        os.kill(os.getpid(), 9)
                    return result

                setattr(ObjectStore, name, dying)
            Repository.open(place, create="at push", options=OPTIONS).push(model, "m", f"1.{step}.0")
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


@pytest.mark.parametrize("after", [False, True], ids=["before_the_write", "after_it"])
def test_a_push_killed_at_each_write(tmp_path: Path, after: bool) -> None:
    place = tmp_path / "r"
    step = 0
    while push_and_die(place, write_model(tmp_path / "m.safetensors", step), step, after=after):
        step += 1
        assert step < 50
        if not (place / "repository.json").exists():
            continue
        store = Repository.open(place).store
        report = verify_log(store, log_of(store), deep=True)
        if (place / "audit").exists() or report.versions:
            assert report.ok, (step, report.problems)
    assert step >= 3  # shard, record and manifest at least
    repository = Repository.open(place, options=OPTIONS)
    for number in range(step + 1):  # whoever was killed pushes again
        repository.push(write_model(tmp_path / "m.safetensors", number), "m", f"1.{number}.0")
    report = verify_log(repository.store, log_of(repository.store), deep=True)
    assert report.ok, report.problems
    assert report.versions == step + 1
    assert report.gone == []
