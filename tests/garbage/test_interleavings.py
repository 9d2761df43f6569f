"""The real code, stopped before each of its requests while something else happens to the repository from end to end.

A process that is stopped for as long as a whole collection takes, or two, is the worst that another can do to it; and
stopped for ever is a kill. Every request of every operation is such a place.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from garbage.hooks import HookedStore
from storage.conftest import Makers
from textnlp_fast.errors import ConflictError, TextnlpFastError
from textnlp_fast.objectstore import ObjectStore, open_store
from textnlp_fast.storage import CollectionOptions, Repository, RetentionRules, TransferOptions

OPTIONS = TransferOptions(shard_bytes=1 << 16, threads=1, prices=None)
LEASE_S = 0.04
_numbers = itertools.count()
# Every request in the nightly run, else every fifth, and others in each test.
STRIDE = 1 if "TEXTNLP_FAST_NIGHTLY" in os.environ else 5


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Four models, each a little different from the one before."""
    folder = tmp_path_factory.mktemp("files")
    tensors = Makers.tensors(rows=8, layers=1)
    made = []
    for number in range(4):
        made.append(Makers.write(folder / str(number) / "m.safetensors", tensors).parent)
        tensors = Makers.nudge(tensors, number, 0.3)
    return made


@pytest.fixture(autouse=True)
def no_audit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the requests would be the audit log's."""
    monkeypatch.setenv("TEXTNLP_FAST_AUDIT", "off")


class World:
    """A repository in memory with three versions of `m`, and what may happen to it."""

    def __init__(self, files: list[Path]) -> None:
        self.files = files
        self.place = f"memory://interleaving-{os.getpid()}-{next(_numbers)}"
        Repository.open(self.place, create=True, options=OPTIONS, window_bytes=1 << 12)
        for number in range(3):
            self.open().push(files[number], "m", f"1.{number}.0")

    def open(self, store: Any = None) -> Repository:
        return Repository(store or self.store, OPTIONS)

    @property
    def store(self) -> ObjectStore:
        return open_store(self.place)

    def push(self, number: int, version: str, store: Any = None) -> None:
        self.open(store).push(self.files[number], "m", version)

    def collect(self, store: Any = None, **options: Any) -> None:
        given = {"delete": True, "grace_s": 0, "push_grace_s": 0, "lease_s": LEASE_S, **options}
        self.open(store).collect_garbage(CollectionOptions(**given))

    def delete(self, version: str, store: Any = None) -> None:
        self.collect(store, versions=[("m", version)])

    def check(self, expected: dict[str, int], where: str, folder: Path) -> None:
        """These versions are there, and no others; all are whole; collecting once more leaves nothing to do."""
        repository = self.open()
        versions = repository.models().get("m", [])
        assert versions == sorted(expected), where
        report = repository.verify()
        assert report.ok, (where, report.problems)
        for version, number in expected.items():
            out = folder / f"{where.replace('/', '_')[:60]}-{version}-{next(_numbers)}"
            repository.pull("m", version, out)
            assert Makers.tree(out) == Makers.tree(self.files[number]), where
        self.collect()
        report = self.open().verify()
        assert report.ok, (where, report.problems)
        assert not report.unreferenced, where
        assert not list(self.store.list("pushes")), where


Step = Callable[[World], None]

MEANWHILE: dict[str, tuple[Step, set[str], dict[str, int]]] = {
    # what happens, the versions that it removes, those that it adds
    "a collection": (lambda world: world.collect(), set(), {}),
    "the parent is deleted": (lambda world: world.delete("1.2.0"), {"1.2.0"}, {}),
    "all but the last are deleted": (
        lambda world: world.collect(policy=[("*", RetentionRules(keep_last=1))], rebase=True),
        {"1.0.0", "1.1.0"},
        {},
    ),
    "another push of the same": (lambda world: world.push(3, "1.9.0"), set(), {"1.9.0": 3}),
}


def run_at_each_request(
    files: list[Path],
    act: Callable[[World, Any], None],
    meanwhile: Step,
    before: Step = lambda world: None,
    stride: int = STRIDE,
) -> Iterator[tuple[World, str, TextnlpFastError | None]]:
    """Runs `act` on new worlds, with `meanwhile` before one of its requests, for each request."""
    world = World(files)
    before(world)
    counting = HookedStore(world.store)
    act(world, counting)
    for at in range(next(_numbers) % stride, len(counting.calls), stride):
        world = World(files)
        before(world)
        store = HookedStore(world.store, lambda world=world: meanwhile(world), at=at)  # type: ignore[misc]
        error: TextnlpFastError | None = None
        try:
            act(world, store)
        except TextnlpFastError as caught:
            error = caught
        where = f"{store.happened} ({at})"
        if store.happened is None:  # how often a lease is renewed depends on how quick the machine is
            assert any(key.startswith("leases/") for _, key in counting.calls)
            continue
        yield world, where, error


@pytest.mark.parametrize("what", MEANWHILE)
def test_a_push_beside_anything(tmp_path: Path, files: list[Path], what: str) -> None:
    """New content, coded against the parent."""
    meanwhile, removed, added = MEANWHILE[what]
    expected = {"1.0.0": 0, "1.1.0": 1, "1.2.0": 2, "1.3.0": 3} | added
    outcomes = run_at_each_request(files, lambda world, store: world.push(3, "1.3.0", store), meanwhile)
    for world, where, error in outcomes:
        assert error is None, (where, error)
        here = {version: number for version, number in expected.items() if version not in removed}
        if what == "all but the last are deleted" and "1.2.0" not in world.open().models()["m"]:
            del here["1.2.0"]  # the push was over, so another was the last
        world.check(here, where, tmp_path)


def test_a_push_that_reuses_what_a_deleted_version_leaves(tmp_path: Path, files: list[Path]) -> None:
    def swap(world: World) -> None:
        world.delete("1.2.0")
        world.collect()

    outcomes = run_at_each_request(files, lambda world, store: world.push(2, "2.0.0", store), swap)
    for world, where, error in outcomes:
        assert error is None, (where, error)
        world.check({"1.0.0": 0, "1.1.0": 1, "2.0.0": 2}, where, tmp_path)


def test_a_push_of_leftovers_that_go(tmp_path: Path, files: list[Path]) -> None:
    """An interrupted push has left the very objects that this one wants to find."""

    def leave(world: World) -> None:
        class Killed(Exception):
            pass

        def kill() -> None:
            raise Killed

        when = lambda verb, key: verb == "create" and key.startswith("pushes/")  # noqa: E731
        with pytest.raises(Killed):
            world.push(3, "1.3.0", HookedStore(world.store, kill, when=when))

    def twice(world: World) -> None:
        world.collect()
        world.collect()

    outcomes = run_at_each_request(files, lambda world, store: world.push(3, "1.3.0", store), twice, leave)
    for world, where, error in outcomes:
        assert error is None, (where, error)
        world.check({"1.0.0": 0, "1.1.0": 1, "1.2.0": 2, "1.3.0": 3}, where, tmp_path)


def test_a_push_of_a_version_that_is_deleted_pushed_and_deleted(tmp_path: Path, files: list[Path]) -> None:
    def turmoil(world: World) -> None:
        for _ in range(2):
            world.push(3, "1.3.0")
            world.delete("1.3.0")

    def quiet(world: World) -> None:
        if "1.3.0" in world.open().models()["m"]:  # the push is over: what follows would be other files
            world.delete("1.3.0")
        turmoil(world)

    outcomes = run_at_each_request(files, lambda world, store: world.push(3, "1.3.0", store), quiet)
    for world, where, error in outcomes:
        assert error is None, (where, error)
        here = {"1.0.0": 0, "1.1.0": 1, "1.2.0": 2, "1.3.0": 3}
        if "1.3.0" not in world.open().models()["m"]:
            del here["1.3.0"]  # deleted after it was published
        world.check(here, where, tmp_path)


COLLECTIONS: dict[str, Callable[[World, Any], None]] = {
    "of a version": lambda world, store: world.delete("1.2.0", store),
    "with rebasing": lambda world, store: world.collect(
        store, versions=[("m", "1.0.0"), ("m", "1.1.0")], rebase=True
    ),
}


@pytest.mark.parametrize("kind", COLLECTIONS)
@pytest.mark.parametrize("inside", ["pushes", "collections", "all of it"])
def test_a_collection_beside_anything(tmp_path: Path, files: list[Path], kind: str, inside: str) -> None:
    """Stopped before any request, for as long as pushes and other collections take, and then going on."""
    pushed: dict[str, int] = {}

    def meanwhile(world: World) -> None:
        pushed.clear()
        if inside != "collections":
            world.push(3, "1.9.0")
            world.push(2, "1.8.0")
            pushed.update({"1.9.0": 3, "1.8.0": 2})
        if inside != "pushes":
            world.collect()
        if inside == "all of it":
            world.push(2, "1.7.0")
            pushed["1.7.0"] = 2
            world.delete("1.8.0")
            del pushed["1.8.0"]
            world.collect()

    for world, where, error in run_at_each_request(files, COLLECTIONS[kind], meanwhile):
        assert error is None or isinstance(error, ConflictError), (where, error)
        there = world.open().models()["m"]
        assert set(pushed) <= set(there), where
        here = {
            version: number
            for version, number in (("1.0.0", 0), ("1.1.0", 1), ("1.2.0", 2))
            if version in there
        }
        gone = {"1.2.0"} if kind == "of a version" else {"1.0.0", "1.1.0"}
        if error is None:
            assert not gone & set(there), where
        assert {"1.0.0", "1.1.0", "1.2.0"} - gone <= set(there), where
        world.check(here | pushed, where, tmp_path)


def test_readers_see_whole_versions_or_none(tmp_path: Path, files: list[Path]) -> None:
    def remove(world: World) -> None:
        world.delete("1.1.0")

    def pull(world: World, store: Any) -> None:
        world.open(store).pull("m", "1.1.0", tmp_path / str(next(_numbers)))

    lost = 0
    for _, where, error in run_at_each_request(files, pull, remove, stride=1):
        if error is not None:
            lost += 1
            assert error.exit_code in (3, 5), (where, error)
    assert lost
