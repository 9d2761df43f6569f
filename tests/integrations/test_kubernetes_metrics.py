"""The external metrics API as an API server asks it: HTTP and HTTPS on loopback."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from integrations.certificates import Authority
from integrations.hpa_reference import Hpa
from integrations.standins import Following, HeldFleet
from textnlp_fast.errors import InvalidInputError
from textnlp_fast.gpu.scaling.policy import ScalingPolicy
from textnlp_fast.integrations.deciding import DecisionBoard, Fleet
from textnlp_fast.integrations.kubernetes_metrics import (
    GROUP,
    HPA_USER,
    VERSION,
    ExternalMetrics,
    FrontProxy,
    MetricSeries,
    serving,
)

SETTINGS = ScalingPolicy(min_instances=0, max_instances=50, period_s=0.02)
VALUES = f"/apis/{VERSION}/namespaces/prod/llm-replicas"


@pytest.fixture
def board() -> Iterator[DecisionBoard]:
    with DecisionBoard() as board:
        yield board


def series(board: DecisionBoard, held: HeldFleet, name: str = "llama", **others: Any) -> MetricSeries:
    def fleet() -> Fleet:
        return Fleet(settings=SETTINGS, policy=Following(SETTINGS), observe=held, tolerance=0.0)

    values = {
        "namespace": "prod",
        "metric": "llm-replicas",
        "labels": {"fleet": name, "tier": "gpu"},
        **others,
    }
    return MetricSeries(entry=board.enrol((values["namespace"], name), fleet), **values)


async def get(
    port: int, path: str, *, tls: ssl.SSLContext | None = None, method: str = "GET", **headers: str
) -> Any:
    def ask() -> Any:
        if tls is None:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        else:
            connection = http.client.HTTPSConnection("localhost", port, timeout=20, context=tls)
        try:
            connection.request(
                method, path, headers={name.replace("_", "-"): text for name, text in headers.items()}
            )
            answer = connection.getresponse()
            body = answer.read()
            is_json = answer.headers["Content-Type"] == "application/json" and body
            return answer.status, json.loads(body) if is_json else body.decode()
        finally:
            connection.close()

    return await asyncio.to_thread(ask)


async def test_discovery_values_and_selectors(board: DecisionBoard) -> None:
    fleets = [
        series(board, HeldFleet(requests=3)),
        series(board, HeldFleet(requests=8), "qwen"),
        series(board, HeldFleet(requests=5), "other", namespace="test"),
    ]
    async with serving(ExternalMetrics(series=fleets), port=0) as port:
        status, group = await get(port, f"/apis/{GROUP}")
        assert (status, group["preferredVersion"]["groupVersion"]) == (200, VERSION)
        status, resources = await get(port, f"/apis/{VERSION}")
        assert status == 200
        assert resources == {
            "kind": "APIResourceList",
            "apiVersion": "v1",
            "groupVersion": VERSION,
            "resources": [
                {
                    "name": "llm-replicas",
                    "singularName": "",
                    "namespaced": True,
                    "kind": "ExternalMetricValueList",
                    "verbs": ["get"],
                }
            ],
        }
        status, values = await get(port, f"{VALUES}?labelSelector=fleet%3Dllama%2Ctier+in+%28gpu%29")
        assert (status, values["kind"], values["apiVersion"]) == (200, "ExternalMetricValueList", VERSION)
        (item,) = values["items"]
        assert item["metricName"] == "llm-replicas"
        assert item["metricLabels"] == {"fleet": "llama", "tier": "gpu"}
        assert item["value"] == "3"
        assert item["timestamp"].endswith("Z")
        for selector, expected in (("", ["3", "8"]), ("fleet!=llama", ["8"]), ("fleet=none", [])):
            _, values = await get(port, f"{VALUES}?labelSelector={selector.replace('=', '%3D')}")
            assert [item["value"] for item in values["items"]] == expected
        _, values = await get(port, VALUES.replace("prod", "test"))
        assert [item["value"] for item in values["items"]] == ["5"]


@pytest.mark.parametrize(
    ("path", "status", "says"),
    [
        (f"{VALUES}-of-nobody", 404, "no metric"),
        (VALUES.replace("prod", "elsewhere"), 404, "in the namespace"),
        (f"{VALUES}?labelSelector=%3D%3D", 400, "selector"),
        (f"{VALUES}?" + "&".join(["a=1"] * 30), 400, "fields"),
        (f"{VALUES}/more", 404, "could not find"),
        ("/apis/apps/v1", 404, "could not find"),
        ("/", 404, "could not find"),
        ("/..%2f..%2fetc/passwd", 404, "could not find"),
    ],
)
async def test_what_is_not_there_is_a_status_of_kubernetes(
    board: DecisionBoard, path: str, status: int, says: str
) -> None:
    async with serving(ExternalMetrics(series=[series(board, HeldFleet())]), port=0) as port:
        code, document = await get(port, path)
        assert (code, document["kind"], document["status"], document["code"]) == (
            status,
            "Status",
            "Failure",
            status,
        )
        assert says in document["message"]
        assert (await get(port, VALUES, method="DELETE"))[0] == 405
        assert await get(port, "/healthz") == (200, "ok")


async def test_a_fleet_that_cannot_be_seen_is_an_error_on_which_an_hpa_holds(board: DecisionBoard) -> None:
    lost, held = HeldFleet(), HeldFleet(requests=4)
    lost.failing = ConnectionRefusedError("nobody listens")
    fleets = [series(board, held), series(board, lost, "lost")]
    async with serving(ExternalMetrics(series=fleets), port=0) as port:
        code, document = await get(port, f"{VALUES}?labelSelector=fleet%3Dlost")
        assert (code, document["reason"]) == (503, "ServiceUnavailable")
        assert "nobody listens" in document["message"]
        held.failing = lost.failing
        await asyncio.to_thread(held.wait_looks)
        _, values = await get(port, f"{VALUES}?labelSelector=fleet%3Dllama")
        assert values["items"][0]["value"] == "4"


async def test_an_hpa_follows(board: DecisionBoard) -> None:
    held = HeldFleet(requests=2)
    hpa = Hpa(1, most=50, tolerance_up=0.0, tolerance_down=0.0)
    hpa.down.stabilization_s = 0.0
    seen = []
    async with serving(ExternalMetrics(series=[series(board, held)]), port=0) as port:
        for now, requests in enumerate([2, 4, 5, 9, 8, 3]):
            held.requests, held.ready = requests, hpa.replicas
            await asyncio.to_thread(held.wait_looks)
            _, values = await get(port, VALUES)
            seen.append(hpa.step(15.0 * now, sum(float(item["value"]) for item in values["items"])))
    assert seen == [2, 4, 5, 9, 8, 3]


@pytest.fixture(scope="module")
def front_proxy(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """TLS of a server that asks for certificates, and of clients: the API server, another of its CA, none, a forger."""
    folder = tmp_path_factory.mktemp("tls")
    serving_ca, proxy_ca, forger = Authority("serving"), Authority("front-proxy"), Authority("front-proxy")

    def pair(authority: Authority, name: str) -> Path:
        file = folder / f"{name}-{id(authority)}.pem"
        file.write_bytes(b"".join(authority.certificate(name)))
        return file

    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pair(serving_ca, "localhost"))
    server.load_verify_locations(cadata=proxy_ca.pem.decode())
    server.verify_mode = ssl.CERT_OPTIONAL
    contexts = {"server": server}
    for name, client in {
        "api-server": pair(proxy_ca, "front-proxy-client"),
        "other": pair(proxy_ca, "some-node"),
        "forger": pair(forger, "front-proxy-client"),
        "nobody": None,
    }.items():
        contexts[name] = ssl.create_default_context(cadata=serving_ca.pem.decode())
        if client is not None:
            contexts[name].load_cert_chain(client)
    return contexts


async def test_only_the_api_server_is_believed_and_only_for_users_who_may(
    board: DecisionBoard, front_proxy: dict[str, ssl.SSLContext]
) -> None:
    api = ExternalMetrics(
        series=[series(board, HeldFleet(requests=6))], proxy=FrontProxy(allowed_names=["front-proxy-client"])
    )
    async with serving(api, port=0, tls=front_proxy["server"]) as port:
        status, values = await get(port, VALUES, tls=front_proxy["api-server"], X_Remote_User=HPA_USER)
        assert (status, values["items"][0]["value"]) == (200, "6")
        for user in ("system:anonymous", "", HPA_USER + "x"):
            assert (await get(port, VALUES, tls=front_proxy["api-server"], X_Remote_User=user))[0] == 403
        assert (await get(port, VALUES, tls=front_proxy["api-server"]))[0] == 403
        status, _ = await get(
            port, f"/apis/{VERSION}", tls=front_proxy["api-server"], X_Remote_User="anybody"
        )
        assert status == 200
        for client in ("other", "nobody"):
            for path in (VALUES, f"/apis/{VERSION}"):
                assert (await get(port, path, tls=front_proxy[client], X_Remote_User=HPA_USER))[0] == 401
        with pytest.raises((ssl.SSLError, ConnectionError, http.client.RemoteDisconnected)):
            await get(port, VALUES, tls=front_proxy["forger"], X_Remote_User=HPA_USER)
        assert await get(port, "/readyz", tls=front_proxy["nobody"]) == (200, "ok")


async def test_a_user_said_twice_is_nobody(
    board: DecisionBoard, front_proxy: dict[str, ssl.SSLContext]
) -> None:
    api = ExternalMetrics(series=[series(board, HeldFleet())], proxy=FrontProxy())
    async with serving(api, port=0, tls=front_proxy["server"]) as port:
        request = f"GET {VALUES} HTTP/1.1\r\nX-Remote-User: eve\r\nX-Remote-User: {HPA_USER}\r\n\r\n"
        assert (await raw(port, request.encode(), front_proxy["api-server"])).startswith(b"HTTP/1.1 400 ")


async def raw(port: int, data: bytes, tls: ssl.SSLContext | None = None) -> bytes:
    """What comes back until the other side closes."""
    host = "localhost" if tls else None
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls, server_hostname=host)
    try:
        writer.write(data)
        return await asyncio.wait_for(reader.read(), 20)
    finally:
        writer.close()


@pytest.mark.parametrize(
    ("data", "begins"),
    [
        (b"\x16\x03\x01" + b"\x00" * 200 + b"\r\n\r\n", b"HTTP/1.1 400 "),
        (b"GET\r\n\r\n", b"HTTP/1.1 400 "),
        (b"GET / HTTP/2\r\n\r\n", b"HTTP/1.1 400 "),
        (b"GET http://[ HTTP/1.1\r\nconnection: close\r\n\r\n", b"HTTP/1.1 400 "),
        (b"POST / HTTP/1.1\r\ncontent-length: 5\r\n\r\nGET /healthz HTTP/1.1\r\n\r\n", b"HTTP/1.1 405 "),
        (b"x" * 100_000, b""),
    ],
)
async def test_what_is_no_request_ends_its_connection_alone(
    board: DecisionBoard, data: bytes, begins: bytes
) -> None:
    async with serving(ExternalMetrics(series=[series(board, HeldFleet())]), port=0) as port:
        answer = await raw(port, data)
        assert answer.startswith(begins)
        assert answer.count(b"HTTP/1.1 ") <= 1
        assert await get(port, "/healthz") == (200, "ok")


async def test_a_connection_serves_many_and_a_silent_one_is_closed(board: DecisionBoard) -> None:
    api = ExternalMetrics(series=[series(board, HeldFleet())])
    async with serving(api, port=0, request_timeout_s=0.3, most_connections=2) as port:
        answer = await raw(port, b"GET /healthz HTTP/1.1\r\n\r\n" * 3)  # and then silence
        assert answer.count(b"200 OK") == 3
        silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(2)]
        assert await raw(port, b"") == b""
        for one in silent:
            one.close()


async def test_it_does_not_listen_where_anybody_could_ask(
    board: DecisionBoard, front_proxy: dict[str, ssl.SSLContext]
) -> None:
    open_api = ExternalMetrics(series=[series(board, HeldFleet())])
    for api, options, says in (
        (open_api, {"host": "0.0.0.0"}, "anybody could ask"),
        (open_api, {"host": "0.0.0.0", "tls": front_proxy["server"]}, "anybody could ask"),
        (ExternalMetrics(series=[], proxy=FrontProxy()), {}, "not set up to ask"),
        (open_api, {"port": 99999}, "cannot listen"),
    ):
        with pytest.raises(InvalidInputError, match=says):
            async with serving(api, **{"port": 0, **options}):  # type: ignore[arg-type]
                pass
