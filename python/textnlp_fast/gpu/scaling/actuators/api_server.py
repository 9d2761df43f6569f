"""The API server of a Kubernetes cluster over plain HTTP: who asks it, and what its errors mean."""

from __future__ import annotations

import http.client
import importlib
import json
import os
import re
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

from textnlp_fast.errors import (
    AuthenticationError,
    ConflictError,
    InvalidInputError,
    MissingPackageError,
    ObjectNotFoundError,
    ProviderUnavailableError,
    TextnlpFastError,
)
from textnlp_fast.gpu.providers.calling import Meaning, NoCredentialsError, Patience

__all__ = ["ApiAccess", "ApiServer", "access"]

_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_LIMIT_BYTES: Final = 32 << 20
_ALLOW: Final = "Grant it to the service account; docs/guide/gpu-actuators.md has the role."


@dataclass(frozen=True, kw_only=True)
class ApiAccess:
    """Where the server is, and what proves who asks. `token` is asked each time: a pod's token changes every hour."""

    server: str
    token: Callable[[], str | None]
    context: ssl.SSLContext | None = None


def access(
    *,
    server: str | None = None,
    token: str | None = None,
    kubeconfig: str | None = None,
    kube_context: str | None = None,
    account: Path = _ACCOUNT,
) -> ApiAccess:
    """A server that is named, else the cluster this runs in, else the one of a kubeconfig (extra `kubernetes`).

    Raises NoCredentialsError, MissingPackageError.
    """
    if server is not None:
        parts = urlsplit(server)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
            raise InvalidInputError(
                f"{server!r:.100} is no address of an API server", hint="Write https://HOST:PORT"
            )
        if parts.scheme == "http" and token and parts.hostname not in ("127.0.0.1", "localhost", "::1"):
            raise InvalidInputError("a token goes over TLS only", hint="Write https://HOST:PORT")
        return ApiAccess(server=server, token=lambda: token, context=_context(parts.scheme))
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT")
    if host and port and kubeconfig is None and (account / "token").exists():
        context = ssl.create_default_context(cafile=str(account / "ca.crt"))
        host = f"[{host}]" if ":" in host else host
        return ApiAccess(
            server=f"https://{host}:{port}",
            token=lambda: (account / "token").read_text(encoding="utf-8").strip(),
            context=context,
        )
    return _of_kubeconfig(kubeconfig, kube_context)


def _of_kubeconfig(kubeconfig: str | None, kube_context: str | None) -> ApiAccess:
    try:
        config, client = (
            importlib.import_module("kubernetes.config"),
            importlib.import_module("kubernetes.client"),
        )
    except ImportError as error:
        raise MissingPackageError(
            "a kubeconfig is read by the Kubernetes client",
            hint="Run: pip install 'textnlp-fast[kubernetes]'",
        ) from error
    found = client.Configuration()
    try:
        config.load_kube_config(kubeconfig, kube_context, client_configuration=found)
    except config.ConfigException as error:
        raise NoCredentialsError(
            f"no cluster to talk to: {error}",
            hint="Run it in a pod with a service account, or name a kubeconfig (KUBECONFIG).",
        ) from error
    context = _context(urlsplit(found.host).scheme)
    if context is not None:
        if not found.verify_ssl:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if found.ssl_ca_cert:
            context.load_verify_locations(cafile=found.ssl_ca_cert)
        if found.cert_file:
            context.load_cert_chain(found.cert_file, found.key_file)

    def token() -> str | None:
        # Runs the kubeconfig's plug-in where the token has ended. `Bearer` is a part of what it gives.
        said = found.get_api_key_with_prefix("authorization") or found.get_api_key_with_prefix("BearerToken")
        return None if said is None else str(said).removeprefix("Bearer ")

    return ApiAccess(server=str(found.host), token=token, context=context)


def _context(scheme: str) -> ssl.SSLContext | None:
    return ssl.create_default_context() if scheme == "https" else None


class _Refused(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, said: Mapping[str, Any] | None, after_s: float | None) -> None:
        super().__init__(str(status))
        self.status = status
        self.said = said
        self.after_s = after_s


class ApiServer:
    """Requests to one API server, again where it throttles or does not answer."""

    def __init__(self, found: Callable[[], ApiAccess], *, patience: Patience) -> None:
        self._find = found
        self._access: ApiAccess | None = None
        self._patience = patience

    def ask(
        self,
        method: str,
        path: str,
        *,
        until: float,
        query: Mapping[str, str] | None = None,
        patch: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
        apply: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """An answer's JSON. `patch` is a merge patch (RFC 7386), `apply` an object to be applied by the server
        (whose `fieldManager` the query names). Whatever is asked may be repeated.
        """
        if self._access is None:
            self._access = self._find()
        server = self._access
        target = path + (f"?{urlencode(query)}" if query else "")
        sent, kind = body, "application/json"
        if patch is not None:
            sent, kind = patch, "application/merge-patch+json"
        elif apply is not None:
            sent, kind = apply, "application/apply-patch+yaml"  # of which JSON is a part
        raw = None if sent is None else json.dumps(sent).encode()

        def request(timeout_s: float) -> dict[str, Any]:
            return _exchange(server, method, target, raw, kind, timeout_s)

        return self._patience.call(
            request, lambda error: _meaning_of(error, action=f"{method} {path}"), until=until
        )


def _exchange(
    server: ApiAccess, method: str, target: str, body: bytes | None, kind: str, timeout_s: float
) -> dict[str, Any]:
    parts = urlsplit(server.server)
    assert parts.hostname is not None
    connection = (
        http.client.HTTPConnection(parts.hostname, parts.port or 80, timeout=timeout_s)
        if server.context is None
        else http.client.HTTPSConnection(
            parts.hostname, parts.port or 443, timeout=timeout_s, context=server.context
        )
    )
    headers = {"Accept": "application/json", "User-Agent": "textnlp-fast"}
    if body is not None:
        headers["Content-Type"] = kind
    token = server.token()
    if token:
        headers["Authorization"] = f"Bearer {token}"
    try:
        connection.request(method, parts.path.rstrip("/") + target, body=body, headers=headers)
        answer = connection.getresponse()
        raw = answer.read(_LIMIT_BYTES + 1)
    finally:
        connection.close()
    if len(raw) > _LIMIT_BYTES:
        raise ProviderUnavailableError(f"{method} {target}: an answer of more than {_LIMIT_BYTES} bytes")
    try:
        said = json.loads(raw)
    except (ValueError, RecursionError):
        said = None
    if answer.status >= 300 or not isinstance(said, dict):
        after = answer.getheader("Retry-After") or ""
        after_s = float(after) if re.fullmatch(r"\d{1,6}", after) else None
        raise _Refused(answer.status, said if isinstance(said, dict) else None, after_s)
    return said


def _meaning_of(error: Exception, *, action: str) -> Meaning:
    if isinstance(error, TextnlpFastError):
        return Meaning(error)
    if isinstance(error, (OSError, http.client.HTTPException)):
        words = f"{action}: {type(error).__name__}: {error}"[:500]
        return Meaning(ProviderUnavailableError(words), again=True)
    if not isinstance(error, _Refused):
        raise error
    said = error.said or {}
    is_status = said.get("kind") == "Status"
    words = " ".join(str(said.get("message") or "no reason given").split())[:500]
    text = f"{action}: {words} ({said.get('reason') or error.status})"
    if error.status == 401:
        return Meaning(
            AuthenticationError(text, hint="Log in to the cluster again, or mend the service account.")
        )
    if error.status == 403:
        return Meaning(AuthenticationError(text, hint=_ALLOW))
    if error.status == 404 and is_status:
        return Meaning(ObjectNotFoundError(text, hint="`kubectl get` in the namespace shows what there is."))
    if error.status == 409:
        return Meaning(ConflictError(text, hint="Run the command again."))
    if error.status in (400, 405, 415, 422) and is_status:
        return Meaning(InvalidInputError(text))
    # Throttled, failing, or no API server at all: what is no Status is some proxy's word.
    return Meaning(ProviderUnavailableError(text), again=True, after_s=error.after_s)
