"""Search: the versions of a repository that fit a query."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from textnlp_fast.contents.windows import DATA_ERRORS
from textnlp_fast.errors import VersionNotFoundError
from textnlp_fast.storage.manifest import Manifest
from textnlp_fast.storage.registry.query import parse_query
from textnlp_fast.storage.registry.references import read_references
from textnlp_fast.storage.registry.rules import read_rules
from textnlp_fast.storage.registry.state import References
from textnlp_fast.storage.repository import Repository
from textnlp_fast.telemetry import operation

__all__ = ["Found", "search"]

_READS_AT_ONCE: Final = 16


@dataclass(frozen=True)
class Found:
    """A version that fits. `tags` are the model's, under the version's own."""

    repository: Repository
    references: References
    version: str

    @property
    def name(self) -> str:
        return self.references.model

    @property
    def stage(self) -> str:
        return self.references.stage_of(self.version)

    @property
    def aliases(self) -> tuple[str, ...]:
        return tuple(self.references.aliases_of(self.version))

    @property
    def targets(self) -> tuple[str, ...]:
        return tuple(self.references.targets_of(self.version))

    @property
    def tags(self) -> Mapping[str, str]:
        return {**self.references.tags, **self.references.state_of(self.version).tags}

    @property
    def created_at(self) -> str:
        return "" if self._manifest is None else self._manifest.created_at

    @property
    def metadata(self) -> Mapping[str, str]:
        return {} if self._manifest is None else self._manifest.metadata

    @cached_property
    def _manifest(self) -> Manifest | None:
        # Read only for what asks about it. One that cannot be read has no date; `log` and `verify` say why.
        with suppress(VersionNotFoundError, *DATA_ERRORS):
            return self.repository.manifest(self.name, self.version)
        return None


def search(repository: Repository, query: str = "") -> Iterator[Found]:
    """The versions that fit a query, by name and then the newest first. Raises QueryError.

    A query that asks for `created` or `meta.KEY` reads a manifest for each version that its other conditions, as far
    as they come before, leave.
    """
    wanted = parse_query(query)
    with operation("search", repository=repository.url), ThreadPoolExecutor(_READS_AT_ONCE) as pool:
        rules = read_rules(repository.store)
        models = repository.models()
        read = pool.map(lambda name: read_references(repository.store, name, rules), models)
        for references, versions in zip(read, models.values(), strict=True):
            for version in reversed(versions):
                row = Found(repository, references, version)
                if wanted.matches(row):
                    yield row
