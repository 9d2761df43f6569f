"""The repository at one moment, as values that nobody changes. Everything that lists show is made of these."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from textnlp_fast.errors import ModelNotFoundError, VersionNotFoundError
from textnlp_fast.hashing import blake3_hex
from textnlp_fast.service.reading.facts import VersionFacts
from textnlp_fast.storage.names import STAGE_PREFIX, check_selector, latest_of, split_build
from textnlp_fast.storage.registry.state import References

__all__ = ["ModelView", "Snapshot"]


@dataclass(frozen=True)
class ModelView:
    """A model. `versions` in the order of semantic versioning; `signed` are those of which a signature is there.

    `seen` is what the listing said of its objects and `rules` the revision of the rules: as long as both stay, so does
    the view. `problem` says why its references cannot be read.
    """

    name: str
    versions: Mapping[str, VersionFacts]
    references: References
    references_etag: str | None
    signed: frozenset[str]
    seen: tuple[object, ...]
    problem: str | None = None

    @cached_property
    def stamp(self) -> str:
        """Another for each state of the model; the same in every replica."""
        return blake3_hex(repr(self.seen).encode())[:32]

    @cached_property
    def latest(self) -> str:
        return latest_of(list(self.versions))

    @cached_property
    def stages(self) -> dict[str, str]:
        """The highest version in each stage."""
        return {self.references.stage_of(version): version for version in self.versions}

    @cached_property
    def logical_bytes(self) -> int:
        return sum(each.logical_bytes for each in self.versions.values())

    @cached_property
    def stored_bytes(self) -> int:
        return sum(each.stored_bytes for each in self.versions.values())

    @cached_property
    def updated_at(self) -> str | None:
        times = [each.created_at for each in self.versions.values() if each.created_at]
        if self.references.history:
            times.append(self.references.history[-1].at)
        return max(times, default=None)

    def facts(self, selector: str | None) -> VersionFacts:
        """The version that is meant, as `resolve` says; raises what that does."""
        return self.versions[self.resolve(selector)]

    def resolve(self, selector: str | None) -> str:
        """The version itself that is meant. Raises VersionNotFoundError and InvalidInputError."""
        meant = check_selector(selector) if selector is not None else None
        if meant is None:
            return self.latest
        if meant.startswith(STAGE_PREFIX):
            stage = meant.removeprefix(STAGE_PREFIX)
            if stage not in self.stages:
                known = ", ".join(sorted(self.stages))
                raise VersionNotFoundError(
                    f"no version of {self.name} is in stage {stage!r}", hint=f"Its versions are in: {known}."
                )
            return self.stages[stage]
        version = split_build(meant)[0]
        if meant[:1].isalpha():
            alias = self.references.aliases.get(meant)
            if alias is None:
                known = ", ".join(sorted(self.references.aliases)[:10])
                raise VersionNotFoundError(
                    f"{self.name} has no alias {meant!r}",
                    hint=f"It has: {known}." if known else "It has no alias; versions are like 1.0.0.",
                )
            version = alias.version
        if version not in self.versions:
            known = ", ".join(list(self.versions)[-10:])
            raise VersionNotFoundError(f"{self.name} has no version {version}", hint=f"It has: {known}.")
        return version


@dataclass(frozen=True)
class Snapshot:
    """All models, by name in order. `made_s` is when its listing began, on the monotonic clock."""

    models: Mapping[str, ModelView]
    made_s: float
    problems: tuple[str, ...] = ()

    @cached_property
    def stamp(self) -> str:
        """Another for each state of the repository; the same in every replica."""
        return blake3_hex("".join(view.stamp for view in self.models.values()).encode())[:32]

    @cached_property
    def version_count(self) -> int:
        return sum(len(view.versions) for view in self.models.values())

    def model(self, name: str) -> ModelView:
        """The model of this name. Raises ModelNotFoundError."""
        found = self.models.get(name)
        if found is None:
            known = ", ".join(list(self.models)[:10])
            raise ModelNotFoundError(
                f"there is no model {name!r}",
                hint=f"There is: {known}." if known else "There is no model yet; push one first.",
            )
        return found
