"""What is said of a model's versions, as plain values; nothing here reads or writes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

__all__ = ["Alias", "Change", "Deployment", "References", "VersionState"]

# What versions are in when nobody has moved them, and what they end in.
_RELEASED_STAGES: Final = frozenset({"draft", "archived"})


@dataclass(frozen=True, slots=True)
class Alias:
    """A name for a version that may be moved; a `protected` one only by those who may."""

    version: str
    protected: bool = False


@dataclass(frozen=True, slots=True)
class VersionState:
    """What is said of a version. `stage` None: nobody has moved it. `pinned`: why it must stay, None if it need not."""

    stage: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    pinned: str | None = None

    @property
    def is_empty(self) -> bool:
        return self.stage is None and not self.tags and self.pinned is None


@dataclass(frozen=True, slots=True)
class Deployment:
    """Which version a target serves.

    `previous` are those that it served before, the last one first, each other than its neighbours: what a
    rollback goes back along. `number` is the change that made it so.
    """

    version: str
    since: str
    by: str
    note: str = ""
    state: str = ""
    previous: tuple[str, ...] = ()
    number: int = 0


@dataclass(frozen=True, slots=True)
class Change:
    """One change of the references. `number` counts them from 1; changes made in one write share their `id`."""

    number: int
    id: str
    at: str
    by: str
    action: str
    detail: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class References:
    """What a model's versions are called, where they are in their lives and where they serve.

    `history` are the last changes, the oldest first; those before are in objects of their own, the newest of
    which `archive` names by its last change's number and its digest. `retiring` versions are about to be removed.
    """

    model: str
    revision: int = 0
    versions: Mapping[str, VersionState] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    aliases: Mapping[str, Alias] = field(default_factory=dict)
    deployments: Mapping[str, Deployment] = field(default_factory=dict)
    retiring: frozenset[str] = frozenset()
    history: tuple[Change, ...] = ()
    archive: tuple[int, str] | None = None
    initial_stage: str = "draft"
    """The stage of a version that nobody has moved; it and `released_stages` are rules, not part of the document."""
    released_stages: frozenset[str] = _RELEASED_STAGES
    """Stages that are no reason to keep a version."""

    def state_of(self, version: str) -> VersionState:
        """What is said of a version; empty if nothing is."""
        return self.versions.get(version, VersionState())

    def stage_of(self, version: str) -> str:
        """The stage that a version is in."""
        return self.state_of(version).stage or self.initial_stage

    def aliases_of(self, version: str) -> list[str]:
        """The aliases that mean a version, in order."""
        return sorted(name for name, alias in self.aliases.items() if alias.version == version)

    def targets_of(self, version: str) -> list[str]:
        """The targets that serve a version, in order."""
        return sorted(target for target, each in self.deployments.items() if each.version == version)

    def kept_versions(self) -> dict[str, list[str]]:
        """Versions that must not be removed, each with the reasons in words.

        Whoever removes others takes three steps, for a reference may come while it looks: `Registry.retire` (refused
        if one of them must stay; from then on nothing can refer to them), delete their manifests, then
        `Registry.finish_removal`. Killed in between, `retiring` says what is left to be done.
        """
        reasons: dict[str, list[str]] = {}
        for name, alias in sorted(self.aliases.items()):
            reasons.setdefault(alias.version, []).append(f"alias {name}")
        for version, state in self.versions.items():
            if state.stage is not None and state.stage not in self.released_stages:
                reasons.setdefault(version, []).append(f"stage {state.stage}")
            if state.pinned is not None:
                reasons.setdefault(version, []).append(
                    f"pinned: {state.pinned}" if state.pinned else "pinned"
                )
        for target, deployment in sorted(self.deployments.items()):
            reasons.setdefault(deployment.version, []).append(f"deployed to {target}")
            if deployment.previous:
                before = reasons.setdefault(deployment.previous[0], [])
                before.append(f"what {target} would roll back to")
        return reasons
