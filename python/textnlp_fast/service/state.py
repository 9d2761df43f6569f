"""What routes work with: one object an application. Nothing in it is needed by another replica."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

from fastapi import Request

from textnlp_fast.gpu.health.http import checked_url
from textnlp_fast.objectstore import ObjectStore, open_store
from textnlp_fast.service.auth.access import Authenticator
from textnlp_fast.service.auth.principals import Principal, Role, role_named
from textnlp_fast.service.blocking import Blocking
from textnlp_fast.service.caching import ByteCache, SingleFlight
from textnlp_fast.service.config import ServiceConfig
from textnlp_fast.service.jobs.places import Roots
from textnlp_fast.service.limits import Limits
from textnlp_fast.service.metrics import ServiceMetrics
from textnlp_fast.service.reading import Catalog
from textnlp_fast.service.reading.manifests import BoundedVersionManager
from textnlp_fast.storage import Registry, Repository, TransferOptions
from textnlp_fast.storage.registry.delivery import Failure

if TYPE_CHECKING:
    from textnlp_fast.service.live import Live

__all__ = ["Service", "service_of"]

_log = logging.getLogger(__name__)
_MANIFESTS_SHARE: Final = 0.5


class Service:
    """Repository, caches, pools of threads and who is let in.

    `blocking` is for calls to the store, `heavy` for what takes long, `answers` keeps finished answers by what they
    were made of, `flights` makes each once. `stopping` is set when the process was told to end: whoever streams ends
    then. Raises InvalidInputError for folders and agents that are none, and what opening a store does.
    """

    def __init__(
        self,
        config: ServiceConfig,
        *,
        store: ObjectStore | None = None,
        options: TransferOptions | None = None,
    ) -> None:
        self.config = config
        store = store or open_store(config.repo, region=config.region, endpoint_url=config.endpoint_url)
        self.versions = BoundedVersionManager(store, int(config.cache_bytes * _MANIFESTS_SHARE))
        self.repository = Repository(store, options, versions=self.versions)
        self.roots = Roots(config.allowed_paths, store)
        for agent in config.health_agents.values():
            checked_url(agent)
        self.blocking = Blocking("store", config.threads, config.store_timeout_s)
        self.heavy = Blocking("heavy", config.heavy_threads, config.heavy_timeout_s)
        self.catalog = Catalog(
            self.versions,
            Blocking("scan", 2, config.store_timeout_s),
            fresh_s=config.fresh_s,
            stale_s=config.stale_s,
            listing_share=config.listing_share,
        )
        self.answers: ByteCache[object] = ByteCache(int(config.cache_bytes * (1 - _MANIFESTS_SHARE)))
        self.flights = SingleFlight()
        self.limits = Limits(config)
        self.metrics = ServiceMetrics()
        self.authenticator = _authenticator(config, self.blocking)
        self.stopping = asyncio.Event()
        self.live: Live | None = None
        """Jobs, events and the fleet, while the application runs."""

    @property
    def store(self) -> ObjectStore:
        return self.repository.store

    def registry_for(self, caller: Principal) -> Registry:
        """The registry as this caller changes it, known to records and rules by their subject. Blocks."""
        return Registry(self.repository, actor=caller.subject, on_failure=_undelivered)

    @property
    def is_idle(self) -> bool:
        """Whether no thread works at a call any more."""
        return self.blocking.is_idle and self.heavy.is_idle and self.catalog.is_idle

    def close(self) -> None:
        """Ends the pools; calls that run are left to end."""
        self.stopping.set()
        self.metrics.close()
        self.catalog.close()
        for pool in (self.blocking, self.heavy):
            pool.close()


async def service_of(request: Request) -> Service:
    """The service that a request is for; a dependency. A coroutine, or each request would go over a thread for it."""
    service: Service = request.app.state.service
    return service


def _authenticator(config: ServiceConfig, blocking: Blocking) -> Authenticator:
    verifiers: list[Callable[[str], Awaitable[Principal | None]]] = []
    if config.tokens is not None:
        from textnlp_fast.service.auth.tokens import TokenFile  # noqa: PLC0415

        verifiers.append(TokenFile(config.tokens, blocking).principal)
    if config.oidc is not None:
        from textnlp_fast.service.auth.oidc import OidcVerifier  # noqa: PLC0415

        verifiers.append(OidcVerifier(config.oidc, blocking).principal)
    return Authenticator(verifiers, role_named(config.open_role) or Role.SCRAPE)


def _undelivered(failure: Failure) -> None:
    _log.warning("webhook %s was not told of a change: %s", failure.webhook, failure.reason)
