"""A repository against a model of it in memory: whatever the order of operations, both say the same.

A failure prints the steps that led to it, and the blob to see it again.
"""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, precondition, rule

from garbage.hooks import HookedStore
from storage.conftest import Makers
from textnlp_fast.errors import (
    InvalidInputError,
    ModelNotFoundError,
    TextnlpFastError,
    VersionExistsError,
    VersionNotFoundError,
)
from textnlp_fast.objectstore import open_store
from textnlp_fast.storage import CollectionOptions, Registry, Repository, RetentionRules, TransferOptions
from textnlp_fast.storage.pull import pull_model

NOT_FOUND = (ModelNotFoundError, VersionNotFoundError)
_numbers = itertools.count()
NIGHTLY = "TEXTNLP_FAST_NIGHTLY" in os.environ
MODELS = st.sampled_from(["m", "org/n"])
VERSIONS = st.sampled_from([f"1.{number}.0" for number in range(5)])
CONTENTS = st.integers(0, 5)
OPTIONS = st.sampled_from(
    [
        TransferOptions(shard_bytes=1 << 16, threads=1, prices=None),
        TransferOptions(shard_bytes=1 << 16, threads=1, sharding=False),
        TransferOptions(shard_bytes=1 << 16, threads=1, compression=False),
    ]
)


class Stopped(BaseException):
    """What ends an operation as a kill would: nothing of ours catches it."""


class RepositoryMachine(RuleBasedStateMachine):
    """`there` is the model: which files stand under which version, and what has names."""

    readers = Bundle("readers")

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="textnlp-fast-stateful-"))
        self.place = f"memory://stateful-{os.getpid()}-{next(_numbers)}"
        self.there: dict[tuple[str, str], int] = {}
        self.deleted: dict[tuple[str, str], int] = {}
        self.aliases: dict[tuple[str, str], str] = {}

    @initialize()
    def make(self) -> None:
        self.repository = Repository.open(self.place, create=True, window_bytes=1 << 12)
        self.store = open_store(self.place)
        tensors = Makers.tensors(rows=4, layers=1)
        for number in range(6):
            Makers.write(self.folder / str(number) / "m.safetensors", tensors)
            tensors = Makers.nudge(tensors, number, 0.3)

    def teardown(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def files(self, content: int) -> Path:
        return self.folder / str(content)

    # --- operations -------------------------------------------------------------------------------------------

    @rule(model=MODELS, version=VERSIONS, content=CONTENTS, options=OPTIONS)
    def push(self, model: str, version: str, content: int, options: TransferOptions) -> None:
        known = self.there.get((model, version))
        repository = Repository(self.store, options)
        if self._means(model, version) not in (None, content):
            with pytest.raises(VersionExistsError):
                repository.push(self.files(content), model, version)
            return
        report = repository.push(self.files(content), model, version)
        assert report.already_there == (known is not None)
        self.there[model, version] = content

    @rule(model=MODELS, version=VERSIONS, content=CONTENTS, at=st.integers(0, 40))
    def push_that_is_stopped(self, model: str, version: str, content: int, at: int) -> None:
        def stop() -> None:
            raise Stopped

        known = self.there.get((model, version))
        store = HookedStore(self.store, stop, at=at)
        try:
            Repository(store, TransferOptions(shard_bytes=1 << 16, threads=1)).push(
                self.files(content), model, version
            )  # type: ignore[arg-type]
        except Stopped:
            pass
        except VersionExistsError:
            assert self._means(model, version) not in (None, content)
        if known is None and version in Repository(self.store).models().get(model, []):
            self.there[model, version] = content

    @rule(model=MODELS, version=VERSIONS)
    def pull(self, model: str, version: str) -> None:
        content = self.there.get((model, version))
        if content is None:
            with pytest.raises(NOT_FOUND):
                Repository(self.store).pull(model, version, self.folder / "nothing")
            return
        out = self.folder / f"out{next(_numbers)}"
        self.repository.pull(model, version, out)
        assert Makers.tree(out) == Makers.tree(self.files(content))

    @rule(model=MODELS, version=VERSIONS, name=st.sampled_from(["a", "b"]))
    def set_alias(self, model: str, version: str, name: str) -> None:
        registry = Registry(Repository(self.store))
        if (model, version) in self.there:
            registry.set_alias(model, name, version)
            self.aliases[model, name] = version
        else:
            with pytest.raises(TextnlpFastError):
                registry.set_alias(model, name, version)

    @precondition(lambda self: self.aliases)
    @rule(data=st.data())
    def delete_alias(self, data: st.DataObject) -> None:
        model, name = data.draw(st.sampled_from(sorted(self.aliases)))
        Registry(Repository(self.store)).delete_alias(model, name)
        del self.aliases[model, name]

    @rule(model=MODELS, version=VERSIONS, rebase=st.booleans())
    def delete(self, model: str, version: str, rebase: bool) -> None:
        named = any(key[0] == model and value == version for key, value in self.aliases.items())
        if (model, version) not in self.there:
            with pytest.raises(NOT_FOUND):
                self._collect(versions=[(model, version)], rebase=rebase)
        elif named:
            with pytest.raises(InvalidInputError):
                self._collect(versions=[(model, version)], rebase=rebase)
        else:
            self._collect(versions=[(model, version)], rebase=rebase)
            self.deleted[model, version] = self.there.pop((model, version))

    @rule(keep=st.integers(1, 3), rebase=st.booleans(), grace_s=st.sampled_from([0, 3600]))
    def collect(self, keep: int, rebase: bool, grace_s: float) -> None:
        self._collect(policy=[("*", RetentionRules(keep_last=keep))], rebase=rebase, grace_s=grace_s)
        for model in {model for model, _ in self.there}:
            versions = sorted(version for name, version in self.there if name == model)
            named = {version for (name, _), version in self.aliases.items() if name == model}
            for version in versions[:-keep]:
                if version not in named:
                    self.deleted[model, version] = self.there.pop((model, version))

    def _means(self, model: str, version: str) -> int | None:
        """The files that a version has or had: it can have no others."""
        return (self.deleted | self.there).get((model, version))

    def _collect(self, **options: object) -> None:
        given: dict[str, object] = {
            "delete": True,
            "grace_s": 0,
            "push_grace_s": 0,
            "lease_s": 0.05,
            **options,
        }
        chosen = TransferOptions(shard_bytes=1 << 16, threads=1)
        Repository(self.store, chosen).collect_garbage(CollectionOptions(**given))  # type: ignore[arg-type]

    # --- a reader who has begun ----------------------------------------------------------------------------------

    @rule(target=readers, model=MODELS, version=VERSIONS)
    def begin_to_read(self, model: str, version: str) -> object:
        """Has read the manifest, and then takes its time."""
        try:
            return Repository(self.store).manifest(model, version), self.there[model, version]
        except NOT_FOUND:
            assert (model, version) not in self.there
            return None

    @rule(reader=readers)
    def finish_reading(self, reader: object) -> None:
        if reader is None:
            return
        manifest, content = reader  # type: ignore[misc]
        out = self.folder / f"out{next(_numbers)}"
        try:
            pull_model(self.store, manifest, out, TransferOptions(shard_bytes=1 << 16, threads=1))
        except TextnlpFastError as error:
            assert error.exit_code == 5, error  # objects were collected; never other bytes
            assert not out.exists()
        else:
            assert Makers.tree(out) == Makers.tree(self.files(content))

    # --- what holds always --------------------------------------------------------------------------------------

    @invariant()
    def both_say_the_same(self) -> None:
        if not hasattr(self, "repository"):
            return
        models: dict[str, list[str]] = {}
        for model, version in sorted(self.there):
            models.setdefault(model, []).append(version)
        repository = Repository(self.store)
        assert repository.models() == models
        report = repository.verify()
        assert report.ok, report.problems
        registry = Registry(repository)
        for (model, name), version in self.aliases.items():
            assert registry.references(model).aliases[name].version == version


RepositoryMachine.TestCase.settings = settings(
    max_examples=400 if NIGHTLY else 12,
    stateful_step_count=40 if NIGHTLY else 20,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(autouse=True)
def no_audit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEXTNLP_FAST_AUDIT", "off")


class TestRepository(RepositoryMachine.TestCase):  # type: ignore[name-defined,misc]
    """Run by pytest like any test."""
