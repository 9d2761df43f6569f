"""Any sequence of changes, by two registries on one repository, against a few dictionaries."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from reference.references import read_history, read_references, replayed
from textnlp_fast.errors import (
    ConflictError,
    DeploymentNotFoundError,
    InvalidInputError,
    NotAllowedError,
    VersionNotFoundError,
)
from textnlp_fast.storage import Registry, Repository
from textnlp_fast.storage.registry.lifecycle import DEFAULT_LIFECYCLE

VERSIONS = ["1.0.0", "1.1.0", "2.0.0"]
ALIASES = ["champion", "next"]
TARGETS = ["eu", "us"]
MOVES = {(move.source, move.target) for move in DEFAULT_LIFECYCLE.moves}
version = st.sampled_from(VERSIONS)
alias = st.sampled_from(ALIASES)
target = st.sampled_from(TARGETS)
writer = st.integers(0, 1)


class Registries(RuleBasedStateMachine):
    """`self.there` and the rest are what must be; every step tells both what was expected and what came."""

    @initialize()
    def make(self) -> None:
        self.before = os.environ.get("TEXTNLP_FAST_AUDIT")
        os.environ["TEXTNLP_FAST_AUDIT"] = "off"
        self.root = Path(
            tempfile.mkdtemp(prefix="registry-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None)
        )
        self.registries = [
            Registry(Repository.open(self.root, create=True), actor=name) for name in ("alice", "bob")
        ]
        self.there: set[str] = set()
        self.stages: dict[str, str] = {}
        self.aliases: dict[str, tuple[str, bool]] = {}
        self.tags: dict[str | None, dict[str, str]] = {None: {}}
        self.pins: dict[str, str] = {}
        self.served: dict[str, list[str]] = {}
        for each in VERSIONS:
            self.publish(each)

    def teardown(self) -> None:
        if not hasattr(self, "root"):
            return
        shutil.rmtree(self.root)
        os.environ.pop("TEXTNLP_FAST_AUDIT", None)
        if self.before is not None:
            os.environ["TEXTNLP_FAST_AUDIT"] = self.before

    def publish(self, each: str) -> None:
        self.registries[0].repository.store.put_object(f"models/m/versions/{each}.json", b"{}")
        self.there.add(each)

    def expect(self, error: type[Exception] | None, call: Any, *arguments: Any, **options: Any) -> None:
        """The call must do what the model says: succeed, or be refused in this way."""
        try:
            call(*arguments, **options)
        except (InvalidInputError, ConflictError, NotAllowedError) as raised:
            assert error is not None, raised
            assert isinstance(raised, error), raised
        else:
            assert error is None, f"{call} {arguments} {options} should have raised {error}"

    @rule(who=writer, of=version, to=st.sampled_from(["draft", "staging", "production", "archived"]))
    def move(self, who: int, of: str, to: str) -> None:
        now = self.stages.get(of, "draft")
        call = self.registries[who].move
        if of not in self.there:
            self.expect(VersionNotFoundError, call, "m", of, to)
        elif now != to and (now, to) not in MOVES:
            self.expect(InvalidInputError, call, "m", of, to)
        else:
            self.expect(None, call, "m", of, to)
            if to == "production":
                for other, stage in list(self.stages.items()):
                    if stage == "production" and other != of:
                        self.stages[other] = "archived"
            self.stages[of] = to

    @rule(
        who=writer, name=alias, of=version, protect=st.sampled_from([None, True, False]), sure=st.booleans()
    )
    def set_alias(self, who: int, name: str, of: str, protect: bool | None, sure: bool) -> None:
        call, before = self.registries[who].set_alias, self.aliases.get(name)
        after = (of, protect if protect is not None else bool(before and before[1]))
        options = {"protect": protect, "move_protected": sure}
        if of not in self.there:
            self.expect(VersionNotFoundError, call, "m", name, of, **options)
        elif before and before[1] and after != before and not sure:
            self.expect(NotAllowedError, call, "m", name, of, **options)
        else:
            self.expect(None, call, "m", name, of, **options)
            self.aliases[name] = after

    @rule(who=writer, name=alias, sure=st.booleans())
    def delete_alias(self, who: int, name: str, sure: bool) -> None:
        call, before = self.registries[who].delete_alias, self.aliases.get(name)
        if before is None:
            self.expect(VersionNotFoundError, call, "m", name, move_protected=sure)
        elif before[1] and not sure:
            self.expect(NotAllowedError, call, "m", name)
        else:
            self.expect(None, call, "m", name, move_protected=sure)
            del self.aliases[name]

    @rule(
        who=writer,
        of=version | st.none(),
        key=st.sampled_from(["a", "b"]),
        value=st.sampled_from(["", "x", None]),
    )
    def tag(self, who: int, of: str | None, key: str, value: str | None) -> None:
        call = self.registries[who].tag
        changes = {"remove": [key]} if value is None else {"tags": {key: value}}
        if of is not None and of not in self.there:
            self.expect(VersionNotFoundError, call, "m", of, **changes)
            return
        self.expect(None, call, "m", of, **changes)
        tags = self.tags.setdefault(of, {})
        tags.pop(key, None)
        if value is not None:
            tags[key] = value

    @rule(who=writer, of=version, reason=st.sampled_from(["", "why", None]))
    def pin(self, who: int, of: str, reason: str | None) -> None:
        registry = self.registries[who]
        if of not in self.there:
            self.expect(VersionNotFoundError, registry.pin, "m", of, "x")
        elif reason is None:
            self.expect(None, registry.unpin, "m", of)
            self.pins.pop(of, None)
        else:
            self.expect(None, registry.pin, "m", of, reason)
            self.pins[of] = reason

    @rule(who=writer, where=target, of=version)
    def deploy(self, who: int, where: str, of: str) -> None:
        call = self.registries[who].deploy
        if of not in self.there:
            self.expect(VersionNotFoundError, call, "m", of, where)
            return
        self.expect(None, call, "m", of, where)
        stack = self.served.setdefault(where, [])
        if not stack or stack[-1] != of:
            stack.append(of)

    @rule(who=writer, where=target)
    def roll_back(self, who: int, where: str) -> None:
        stack = self.served.get(where, [])
        back = next((place for place in range(len(stack) - 2, -1, -1) if stack[place] in self.there), None)
        if back is None:
            self.expect(DeploymentNotFoundError, self.registries[who].rollback, "m", where)
            return
        self.expect(None, self.registries[who].rollback, "m", where)
        del stack[back + 1 :]

    @rule(who=writer, where=target)
    def end(self, who: int, where: str) -> None:
        expected = None if where in self.served else DeploymentNotFoundError
        self.expect(expected, self.registries[who].end_deployment, "m", where)
        self.served.pop(where, None)

    @precondition(lambda self: len(self.there) > 1)
    @rule(who=writer, of=version)
    def remove(self, who: int, of: str) -> None:
        registry = self.registries[who]
        kept = (
            self.stages.get(of) in ("staging", "production")
            or any(version == of for version, _ in self.aliases.values())
            or of in self.pins
            or any(of in stack[-2:] for stack in self.served.values())
        )
        if kept:
            self.expect(ConflictError, registry.retire, "m", [of])
            return
        self.expect(None, registry.retire, "m", [of])
        self.expect(VersionNotFoundError, registry.pin, "m", of)
        registry.repository.store.delete(f"models/m/versions/{of}.json")
        self.expect(None, registry.finish_removal, "m", [of])
        self.there.discard(of)
        self.stages.pop(of, None)
        self.tags.pop(of, None)

    @precondition(lambda self: len(self.there) < len(VERSIONS))
    @rule(of=version)
    def publish_again(self, of: str) -> None:
        self.publish(of)

    @invariant()
    def everything_is_as_it_must_be(self) -> None:
        if not hasattr(self, "root") or not (self.root / "models" / "m" / "refs.json").exists():
            return
        for registry in self.registries:
            now = registry.references("m")
            assert {each: now.stage_of(each) for each in VERSIONS} == {
                each: self.stages.get(each, "draft") for each in VERSIONS
            }
            assert {
                name: (each.version, each.protected) for name, each in now.aliases.items()
            } == self.aliases
            assert now.tags == self.tags[None]
            assert {each: now.state_of(each).tags for each in VERSIONS} == {
                each: self.tags.get(each, {}) for each in VERSIONS
            }
            assert {each: now.state_of(each).pinned for each in VERSIONS} == {
                each: self.pins.get(each) for each in VERSIONS
            }
            assert {where: [each.version, *each.previous] for where, each in now.deployments.items()} == {
                where: stack[::-1] for where, stack in self.served.items()
            }
        document = read_references(self.root, "m")
        made = replayed(read_history(self.root, "m"))
        assert {key: made[key] for key in ("versions", "tags", "aliases", "retiring")} == {
            key: document[key] for key in ("versions", "tags", "aliases", "retiring")
        }


TestRegistries = Registries.TestCase
TestRegistries.settings = settings(max_examples=15, stateful_step_count=30, deadline=None)
