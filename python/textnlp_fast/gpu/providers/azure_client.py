"""Azure's compute and network through their clients: one request at a time, lists in pages."""

from __future__ import annotations

import logging
import os
import threading
from typing import Any

from textnlp_fast.errors import InvalidInputError, ProviderUnavailableError
from textnlp_fast.gpu.providers.azure_errors import meaning_of
from textnlp_fast.gpu.providers.calling import Patience, imported

__all__ = ["Arm"]

_NETWORK = frozenset({"network_interfaces", "public_ip_addresses"})


class Arm:
    """The API, for one resource group. Clients are made when first used; all that is asked may be repeated."""

    def __init__(
        self,
        region: str,
        *,
        subscription: str | None,
        resource_group: str | None,
        credential: Any,
        endpoint_url: str | None,
        patience: Patience,
    ) -> None:
        self.region = region
        self.patience = patience
        self._subscription = subscription
        self._group = resource_group
        self._credential = credential
        self._endpoint_url = endpoint_url
        # Tokens go over TLS only, but to a server on this machine.
        local = (endpoint_url or "").startswith(("http://127.0.0.1:", "http://localhost:"))
        self._options: dict[str, Any] = {"enforce_https": False} if local else {}
        self._compute = _import("azure.mgmt.compute").ComputeManagementClient
        self._network = _import("azure.mgmt.network").NetworkManagementClient
        self._missing = _import("azure.core").MatchConditions.IfMissing
        self._unchanged = _import("azure.core").MatchConditions.IfNotModified
        self._clients: dict[bool, Any] = {}
        self._lock = threading.RLock()

    def ask(self, kind: str, method: str, *names: Any, until: float, **more: Any) -> Any:
        """One request for a `kind` of resource, again where Azure throttles or does not answer.

        Operations are begun and not waited for: the machine's own state tells how they went, after a crash, too.
        """
        polling = {"polling": False} if method.startswith("begin_") else {}

        def request(timeout_s: float) -> Any:
            call = getattr(getattr(self._client(kind), kind), method)
            scope = () if kind == "resource_skus" else (self.resource_group(),)
            times = {"connection_timeout": min(timeout_s, 10.0), "read_timeout": timeout_s}
            return call(*scope, *names, **more, **polling, **times, **self._options)

        return self.patience.call(
            request,
            lambda error: meaning_of(error, action=f"{kind}.{method}", place=self.region),
            until=until,
        )

    def get(self, kind: str, name: str, *, until: float, **more: Any) -> dict[str, Any]:
        """A resource as plain JSON."""
        return dict(self.ask(kind, "get", name, until=until, **more).as_dict())

    def pages(self, kind: str, *names: str, until: float, **more: Any) -> list[dict[str, Any]]:
        """All resources of a kind in the group, or in what `names` says, page by page.

        A client's own iterator would not ask again.
        """
        found: list[dict[str, Any]] = []
        token: str | None = None
        times = {"connection_timeout": 10.0, "read_timeout": self.patience.timeout_s}

        def page(_: float) -> tuple[list[Any], str | None]:
            scope = () if kind == "resource_skus" else (self.resource_group(),)
            operations = getattr(self._client(kind), kind)
            listing = operations.list_by_resource_group if kind == "ssh_public_keys" else operations.list
            listed = listing(*scope, *names, **more, **times, **self._options)
            pager = listed.by_page(continuation_token=token)
            try:
                return list(next(pager)), pager.continuation_token
            except StopIteration:
                return [], None
            except AttributeError as error:  # the client looks for a page's fields in whatever came
                raise ProviderUnavailableError(
                    f"{kind}.list in {self.region}: the answer is no page"
                ) from error

        while True:
            items, token = self.patience.call(
                page, lambda error: meaning_of(error, action=f"{kind}.list", place=self.region), until=until
            )
            found += [dict(one.as_dict()) for one in items]
            if not token:
                return found

    @property
    def if_missing(self) -> dict[str, Any]:
        """Options of a request that is to make a thing and never to change one."""
        return {"match_condition": self._missing}

    def if_unchanged(self, etag: str) -> dict[str, Any]:
        return {"etag": etag, "match_condition": self._unchanged}

    def resource_group(self) -> str:
        with self._lock:
            if self._group is None:
                from textnlp_fast.config import load_settings  # noqa: PLC0415 - only where nobody says it

                self._group = load_settings().azure_resource_group
            if not self._group:
                raise InvalidInputError(
                    "no resource group of Azure's was given", hint="Set AZURE_RESOURCE_GROUP."
                )
            return self._group

    def subscription(self) -> str:
        with self._lock:
            found = self._subscription or os.environ.get("AZURE_SUBSCRIPTION_ID")
            if not found:
                raise InvalidInputError(
                    "no Azure subscription was given",
                    hint="Set AZURE_SUBSCRIPTION_ID; `az account show` says which you use.",
                )
            return found

    def _client(self, kind: str) -> Any:
        network = kind in _NETWORK
        with self._lock:
            if network not in self._clients:
                if self._credential is None:
                    # What it tried goes into our error; unheard, Python would print it to stderr as well.
                    logging.getLogger("azure.identity").addHandler(logging.NullHandler())
                    self._credential = _import("azure.identity").DefaultAzureCredential()
                where = {"base_url": self._endpoint_url} if self._endpoint_url else {}
                # Retries are ours: the client's own would wait for as long as a busy Azure says.
                self._clients[network] = (self._network if network else self._compute)(
                    self._credential, self.subscription(), retry_total=0, **where
                )
            return self._clients[network]


def _import(name: str) -> Any:
    return imported(name, provider="azure", package=name.replace(".", "-"), extra="gpu-azure")
