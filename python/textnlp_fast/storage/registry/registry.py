"""The registry of a repository: where versions are in their lives, what they are called, and where they serve.

Functions here look up what a pure function decides about (`changes`, `deploying`), and have it written (`changing`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from textnlp_fast.errors import (
    ConflictError,
    DeploymentNotFoundError,
    MissingObjectError,
    VersionNotFoundError,
)
from textnlp_fast.storage.audit import AuditPolicy, Receipt, audited
from textnlp_fast.storage.audit.actor import claimed_actor
from textnlp_fast.storage.audit.rollback import seen_references
from textnlp_fast.storage.markers import MARKER_BYTES
from textnlp_fast.storage.names import ModelReference, check_name, check_selector, manifest_key, now_utc
from textnlp_fast.storage.registry import changes, deploying
from textnlp_fast.storage.registry.changing import Edit, Written, change_references
from textnlp_fast.storage.registry.delivery import Delivery, Failure, undelivered
from textnlp_fast.storage.registry.grammar import MAX_ACTOR_CHARS, check_actor
from textnlp_fast.storage.registry.history import every_change
from textnlp_fast.storage.registry.references import read_versioned
from textnlp_fast.storage.registry.rules import Rules, change_rules, read_rules, under_rules
from textnlp_fast.storage.registry.rules_changes import RULES_ACTION, refuse_lost_stages, rules_detail
from textnlp_fast.storage.registry.state import Change, Deployment, References
from textnlp_fast.telemetry import operation

if TYPE_CHECKING:
    from textnlp_fast.storage.repository import Repository

__all__ = ["Registry"]

Decide = Callable[[References], Edit]


class Registry:
    """Changes and reads what is said of versions. Thread-safe; any number may work on one repository.

    Wherever a version is asked for, an alias or `stage:NAME` does as well. `actor` is who changes things: by default
    the one that is configured (TEXTNLP_FAST_ACTOR), or the user who runs this. `on_failure` hears of webhooks that
    could not be delivered.
    Every change raises ModelNotFoundError or VersionNotFoundError for what is not there, NotAllowedError for what the
    rules leave to others, ConflictError where others kept being first, and StorageUnavailableError.
    """

    def __init__(
        self,
        repository: Repository,
        *,
        actor: str | None = None,
        on_failure: Callable[[Failure], None] | None = None,
        delivery: Delivery | None = None,
    ) -> None:
        self.repository = repository
        policy = AuditPolicy.current()
        self._policy = policy if actor is None else replace(policy, actor=actor)
        self.actor = check_actor(
            self._policy.actor or claimed_actor()["name"][:MAX_ACTOR_CHARS].strip() or "unknown"
        )
        self._store = repository.store
        self._on_failure = on_failure
        self._delivery = delivery or Delivery()

    # --- reading --------------------------------------------------------------------------------------------

    def references(self, name: str) -> References:
        """All that is said of a model's versions. Raises ModelNotFoundError if there is no such model."""
        references, version = read_versioned(self._store, check_name(name))
        if version is None:
            self.repository.versions(name)
        return under_rules(references, self.rules())

    def peek(self, name: str, rules: Rules) -> References:
        """The references of a model that may not be there yet."""
        return under_rules(read_versioned(self._store, check_name(name))[0], rules)

    def history(self, name: str) -> Iterator[Change]:
        """Every change there ever was, the newest first."""
        return every_change(self._store, self.references(name))

    def resolve(self, name: str, version: str | None = None) -> str:
        """The version that a version, an alias or a stage means; the latest if None."""
        selector = None if version is None else check_selector(version)
        return self.repository.resolve(ModelReference(check_name(name), selector))[1]

    def rules(self) -> Rules:
        """Stages, moves, roles and webhooks as they are now."""
        return read_rules(self._store)

    # --- rules ----------------------------------------------------------------------------------------------

    def set_rules(self, rules: Rules) -> Rules:
        """Replaces the rules; webhooks that the new ones lack go.

        Raises ConflictError while versions are in stages that the new rules do not have, NotAllowedError for who may
        not change those that are there (`Rules.may_administer`), InvalidInputError for rules that would lock this
        actor out by mistake.
        """
        before = self.rules()
        refuse_lost_stages(self._store, self.repository.models(), rules)

        def checked(now: Rules) -> Rules:
            if now.revision != before.revision:
                raise ConflictError("the rules were changed by another writer", hint="Look at them again.")
            return rules

        detail = rules_detail(before, rules)
        with (
            operation(RULES_ACTION, repository=self.repository.url),
            # How it ended is recorded, too: the rules show only who changed them last.
            self._audited(RULES_ACTION, None, None, detail, shows=False),
        ):
            return change_rules(self._store, checked, by=self.actor)

    # --- stages, aliases, tags ------------------------------------------------------------------------------

    def move(self, name: str, version: str, stage: str, *, note: str = "") -> tuple[Change, ...]:
        """Moves a version to a stage; a version that has to make room moves in the same step."""
        exact, rules = self.resolve(name, version), self.rules()
        return self.change(
            "stage",
            name,
            exact,
            {"to": stage},
            lambda now: changes.move_to_stage(now, rules, exact, stage, by=self.actor, note=note),
            rules,
        )

    def set_alias(
        self,
        name: str,
        alias: str,
        version: str,
        *,
        protect: bool | None = None,
        move_protected: bool = False,
        expected: str | None = None,
        note: str = "",
    ) -> tuple[Change, ...]:
        """Makes an alias mean a version.

        `protect` says whether it is protected from now on (None: as it was); a protected one moves only with
        `move_protected` and for those who may. `expected` is what it must mean now, else ConflictError.
        """
        exact, rules = self.resolve(name, version), self.rules()
        return self.change(
            "alias.set",
            name,
            exact,
            {"alias": alias},
            lambda now: changes.set_alias(
                now,
                rules,
                alias,
                exact,
                by=self.actor,
                protect=protect,
                move_protected=move_protected,
                expected=expected,
                note=note,
            ),
            rules,
        )

    def delete_alias(
        self, name: str, alias: str, *, move_protected: bool = False, note: str = ""
    ) -> tuple[Change, ...]:
        """Removes an alias; the version stays."""
        rules = self.rules()
        return self.change(
            "alias.delete",
            name,
            None,
            {"alias": alias},
            lambda now: changes.delete_alias(
                now, rules, alias, by=self.actor, move_protected=move_protected, note=note
            ),
            rules,
        )

    def tag(
        self,
        name: str,
        version: str | None,
        tags: Mapping[str, str] | None = None,
        *,
        remove: Collection[str] = (),
    ) -> tuple[Change, ...]:
        """Sets and removes tags of a version; of the model itself if None."""
        exact = None if version is None else self.resolve(name, version)
        return self.change(
            "tag", name, exact, {}, lambda now: changes.set_tags(now, exact, tags or {}, remove=remove)
        )

    def pin(self, name: str, version: str, reason: str = "") -> tuple[Change, ...]:
        """Keeps a version from being collected, whatever else is said of it."""
        exact = self.resolve(name, version)
        return self.change("pin", name, exact, {}, lambda now: changes.pin(now, exact, reason))

    def unpin(self, name: str, version: str) -> tuple[Change, ...]:
        """Takes the pin off a version."""
        exact = self.resolve(name, version)
        return self.change("unpin", name, exact, {}, lambda now: changes.unpin(now, exact))

    # --- deployments ----------------------------------------------------------------------------------------

    def deploy(
        self,
        name: str,
        version: str,
        target: str,
        *,
        note: str = "",
        state: str = "",
        expected: str | None = None,
    ) -> Deployment:
        """Notes that a target serves a version from now on.

        Raises ConflictError if somebody else deployed to the target while this call ran, or if it does not serve
        `expected`.
        """
        exact = self.resolve(name, version)
        at = now_utc()
        return self._change_target(
            "deploy",
            name,
            exact,
            target,
            lambda now: deploying.deploy(now, target, exact, by=self.actor, at=at, note=note, state=state),
            expected,
        )

    def rollback(self, name: str, target: str, *, to: str | None = None, note: str = "") -> Deployment:
        """Goes back to the version that the target served before, or to an earlier one, `to`.

        Again and again: each call goes one further back, never forth again. Raises DeploymentNotFoundError if there is
        nothing to go back to, ConflictError if somebody else changed the target while this call ran.
        """
        at = now_utc()

        def decide(now: References) -> Edit:
            before = deploying.deployment_of(now, target)
            there = [each for each in before.previous if to in (None, each) and self._exists(name, each)]
            if not there:
                wanted = "no other version" if to is None else f"not {to}"
                raise DeploymentNotFoundError(
                    f"{target} of {name} serves {before.version} and served {wanted} before that is still there",
                    hint="`textnlp-fast deployments history` shows what it served; record another version instead.",
                )
            return deploying.roll_back(now, target, there[0], by=self.actor, at=at, note=note)

        return self._change_target("deploy.rollback", name, None, target, decide)

    def set_deployment_state(
        self, name: str, target: str, state: str, *, note: str | None = None
    ) -> Deployment:
        """Notes how a deployment fares (`healthy`, `failed`, ...)."""
        return self._change_target(
            "deploy.state", name, None, target, lambda now: deploying.set_state(now, target, state, note=note)
        )

    def end_deployment(self, name: str, target: str, *, note: str = "") -> tuple[Change, ...]:
        """Notes that a target serves nothing any more."""
        return self.change(
            "deploy.end",
            name,
            None,
            {"target": target},
            lambda now: deploying.end_deployment(now, target, note=note),
        )

    def deployments(self, name: str | None = None) -> dict[str, dict[str, Deployment]]:
        """What serves where: by model, then by target. Of one model, or of all that are deployed."""
        names = list(self.repository.models()) if name is None else [name]
        found = {each: dict(read_versioned(self._store, check_name(each))[0].deployments) for each in names}
        if name is not None and not found[name]:
            self.repository.versions(name)
        return {each: deployed for each, deployed in found.items() if deployed}

    def deployment_history(self, name: str, target: str | None = None) -> Iterator[Change]:
        """Every deployment, rollback and end there ever was, the newest first; of one target if named."""
        for change in self.history(name):
            if change.action.startswith("deploy") and target in (None, change.detail.get("target")):
                yield change

    # --- removal --------------------------------------------------------------------------------------------

    def retire(self, name: str, versions: Collection[str]) -> tuple[Change, ...]:
        """Bars versions from being referred to, before their manifests are removed; see `changes.retire`."""
        rules = self.rules()
        return self.change("retire", name, None, {}, lambda now: changes.retire(now, versions), rules)

    def finish_removal(self, name: str, versions: Collection[str]) -> tuple[Change, ...]:
        """Forgets retired versions whose manifests are gone."""
        return self.change("removed", name, None, {}, lambda now: changes.finish_removal(now, versions))

    # --- webhooks -------------------------------------------------------------------------------------------

    def undelivered(self) -> Iterator[tuple[Failure, str]]:
        """Messages that webhooks did not take, and when that was; the oldest first."""
        return undelivered(self._store)

    def redeliver(self, *, forget: bool = False) -> list[Failure]:
        """Sends them again; keeps those that do not arrive, which it returns, or with `forget` keeps none."""
        return self._delivery.redeliver(self._store, self.rules().webhooks, forget=forget)

    # --- parts ----------------------------------------------------------------------------------------------

    def change(
        self,
        action: str,
        name: str,
        version: str | None,
        detail: Mapping[str, str],
        decide: Decide,
        rules: Rules | None = None,
    ) -> tuple[Change, ...]:
        """Makes a change that `decide` decides about, audited, counted and told to webhooks."""
        rules = rules or self.rules()
        with operation(action, model=name, version=version, repository=self.repository.url):
            ending: dict[str, Any] = {}
            # At which revision they were found: one that is older later on was put back.
            found = seen_references(read_versioned(self._store, name)[0])
            with self._audited(action, name, version, {**detail, **found}, ending=ending):
                written = self._write(name, version, decide, rules)
                ending.update(seen_references(written.after))
        self._tell(name, written.changes, rules)
        return written.changes

    def _write(self, name: str, version: str | None, decide: Decide, rules: Rules) -> Written:
        """Changes a model's references by `decide`, as long as the version is there."""
        check_name(name)
        if version is None and read_versioned(self._store, name)[1] is None:
            self.repository.versions(name)

        def checked(now: References) -> Edit:
            # Looked up after the references were read: whoever removes a version changes those first.
            if version is not None and not self._exists(name, version):
                known = ", ".join(self.repository.versions(name)[-10:])
                raise VersionNotFoundError(f"{name} has no version {version}", hint=f"It has: {known}.")
            return decide(under_rules(now, rules))

        return change_references(self._store, name, checked, by=self.actor)

    def _tell(self, name: str, made: tuple[Change, ...], rules: Rules) -> None:
        """Delivers webhooks about changes; what fails is noted and harms nothing."""
        for failure in self._delivery.deliver(self._store, name, made, rules.webhooks):
            if self._on_failure is not None:
                self._on_failure(failure)

    def _audited(
        self,
        action: str,
        name: str | None,
        version: str | None,
        detail: Mapping[str, Any],
        *,
        ending: Mapping[str, Any] | None = None,
        shows: bool = True,
    ) -> AbstractContextManager[Receipt | None]:
        return audited(
            self._store,
            action=action,
            model=name,
            version=version,
            detail=dict(detail),
            ending=ending,
            shows=shows,
            policy=self._policy,
        )

    def _exists(self, name: str, version: str) -> bool:
        try:
            return self._store.head(manifest_key(name, version)).size != MARKER_BYTES
        except MissingObjectError:
            return False

    def _change_target(
        self,
        action: str,
        name: str,
        version: str | None,
        target: str,
        decide: Decide,
        expected: str | None = None,
    ) -> Deployment:
        """Changes a target that nobody else changes meanwhile; returns what this made of it."""
        unmoved = deploying.Unmoved(target, expected)
        # The last decision is the one that was written: what is read afterwards may be others' work.
        decided: list[Edit] = []

        def checked(now: References) -> Edit:
            unmoved.check(now)
            decided[:] = [decide(now)]
            return decided[0]

        self.change(action, name, version, {"target": target}, checked)
        return decided[0].references.deployments[target]
