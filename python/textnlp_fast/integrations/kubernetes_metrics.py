"""`external.metrics.k8s.io/v1beta1`: an HPA of Kubernetes' own, with an External metric, follows our policy.

A server behind Kubernetes' aggregation layer. It answers discovery (APIGroup, APIResourceList) and

    /apis/external.metrics.k8s.io/v1beta1/namespaces/NAMESPACE/METRIC?labelSelector=...

with the number of replicas as the metric's value, for a target of `{type: AverageValue, averageValue: "1"}` (see
`hpa.py`). An HPA adds up all fleets that its selector matches. A fleet without a decision is an error 503, upon which
an HPA holds.

Who may ask, as the aggregation layer has it ("Configure the Aggregation Layer"): a client with a certificate of the
request-header CA, under one of the allowed names, is the API server, and its `X-Remote-User` is believed. That user
must be among `users` for values; discovery is for any. Without TLS this listens on loopback alone.
"""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import json
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qs, unquote, urlsplit

from textnlp_fast.errors import InvalidInputError, ProviderUnavailableError
from textnlp_fast.integrations.deciding import Entry
from textnlp_fast.integrations.label_selectors import parse_selector

__all__ = ["HPA_USER", "ExternalMetrics", "FrontProxy", "MetricSeries", "serving"]

GROUP: Final = "external.metrics.k8s.io"
VERSION: Final = f"{GROUP}/v1beta1"
#: The HPA's controller, where controllers have service accounts of their own, as is usual.
HPA_USER: Final = "system:serviceaccount:kube-system:horizontal-pod-autoscaler"
_MOST_HEAD_BYTES: Final = 32 * 1024
_REASONS: Final = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    503: "Service Unavailable",
}


@dataclass(frozen=True, kw_only=True)
class MetricSeries:
    """One fleet as a metric."""

    namespace: str
    metric: str
    labels: Mapping[str, str]
    entry: Entry


@dataclass(frozen=True, kw_only=True)
class FrontProxy:
    """Whom the server believes. From the ConfigMap `extension-apiserver-authentication` of `kube-system`."""

    allowed_names: Sequence[str] = ()
    """Common names of the API server's certificate; none: any that the CA has signed."""
    user_header: str = "x-remote-user"
    users: frozenset[str] = frozenset({HPA_USER})
    """Who may read values."""


class _Refused(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, kw_only=True)
class ExternalMetrics:
    """The API over some fleets: paths in, documents out."""

    series: Sequence[MetricSeries]
    proxy: FrontProxy | None = None
    """None: whoever reaches the server may ask."""
    wait_s: float = 2.0
    """For a fleet's first decision."""

    async def answer(
        self, method: str, target: str, headers: Mapping[str, str], certificate: Mapping[str, Any] | None
    ) -> tuple[int, dict[str, Any] | str]:
        """Status and document, or text, for one request. `certificate` as `ssl.SSLSocket.getpeercert` gives it."""
        try:
            parts = urlsplit(target)
            path = [unquote(one) for one in parts.path.strip("/").split("/")]
            if path in (["healthz"], ["readyz"], ["livez"]):
                return 200, "ok"
            user = self._user(headers, certificate)
            if method not in ("GET", "HEAD"):
                raise _Refused(405, f"{method} is not supported: metrics are read")
            return 200, await self._document(path, parse_qs(parts.query, max_num_fields=20), user)
        except _Refused as refusal:
            return refusal.status, _status(refusal.status, str(refusal))
        except (InvalidInputError, ValueError) as error:
            return 400, _status(400, str(error))
        except ProviderUnavailableError as error:
            return 503, _status(503, str(error))

    def _user(self, headers: Mapping[str, str], certificate: Mapping[str, Any] | None) -> str | None:
        if self.proxy is None:
            return None
        if not certificate:
            raise _Refused(401, "a client certificate of the aggregation layer is needed")
        names = {
            value for part in certificate.get("subject", ()) for key, value in part if key == "commonName"
        }
        if self.proxy.allowed_names and not names & set(self.proxy.allowed_names):
            raise _Refused(
                401, f"{', '.join(sorted(names)) or 'nobody'} is not a name of the aggregation layer's"
            )
        return headers.get(self.proxy.user_header, "")

    async def _document(
        self, path: list[str], query: Mapping[str, list[str]], user: str | None
    ) -> dict[str, Any]:
        if path == ["apis", GROUP]:
            version = {"groupVersion": VERSION, "version": "v1beta1"}
            return {
                "kind": "APIGroup",
                "apiVersion": "v1",
                "name": GROUP,
                "versions": [version],
                "preferredVersion": version,
            }
        if path == ["apis", *VERSION.split("/")]:
            return self._resources()
        if len(path) != 6 or path[:4] != ["apis", *VERSION.split("/"), "namespaces"]:
            raise _Refused(404, "the server could not find the requested resource")
        if self.proxy is not None and user not in self.proxy.users:
            raise _Refused(403, f"{user or 'nobody'} may not read external metrics here")
        return await self._values(path[4], path[5], query)

    def _resources(self) -> dict[str, Any]:
        return {
            "kind": "APIResourceList",
            "apiVersion": "v1",
            "groupVersion": VERSION,
            "resources": [
                {
                    "name": name,
                    "singularName": "",
                    "namespaced": True,
                    "kind": "ExternalMetricValueList",
                    "verbs": ["get"],
                }
                for name in sorted({one.metric for one in self.series})
            ],
        }

    async def _values(self, namespace: str, metric: str, query: Mapping[str, list[str]]) -> dict[str, Any]:
        matches = parse_selector(",".join(query.get("labelSelector", [])))
        named = [one for one in self.series if one.metric == metric and one.namespace == namespace]
        if not named:
            raise _Refused(404, f"there is no metric {metric[:80]!r} in the namespace {namespace[:80]!r}")
        return {
            "kind": "ExternalMetricValueList",
            "apiVersion": VERSION,
            "metadata": {},
            "items": [await self._item(one) for one in named if matches(one.labels)],
        }

    async def _item(self, series: MetricSeries) -> dict[str, Any]:
        standing = series.entry.look()
        if standing is None:
            standing = await asyncio.to_thread(series.entry.wait, self.wait_s)
        now = datetime.datetime.now(datetime.timezone.utc)
        return {
            "metricName": series.metric,
            "metricLabels": dict(series.labels),
            "timestamp": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "value": str(standing.replicas),
        }


def _status(code: int, message: str) -> dict[str, Any]:
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message[:1000],
        "reason": _REASONS[code].replace(" ", ""),
        "code": code,
    }


@asynccontextmanager
async def serving(
    api: ExternalMetrics,
    *,
    host: str = "127.0.0.1",
    port: int = 6443,
    tls: ssl.SSLContext | None = None,
    most_connections: int = 64,
    request_timeout_s: float = 30.0,
) -> AsyncIterator[int]:
    """Serves while the block runs, and gives the port.

    `tls` must ask for client certificates (`verify_mode` CERT_OPTIONAL, with the request-header CA) where `api` has a
    `proxy`. Connections are kept, as the API server likes it, and closed when they are silent for `request_timeout_s`;
    those above `most_connections` are closed at once. Raises InvalidInputError for an address that others reach without
    TLS and a `proxy`, and for one that cannot be listened on.
    """
    guarded = tls is not None and tls.verify_mode is not ssl.CERT_NONE and api.proxy is not None
    if api.proxy is not None and not guarded:
        raise InvalidInputError("client certificates are asked for, and TLS is not set up to ask for them")
    if not guarded and not _loopback(host):
        raise InvalidInputError(
            f"other machines reach {host}, and anybody could ask",
            hint="Give a certificate and the request-header CA, or listen on 127.0.0.1.",
        )
    open_now: set[asyncio.StreamWriter] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(open_now) >= most_connections:
            writer.close()
            return
        open_now.add(writer)
        try:
            while await asyncio.wait_for(_answer_one(api, reader, writer), request_timeout_s):
                pass
        except (OSError, EOFError, asyncio.TimeoutError, asyncio.LimitOverrunError, UnicodeDecodeError):
            pass  # the other side went away, was silent, or speaks no HTTP: the connection ends
        finally:
            open_now.discard(writer)
            writer.close()

    try:
        server = await asyncio.start_server(connected, host, port, ssl=tls, limit=_MOST_HEAD_BYTES)
    except (OSError, OverflowError) as error:
        raise InvalidInputError(
            f"cannot listen on {host}:{port}: {error}", hint="Give an address free here."
        ) from error
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in list(open_now):
            writer.close()
        await server.wait_closed()


async def _answer_one(
    api: ExternalMetrics, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> bool:
    """One request of a connection; whether there may be another."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    words, lines = head[0].split(" "), [line for line in head[1:] if line]
    headers = {
        name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)
    }
    fine = len(words) == 3 and words[2] in ("HTTP/1.1", "HTTP/1.0")
    # Nobody sends a body here; whoever does gets an answer, and the connection ends with it.
    bare = headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers
    # A header twice is a way to be two users at once.
    single = len(headers) == len(lines)
    keep = (
        fine
        and bare
        and single
        and words[2] == "HTTP/1.1"
        and headers.get("connection", "").lower() != "close"
    )
    if fine and single:
        certificate = writer.get_extra_info("peercert")
        status, document = await api.answer(words[0], words[1], headers, certificate)
    else:
        status, document = 400, _status(400, "this is no request that can be understood")
    text = isinstance(document, str)
    body = document.encode() if isinstance(document, str) else json.dumps(document).encode()
    answer = (
        f"HTTP/1.1 {status} {_REASONS[status]}\r\n"
        f"Content-Type: {'text/plain' if text else 'application/json'}\r\n"
        f"Content-Length: {len(body)}\r\nConnection: {'keep-alive' if keep else 'close'}\r\n\r\n"
    )
    writer.write(answer.encode("ascii") + (b"" if words[0] == "HEAD" else body))
    await writer.drain()
    return keep


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
