"""The scaler as KEDA sees it: a gRPC client on loopback."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest

from integrations.certificates import Authority
from integrations.hpa_reference import Hpa, Rules
from integrations.standins import Following, HeldFleet
from textnlp_fast.errors import InvalidInputError
from textnlp_fast.integrations.deciding import DecisionBoard
from textnlp_fast.integrations.fleet_settings import FleetSettings
from textnlp_fast.integrations.keda.messages import CLASSES, HEALTH_CLASSES, HEALTH_SERVICE, SERVICE
from textnlp_fast.integrations.keda.serving import TlsFiles, serve

METADATA = {
    "scalerAddress": "scaler:6000",
    "metricsUrl": "http://prometheus:9090",
    "minInstances": "0",
    "maxInstances": "40",
    "periodS": "0.02",
    "hpaTolerance": "0",
}


class Client:
    """KEDA, as far as a scaler hears of it."""

    def __init__(self, channel: Any) -> None:
        self.channel = channel

    @staticmethod
    def reference(name: str = "llm", **metadata: str) -> Any:
        return CLASSES["ScaledObjectRef"](
            name=name, namespace="prod", scalerMetadata={**METADATA, **metadata}
        )

    def call(self, method: str, request: Any, answer: str, timeout_s: float | None = 20.0) -> Any:
        stub = self.channel.unary_unary(
            f"/{SERVICE}/{method}",
            request_serializer=lambda one: one.SerializeToString(),
            response_deserializer=CLASSES[answer].FromString,
        )
        return stub(request, timeout=timeout_s)

    async def active(self, **of: Any) -> bool:
        return bool((await self.call("IsActive", self.reference(**of), "IsActiveResponse")).result)

    async def metric(self, name: str = "textnlp-fast-replicas", **of: Any) -> float:
        timeout_s = of.pop("timeout_s", 20.0)
        request = CLASSES["GetMetricsRequest"](scaledObjectRef=self.reference(**of), metricName=name)
        (value,) = (await self.call("GetMetrics", request, "GetMetricsResponse", timeout_s)).metricValues
        # As KEDA reads it: the float if it is above 0, else the whole number.
        return float(value.metricValueFloat if value.metricValueFloat > 0 else value.metricValue)

    def stream(self, **of: Any) -> Any:
        stub = self.channel.unary_stream(
            f"/{SERVICE}/StreamIsActive",
            request_serializer=lambda one: one.SerializeToString(),
            response_deserializer=CLASSES["IsActiveResponse"].FromString,
        )
        return stub(self.reference(**of))


@asynccontextmanager
async def scaler(observer: Any, *, credentials: Any = None, **options: Any) -> AsyncIterator[Client]:
    ports: asyncio.Queue[int] = asyncio.Queue()
    stop = asyncio.Event()
    task = asyncio.create_task(
        serve(
            "127.0.0.1:0",
            observer_for=observer,
            policy_for=Following,
            ready=ports.put_nowait,
            stop=stop,
            **options,
        )
    )
    getting = asyncio.create_task(ports.get())
    await asyncio.wait([task, getting], return_when=asyncio.FIRST_COMPLETED, timeout=20)
    address = f"localhost:{getting.result()}"
    try:
        if credentials is None:
            channel = grpc.aio.insecure_channel(address)
        else:
            channel = grpc.aio.secure_channel(address, credentials)
        async with channel:
            yield Client(channel)
    finally:
        stop.set()
        await task


def one(held: HeldFleet) -> Any:
    return lambda settings: held


async def refused(awaitable: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await awaitable
    return caught.value.code(), caught.value.details() or ""


async def test_the_four_methods() -> None:
    held = HeldFleet(requests=3)
    async with scaler(one(held)) as client:
        spec = (await client.call("GetMetricSpec", client.reference(), "GetMetricSpecResponse")).metricSpecs
        assert [(s.metricName, s.targetSize, s.targetSizeFloat) for s in spec] == [
            ("textnlp-fast-replicas", 1, 1.0)
        ]
        assert await client.active() is True
        assert await client.metric() == 3.0
        stream = client.stream()
        assert (await stream.read()).result is True
        stream.cancel()


async def test_a_fleet_goes_to_zero_and_comes_back_with_a_keda_and_an_hpa_that_follow() -> None:
    """The two loops of KEDA: activity decides between 0 and 1, the HPA between 1 and many."""
    held = HeldFleet(requests=0, ready=0)
    free = Rules(0.0, [("Pods", 100, 15.0), ("Percent", 900, 15.0)])
    hpa = Hpa(
        0, most=40, tolerance_up=0.0, tolerance_down=0.0, up=free, down=Rules(0.0, [("Percent", 100, 15.0)])
    )
    seen = []
    async with scaler(one(held)) as client:
        assert await client.active() is False
        for round_number, requests in enumerate([0, 2, 21, 22, 23, 21, 40, 5, 1, 0, 0, 3]):
            held.requests, held.ready = requests, hpa.replicas
            await asyncio.to_thread(held.wait_looks)
            active = await client.active()
            if hpa.replicas == 0 and active:
                hpa.replicas = 1
            if not active and hpa.replicas <= 1:
                hpa.replicas = 0
            seen.append(hpa.step(15.0 * round_number, await client.metric()))
            if not await client.active() and hpa.replicas == 1:
                hpa.replicas = seen[-1] = 0
    assert seen == [0, 2, 21, 22, 23, 21, 40, 5, 1, 0, 0, 3]


async def test_an_hpa_with_the_usual_tolerance_never_has_too_few() -> None:
    held = HeldFleet(requests=20, ready=20)
    hpa = Hpa(20, most=100)
    settings = {"hpaTolerance": "0.1", "maxInstances": "100"}
    async with scaler(one(held)) as client:
        assert await client.metric(**settings) == 20.0
        for now_s, requests in enumerate([21, 22, 24, 23, 26, 26, 31, 35]):
            held.requests, held.ready = requests, hpa.replicas
            await asyncio.to_thread(held.wait_looks)
            value = await client.metric(**settings)
            assert requests <= hpa.step(15.0 * now_s, value) <= requests * 1.1 + 2


async def test_activity_is_pushed_when_it_changes_and_only_then() -> None:
    held = HeldFleet(requests=0)
    async with scaler(one(held)) as client:
        streams = [client.stream() for _ in range(5)]
        for expected in (False, True, False):
            held.requests = 4.0 if expected else 0.0
            answers = [await asyncio.wait_for(stream.read(), 20) for stream in streams]
            assert [answer.result for answer in answers] == [expected] * 5
        held.requests = 0.0
        await asyncio.to_thread(held.wait_looks, 5)
        for stream in streams:
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(stream.read(), 0.01)


async def test_an_observer_that_fails_leaves_what_stood_and_a_new_fleet_without_any() -> None:
    held = HeldFleet(requests=9)
    async with scaler(one(held), timeout_s=5.0) as client:
        assert await client.metric() == 9.0
        held.failing, held.requests = ConnectionRefusedError("nobody listens"), 0
        await asyncio.to_thread(held.wait_looks)
        assert await client.metric() == 9.0
        assert await client.active() is True
        code, details = await refused(client.active(name="another"))
        assert code is grpc.StatusCode.UNAVAILABLE
        assert "nobody listens" in details
        held.failing = None
        await asyncio.to_thread(held.wait_looks, 4)
        assert await client.metric() == 0.0


async def test_mistakes_name_the_field() -> None:
    async with scaler(one(HeldFleet())) as client:
        for metadata, field in (
            ({"maxInstances": "0"}, "maxInstances"),
            ({"sloAttainment": "2"}, "sloAttainment"),
        ):
            for method, answer in (
                ("IsActive", "IsActiveResponse"),
                ("GetMetricSpec", "GetMetricSpecResponse"),
            ):
                code, details = await refused(client.call(method, client.reference(**metadata), answer))
                assert code is grpc.StatusCode.INVALID_ARGUMENT
                assert details.startswith(f"{field}: ")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client.stream(metricsUrl="ftp://x").read()
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        code, details = await refused(client.metric("another-metric"))
        assert (code, "another-metric" in details) == (grpc.StatusCode.NOT_FOUND, True)
        assert (await refused(client.active(name="")))[0] is grpc.StatusCode.INVALID_ARGUMENT


async def test_hundreds_of_scaled_objects_at_once_each_with_its_own_answer() -> None:
    def observer_for(settings: FleetSettings) -> HeldFleet:
        return HeldFleet(requests=float(settings.metrics_url.rsplit("/", 1)[1]))

    async with scaler(observer_for, timeout_s=120.0) as client:
        wanted = [number % 40 for number in range(300)]
        asked = [
            client.metric(metricsUrl=f"http://fleet-{number}/{requests}", periodS="5", timeout_s=120.0)
            for number, requests in enumerate(wanted)
        ]
        assert await asyncio.gather(*asked) == wanted


async def test_too_many_are_refused_and_the_others_go_on() -> None:
    with DecisionBoard(most_fleets=10) as board:
        async with scaler(one(HeldFleet(requests=2)), board=board) as client:
            answers = await asyncio.gather(
                *(client.active(name=f"object-{number}") for number in range(30)), return_exceptions=True
            )
            codes = [a.code() for a in answers if isinstance(a, grpc.aio.AioRpcError)]
            assert codes == [grpc.StatusCode.RESOURCE_EXHAUSTED] * 20
            assert answers.count(True) == 10
            assert len(board) == 10


async def test_a_call_ends_within_its_deadline_though_the_fleet_hangs() -> None:
    held = HeldFleet(requests=2)
    held.gate.clear()
    async with scaler(one(held), timeout_s=600.0) as client:
        code, _ = await refused(client.metric(timeout_s=0.5))
        assert code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
        held.gate.set()
        assert await client.metric() == 2.0


async def test_a_request_that_is_no_message_or_too_large_is_refused() -> None:
    async with scaler(one(HeldFleet())) as client:
        raw = client.channel.unary_unary(f"/{SERVICE}/IsActive")
        with pytest.raises(grpc.aio.AioRpcError):
            await raw(b"\xff\xff\xff", timeout=20)
        code, _ = await refused(raw(b"\x0a" + b"\xff\xff\x7f" + b"x" * 3_000_000, timeout=20))
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        code, _ = await refused(client.call("StreamMetricSpec", client.reference(), "GetMetricSpecResponse"))
        assert code is grpc.StatusCode.UNIMPLEMENTED  # KEDA then asks GetMetricSpec
        assert await client.active() is False


async def test_a_probe_is_answered() -> None:
    async with scaler(one(HeldFleet())) as client:
        check = client.channel.unary_unary(f"/{HEALTH_SERVICE}/Check")
        answer = HEALTH_CLASSES["HealthCheckResponse"].FromString(await check(b"", timeout=20))
        assert answer.status == 1


async def test_tls_and_clients_that_must_have_a_certificate() -> None:
    authority = Authority()
    key, certificate = authority.certificate("localhost")
    tls = TlsFiles(certificate=certificate, key=key, client_ca=authority.pem)
    client_key, client_certificate = authority.certificate("keda-operator")
    known = grpc.ssl_channel_credentials(authority.pem, client_key, client_certificate)
    async with scaler(one(HeldFleet(requests=1)), tls=tls, credentials=known) as client:
        assert await client.active() is True
    stranger = grpc.ssl_channel_credentials(authority.pem)
    async with scaler(one(HeldFleet(requests=1)), tls=tls, credentials=stranger) as client:
        code, _ = await refused(client.call("IsActive", client.reference(), "IsActiveResponse", 3.0))
        assert code is grpc.StatusCode.UNAVAILABLE


async def test_an_address_that_cannot_be_listened_on_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        addresses = [
            f"127.0.0.1:{taken.getsockname()[1]}",
            "127.0.0.1:1000000",
            "127.0.0.1",
            "192.0.2.1:6000",
        ]
        for address in addresses:
            with pytest.raises(InvalidInputError, match="cannot listen on"):
                await asyncio.wait_for(
                    serve(address, observer_for=one(HeldFleet()), policy_for=Following), 20
                )
