"""The asynchronous face of the registry: the same functions, each on a thread of its own."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import islice

from textnlp_fast.contents.windows import ProgressCallback
from textnlp_fast.errors import InvalidInputError
from textnlp_fast.storage.registry.cards import ModelCard, read_card
from textnlp_fast.storage.registry.delivery import Failure
from textnlp_fast.storage.registry.lineage import Ancestor, Lineage, walk
from textnlp_fast.storage.registry.publishing import PublishedModel, publish_model
from textnlp_fast.storage.registry.registry import Registry
from textnlp_fast.storage.registry.searching import Found, search
from textnlp_fast.storage.registry.state import Change, Deployment, References
from textnlp_fast.storage.repository import Repository
from textnlp_fast.storage.signing import PrivateKey
from textnlp_fast.storage.unified_storage import UnifiedModelStorage
from textnlp_fast.storage.version_manager import VersionManager

__all__ = ["ModelRegistry"]

_MOST_ROWS = 1000


class ModelRegistry:
    """Published models: their stages, names, tags, lineage and deployments.

    `version_manager` is where the versions are: a `VersionManager`, a `Repository` or a `UnifiedModelStorage`, whose
    repository the first publication makes. `actor` is who changes things and `on_failure` hears of undelivered
    webhooks, as in `Registry`, whose arguments, results and errors these are. A call that is cancelled goes on in its
    thread until it is done, and is complete or void like any other.
    """

    def __init__(
        self,
        version_manager: VersionManager | Repository | UnifiedModelStorage,
        *,
        actor: str | None = None,
        on_failure: Callable[[Failure], None] | None = None,
    ) -> None:
        if not isinstance(version_manager, VersionManager | Repository | UnifiedModelStorage):
            raise InvalidInputError(
                f"a registry works on versions, not on {type(version_manager).__name__}",
                hint="Give a VersionManager, a Repository or a UnifiedModelStorage.",
            )
        self._source = version_manager
        self._actor = actor
        self._on_failure = on_failure
        self._registry: Registry | None = None
        self._lock = threading.Lock()

    def synchronous(self, *, create: bool = False) -> Registry:
        """The same without async; `create` makes a repository that is not there at the first push."""
        with self._lock:
            if self._registry is None:
                source = self._source
                if isinstance(source, VersionManager):
                    repository = Repository(source.store, versions=source)
                elif isinstance(source, UnifiedModelStorage):
                    repository = source.repository(create="at push" if create else False)
                else:
                    repository = source
                self._registry = Registry(repository, actor=self._actor, on_failure=self._on_failure)
            return self._registry

    async def publish_model(
        self,
        model_path: str | os.PathLike[str],
        name: str,
        version: str,
        *,
        architecture: str | None = None,
        created_by: str | None = None,
        lineage: Lineage | None = None,
        tags: Mapping[str, str] | None = None,
        stage: str | None = None,
        aliases: Sequence[str] = (),
        message: str = "",
        metadata: Mapping[str, str] | None = None,
        parent: tuple[str, str] | str | None = "auto",
        base_path: str | os.PathLike[str] | None = None,
        sign_key: PrivateKey | None = None,
        progress: ProgressCallback | None = None,
    ) -> PublishedModel:
        """Pushes files as a version and says in one change what it is called and where it stands."""

        def publish() -> PublishedModel:
            return publish_model(
                self.synchronous(create=True),
                model_path,
                name,
                version,
                architecture=architecture,
                created_by=created_by,
                lineage=lineage,
                tags=tags,
                stage=stage,
                aliases=aliases,
                message=message,
                metadata=metadata,
                parent=parent,
                base_path=base_path,
                sign_key=sign_key,
                progress=progress,
            )

        return await asyncio.to_thread(publish)

    # --- reading ----------------------------------------------------------------------------------------------

    async def references(self, name: str) -> References:
        """All that is said of a model's versions."""
        return await asyncio.to_thread(lambda: self.synchronous().references(name))

    async def resolve(self, name: str, version: str | None = None) -> str:
        """The version that a version, an alias or a stage means; the latest if None."""
        return await asyncio.to_thread(lambda: self.synchronous().resolve(name, version))

    async def history(self, name: str, *, limit: int = _MOST_ROWS) -> list[Change]:
        """The last changes of a model, the newest first."""
        return await asyncio.to_thread(lambda: list(islice(self.synchronous().history(name), limit)))

    async def search_models(self, query: str = "", *, limit: int = _MOST_ROWS) -> list[Found]:
        """The versions that fit a query, by name and then the newest first; the first `limit` of them."""
        return await asyncio.to_thread(
            lambda: list(islice(search(self.synchronous().repository, query), limit))
        )

    async def lineage(self, name: str, version: str | None = None) -> list[Ancestor]:
        """A version and all that it comes from, nearest first."""
        return await asyncio.to_thread(
            lambda: walk(self.synchronous().repository, name, self.synchronous().resolve(name, version))
        )

    async def model_card(self, name: str, version: str | None = None) -> ModelCard | None:
        """The README of a version, read without pulling it; None if it has none."""
        return await asyncio.to_thread(lambda: read_card(self.synchronous().repository, name, version))

    # --- changing ---------------------------------------------------------------------------------------------

    async def move_to_stage(
        self, name: str, version: str, stage: str, *, note: str = ""
    ) -> tuple[Change, ...]:
        """Moves a version to a stage; a version that has to make room moves in the same step."""
        return await asyncio.to_thread(lambda: self.synchronous().move(name, version, stage, note=note))

    async def set_alias(
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
        """Makes an alias mean a version."""
        return await asyncio.to_thread(
            lambda: self.synchronous().set_alias(
                name,
                alias,
                version,
                protect=protect,
                move_protected=move_protected,
                expected=expected,
                note=note,
            )
        )

    async def delete_alias(
        self, name: str, alias: str, *, move_protected: bool = False, note: str = ""
    ) -> tuple[Change, ...]:
        """Removes an alias; the version stays."""
        return await asyncio.to_thread(
            lambda: self.synchronous().delete_alias(name, alias, move_protected=move_protected, note=note)
        )

    async def tag(
        self,
        name: str,
        version: str | None,
        tags: Mapping[str, str] | None = None,
        *,
        remove: Collection[str] = (),
    ) -> tuple[Change, ...]:
        """Sets and removes tags of a version; of the model itself if None."""
        return await asyncio.to_thread(lambda: self.synchronous().tag(name, version, tags, remove=remove))

    async def pin(self, name: str, version: str, reason: str = "") -> tuple[Change, ...]:
        """Keeps a version from being collected."""
        return await asyncio.to_thread(lambda: self.synchronous().pin(name, version, reason))

    async def unpin(self, name: str, version: str) -> tuple[Change, ...]:
        """Takes the pin off a version."""
        return await asyncio.to_thread(lambda: self.synchronous().unpin(name, version))

    # --- deployments ------------------------------------------------------------------------------------------

    async def deploy(
        self,
        name: str,
        version: str,
        target: str,
        *,
        note: str = "",
        state: str = "",
        expected: str | None = None,
    ) -> Deployment:
        """Notes that a target serves a version from now on."""
        return await asyncio.to_thread(
            lambda: self.synchronous().deploy(
                name, version, target, note=note, state=state, expected=expected
            )
        )

    async def rollback(self, name: str, target: str, *, to: str | None = None, note: str = "") -> Deployment:
        """Goes back to the version that the target served before."""
        return await asyncio.to_thread(lambda: self.synchronous().rollback(name, target, to=to, note=note))

    async def set_deployment_state(
        self, name: str, target: str, state: str, *, note: str | None = None
    ) -> Deployment:
        """Notes how a deployment fares (`healthy`, `failed`, ...)."""
        return await asyncio.to_thread(
            lambda: self.synchronous().set_deployment_state(name, target, state, note=note)
        )

    async def end_deployment(self, name: str, target: str, *, note: str = "") -> tuple[Change, ...]:
        """Notes that a target serves nothing any more."""
        return await asyncio.to_thread(lambda: self.synchronous().end_deployment(name, target, note=note))

    async def deployments(self, name: str | None = None) -> dict[str, dict[str, Deployment]]:
        """What serves where: by model, then by target."""
        return await asyncio.to_thread(lambda: self.synchronous().deployments(name))

    async def deployment_history(
        self, name: str, target: str | None = None, *, limit: int = _MOST_ROWS
    ) -> list[Change]:
        """The last deployments, rollbacks and ends, the newest first."""
        return await asyncio.to_thread(
            lambda: list(islice(self.synchronous().deployment_history(name, target), limit))
        )
