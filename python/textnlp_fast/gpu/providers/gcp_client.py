"""Compute Engine through its client: one request at a time, lists in pages, operations to their end."""

from __future__ import annotations

import functools
import threading
import time
from typing import Any

from textnlp_fast.errors import InvalidInputError, ProviderUnavailableError
from textnlp_fast.gpu.providers.calling import NoCredentialsError, Patience, imported
from textnlp_fast.gpu.providers.gcp_errors import meaning_of
from textnlp_fast.gpu.providers.gcp_requests import last_part

__all__ = ["Compute"]

_import = functools.partial(imported, provider="gcp", package="google-cloud-compute", extra="gpu-gcp")


class Compute:
    """The API, for one project and region. Clients are made when first used; all that is asked may be repeated."""

    def __init__(
        self,
        region: str,
        *,
        project: str | None,
        credentials: Any,
        endpoint_url: str | None,
        patience: Patience,
    ) -> None:
        self.region = region
        self.patience = patience
        self._project = project
        self._credentials = credentials
        self._endpoint_url = endpoint_url
        self._module = _import("google.cloud.compute_v1")
        self._clients: dict[str, Any] = {}
        self._lock = threading.RLock()

    def pages(
        self, client: str, asked: dict[str, Any], until: float, *, method: str = "list", key: str = "items"
    ) -> list[Any]:
        """All of a list, page by page; `key` is what a page calls them."""
        found: list[Any] = []
        token = ""
        while True:
            page = self.ask(
                client, method, {**asked, "page_token": token} if token else asked, until, paged=True
            )
            found += getattr(page, key)
            token = page.next_page_token
            if not token:
                return found

    def ask(
        self, client: str, method: str, asked: dict[str, Any], until: float, *, paged: bool = False
    ) -> Any:
        """One request, again where Compute Engine throttles or does not answer. All that is asked may be repeated."""

        def request(timeout_s: float) -> Any:
            call = getattr(self._client(client), method)
            answer = call(request={"project": self.project_id(), **asked}, retry=None, timeout=timeout_s)
            # A pager fetches pages behind our back, without our retries: only its first page is taken.
            return next(iter(answer.pages)) if paged else answer

        return self.patience.call(
            request,
            lambda error: meaning_of(error, action=f"{client}.{method}", place=self.region),
            until=until,
        )

    def _client(self, name: str) -> Any:
        with self._lock:
            if name not in self._clients:
                options = {"api_endpoint": self._endpoint_url} if self._endpoint_url else None
                make = getattr(self._module, f"{name}Client")
                self._clients[name] = make(credentials=self._credentials, client_options=options)
            return self._clients[name]

    def project_id(self) -> str:
        with self._lock:
            if self._project is None:
                self._project = self._find_project()
            return self._project

    def _find_project(self) -> str:
        from textnlp_fast.config import load_settings  # noqa: PLC0415 - only where nobody says it

        project = load_settings().gcp_project_id
        if project is None and self._credentials is None:
            auth = _import("google.auth")
            try:
                self._credentials, project = auth.default()
            except auth.exceptions.GoogleAuthError as error:
                raise NoCredentialsError(
                    f"no Google credentials found: {error}",
                    hint="Run `gcloud auth application-default login`, or give the machine a service account.",
                ) from error
        if not project:
            raise InvalidInputError("no Google Cloud project was given", hint="Set GCP_PROJECT_ID.")
        return str(project)

    def operation_of(self, zone: str | None, token: str, until: float) -> Any | None:
        """The operation that a request id began, if the scope's operations show one: they are kept for two weeks."""
        scope = {"zone": zone} if zone else {"region": self.region}
        asked = {**scope, "filter": f'clientOperationId="{token}"'}
        found = self.pages("ZoneOperations" if zone else "RegionOperations", asked, until)
        return found[0] if found else None

    def wait(self, operation: Any, until: float, action: str, *, must_end: bool) -> Any:
        pause = self.patience.pauses(until=until)
        while operation.status.name != "DONE":
            if not pause():
                if not must_end:
                    return operation
                raise ProviderUnavailableError(
                    f"{action}: Compute Engine took the order, and is not done with it in time",
                    hint="Run the command again: it waits for the same order.",
                )
            scope = (
                {"zone": last_part(operation.zone)}
                if operation.zone
                else {"region": last_part(operation.region)}
            )
            asked = {**scope, "operation": operation.name}
            client = "ZoneOperations" if operation.zone else "RegionOperations"
            operation = self.ask(client, "get", asked, max(until, time.monotonic() + 1.0))
        return operation
