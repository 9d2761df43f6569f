"""Google's own client: imported when it is needed, with the default credentials and bounded retries."""

from __future__ import annotations

import importlib
import itertools
import os
import re
from typing import TYPE_CHECKING, Any, cast

from textnlp_fast.errors import AuthenticationError, MissingPackageError, StorageUnavailableError
from textnlp_fast.objectstore.endpoints import authorities, check_endpoint

if TYPE_CHECKING:
    from textnlp_fast.objectstore.store import OpenArguments

__all__ = ["GoogleClient", "GoogleModules", "first_line", "google_client"]

_SCOPE = "https://www.googleapis.com/auth/devstorage.read_write"
_CONNECT_TIMEOUT_S = 10.0
_RETRY_TIMEOUT_S = 240.0
_CONNECTIONS = 32
_TRANSIENT = {408, 429, 500, 502, 503, 504}


class GoogleClient:
    """Google's client with the modules that go with it, its timeouts and its retries."""

    def __init__(self, client: Any, modules: GoogleModules, *, timeout_s: float, retries: int) -> None:
        self.client = client
        self.modules = modules
        self.timeout_s = (min(timeout_s, _CONNECT_TIMEOUT_S), timeout_s)
        self._retry_timeout_s = min(timeout_s * (retries + 1), _RETRY_TIMEOUT_S)
        self._retries = retries

    def retry(self) -> Any:
        """Retries for one call that may be sent twice: bounded in number and in time."""
        tries = itertools.count()
        return self.modules.retry.Retry(
            predicate=lambda error: self.is_transient(error) and next(tries) < self._retries,
            initial=0.1,
            maximum=5.0,
            multiplier=2.0,
            timeout=self._retry_timeout_s,
        )

    def is_transient(self, error: BaseException) -> bool:
        """Whether the same request may succeed if it is sent again."""
        if isinstance(error, self.modules.api.GoogleAPICallError):
            return error.code in _TRANSIENT or "ratelimitexceeded" in f"{error.errors} {error}".lower()
        if isinstance(error, self.modules.storage.InvalidResponse):
            code = error.response.status_code
            return code in _TRANSIENT or (code == 403 and "ratelimitexceeded" in error.response.text.lower())
        return isinstance(error, self.modules.lost)


class GoogleModules:
    """What is used of Google's packages, imported when the first bucket is opened."""

    def __init__(self) -> None:
        try:
            self.client = _module("google.cloud.storage")
            self.storage = _module("google.cloud.storage.exceptions")
            self.api = _module("google.api_core.exceptions")
            self.retry = _module("google.api_core.retry")
            self.auth = _module("google.auth")
            self.auth_errors = _module("google.auth.exceptions")
            self.anonymous = _module("google.auth.credentials").AnonymousCredentials
            self.transport = _module("google.auth.transport.requests")
            self.requests = _module("requests")
            urllib3 = _module("urllib3")
        except ImportError as error:
            raise MissingPackageError(
                f"gs:// needs Google's client, which is not installed ({error})",
                hint="Run `pip install 'textnlp-fast[gcp]'`.",
            ) from error
        #: A request or its answer got lost: nobody knows whether it was carried out.
        self.lost = (
            self.requests.exceptions.RequestException,
            urllib3.exceptions.HTTPError,
            self.auth_errors.TransportError,
            ConnectionError,
        )
        #: All that a call can raise.
        self.errors = (
            *self.lost,
            self.api.GoogleAPIError,
            self.auth_errors.GoogleAuthError,
            self.storage.InvalidResponse,
            self.storage.DataCorruption,
        )


def _module(name: str) -> Any:
    return cast("Any", importlib.import_module(name))


def google_client(opening: OpenArguments) -> GoogleClient:
    """A client with the default credentials, for any bucket. Nothing is sent yet.

    ``STORAGE_EMULATOR_HOST`` names an endpoint that wants no credentials. Raises ``AuthenticationError`` where there
    are none, ``MissingPackageError`` without google-cloud-storage.
    """
    emulator = os.environ.get("STORAGE_EMULATOR_HOST")
    if emulator and "://" not in emulator:
        emulator = f"http://{emulator}"
    endpoint = opening.endpoint_url or emulator
    if endpoint:
        check_endpoint(endpoint, allow_http=opening.allow_http)
    modules = GoogleModules()
    if emulator:
        credentials = modules.anonymous()
    else:
        try:
            credentials, _ = modules.auth.default(scopes=[_SCOPE])
        except modules.auth_errors.TransportError as error:  # of a federation, the project is asked for
            raise StorageUnavailableError(
                f"cannot get Google credentials: {first_line(str(error))}"
            ) from error
        except (modules.auth_errors.GoogleAuthError, ValueError) as error:
            raise AuthenticationError(
                f"no Google credentials found: {first_line(str(error))}",
                hint="Run `gcloud auth application-default login`, set GOOGLE_APPLICATION_CREDENTIALS, or give the "
                "machine a service account.",
            ) from error
    session = modules.transport.AuthorizedSession(credentials)
    session.verify = authorities("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE") or True
    for scheme in ("https://", "http://"):
        session.mount(scheme, modules.requests.adapters.HTTPAdapter(pool_maxsize=_CONNECTIONS))
    client = modules.client.Client(
        project=None,
        credentials=credentials,
        _http=session,
        client_options={"api_endpoint": endpoint.rstrip("/")} if endpoint else None,
    )
    # Newer clients look the bucket up on a thread of their own, for traces: that needs a permission more than we do.
    vars(client).pop("_bucket_metadata_cache", None)
    return GoogleClient(client, modules, timeout_s=opening.timeout_s, retries=opening.retries)


def first_line(text: str) -> str:
    """The text of an error on one line, and not all of a page of it."""
    return re.sub(r"\s+", " ", text).strip()[:500]
