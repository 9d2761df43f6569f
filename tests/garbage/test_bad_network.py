"""Push, pull and collection through a network that fails at any request: an error that says so or success, never
wrong bytes, and the next run puts things right."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from faults.proxy import Fault, FaultProxy
from servers import S3Server
from storage.conftest import Makers
from textnlp_fast.errors import CorruptDataError, StorageUnavailableError
from textnlp_fast.objectstore import ObjectStore, open_store
from textnlp_fast.storage import CollectionOptions, Repository, TransferOptions

OPTIONS = TransferOptions(shard_bytes=1 << 16, threads=1, prices=None)
NIGHTLY = "TEXTNLP_FAST_NIGHTLY" in os.environ
FAULTS: dict[str, dict[str, Any]] = {
    "lose_answer": {},
    "lose_request": {},
    "cut_body": {},
    "delay": {"seconds": 0.05},
    "status 429": {"kind": "status", "code": 429},
    "status 500": {"kind": "status", "code": 500},
    "status 503": {"kind": "status_after", "code": 503},
    "corrupt_answer": {},
}


@pytest.fixture(autouse=True)
def quiet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("TEXTNLP_FAST_AUDIT", "off")


class World:
    """A bucket with two versions, and the way to it through the proxy."""

    def __init__(self, folder: Path, server: S3Server, proxy: FaultProxy) -> None:
        self.folder, self.server, self.proxy = folder, server, proxy
        tensors = Makers.tensors(rows=8, layers=1)
        for number in range(3):
            Makers.write(folder / f"in{number}" / "m.safetensors", tensors)
            tensors = Makers.nudge(tensors, number, 0.3)

    def reset(self) -> None:
        self.proxy.heal()
        self.bucket = self.server.make_bucket()
        direct = self.direct()
        direct._versions.new_window_bytes = 1 << 12
        for number in range(2):
            direct.push(self.folder / f"in{number}", "m", f"1.{number}.0")

    def direct(self) -> Repository:
        return Repository(self._store(self.server.endpoint_url), OPTIONS)

    def through(self) -> Repository:
        return Repository(self._store(self.proxy.endpoint_url), OPTIONS)

    def _store(self, endpoint_url: str) -> ObjectStore:
        return open_store(f"s3://{self.bucket}", endpoint_url=endpoint_url, retries=2, timeout_s=5)

    def push(self, repository: Repository) -> None:
        repository.push(self.folder / "in2", "m", "1.2.0")

    def pull(self, repository: Repository) -> None:
        out = self.folder / "out"
        shutil.rmtree(out, ignore_errors=True)
        repository.pull("m", "1.1.0", out)
        assert Makers.tree(out) == Makers.tree(self.folder / "in1")

    def collect(self, repository: Repository) -> None:
        if "1.0.0" in repository.models()["m"]:
            options: Any = {"delete": True, "grace_s": 0, "push_grace_s": 0, "lease_s": 0.2}
            repository.collect_garbage(CollectionOptions(versions=[("m", "1.0.0")], rebase=True, **options))


@pytest.fixture
def world(
    tmp_path: Path, s3_server: S3Server, aws_environment: None, fault_proxy: FaultProxy
) -> Iterator[World]:
    yield World(tmp_path, s3_server, fault_proxy)


PHASES: dict[str, Callable[[World, Repository], None]] = {
    "push": World.push,
    "pull": World.pull,
    "collect": World.collect,
}


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("name", FAULTS)
def test_every_phase_bears_every_fault(world: World, phase: str, name: str) -> None:
    act = PHASES[phase]
    world.reset()
    before = len(world.proxy.requests)
    act(world, world.through())
    requests = len(world.proxy.requests) - before
    stride = 1 if NIGHTLY else 17
    for after in range(hash_of(phase + name) % stride, requests, stride):
        world.reset()
        given = {"kind": name, **FAULTS[name]}
        # As often as it is tried again and once more, so that some operations fail in the end.
        world.proxy.inject(Fault(after=after, times=1 + 3 * (after // stride % 2), **given))
        with suppress(StorageUnavailableError, CorruptDataError):
            act(world, world.through())
        world.proxy.heal()
        for again in PHASES.values():
            again(world, world.direct())
        direct = world.direct()
        assert direct.models() == {"m": ["1.1.0", "1.2.0"]}
        report = direct.verify()
        assert report.ok, (after, report.problems)
        for number in (1, 2):
            out = world.folder / f"last{number}"
            shutil.rmtree(out, ignore_errors=True)
            direct.pull("m", f"1.{number}.0", out)
            assert Makers.tree(out) == Makers.tree(world.folder / f"in{number}")


def hash_of(text: str) -> int:
    return sum(text.encode())


def test_bytes_that_flip_on_the_way_up_never_come_back_as_good(world: World) -> None:
    world.reset()
    before = len(world.proxy.requests)
    world.push(world.through())
    requests = len(world.proxy.requests) - before
    refused = 0
    for after in range(0, requests, 1 if NIGHTLY else 5):
        world.reset()
        world.proxy.inject(Fault("corrupt_request", method="PUT|POST", after=after))
        try:
            world.push(world.through())
        except (StorageUnavailableError, CorruptDataError):
            refused += 1
        world.proxy.heal()
        out = world.folder / f"out{after}"
        try:
            world.direct().pull("m", "1.2.0", out)
        except (CorruptDataError, LookupError):
            assert not out.exists()
        else:
            assert Makers.tree(out) == Makers.tree(world.folder / "in2")
        world.pull(world.direct())
