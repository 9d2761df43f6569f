"""The server that KEDA calls.

The metric is the number of replicas itself, with a target of 1 (see `integrations/hpa.py` for what an HPA makes of it).
A ScaledObject's trigger keeps KEDA's default, `metricType: AverageValue`.

Codes: INVALID_ARGUMENT names the field of the metadata that is wrong, NOT_FOUND an unknown metric, RESOURCE_EXHAUSTED
says that the scaler has too many fleets, UNAVAILABLE that no decision stands (KEDA then holds, or falls back).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Hashable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

import grpc
import grpc.aio

from textnlp_fast.errors import InvalidInputError, MissingPackageError, QuotaError
from textnlp_fast.integrations.deciding import DecisionBoard, Entry, Fleet, Observer, Standing
from textnlp_fast.integrations.fleet_settings import FleetSettings, read_fleet
from textnlp_fast.integrations.keda.messages import CLASSES, HEALTH_CLASSES, HEALTH_SERVICE, SERVICE
from textnlp_fast.integrations.policy_settings import PolicyMaker, SettingError, default_policy

__all__ = ["ObserverMaker", "TlsFiles", "serve"]

ObserverMaker = Callable[[FleetSettings], Observer]

_LARGEST_MESSAGE: Final = 256 * 1024
_LONGEST_NAME: Final = 512
_SERVING: Final = 1
_LISTEN: Final = "Give HOST:PORT that is free here, such as 127.0.0.1:6000."


@dataclass(frozen=True, kw_only=True)
class TlsFiles:
    """PEM. With `client_ca` only clients with a certificate of that authority are served."""

    certificate: bytes
    key: bytes
    client_ca: bytes | None = None


class ExternalScaler:
    """The four methods, for any number of ScaledObjects."""

    def __init__(
        self, board: DecisionBoard, *, observer_for: ObserverMaker, policy_for: PolicyMaker, timeout_s: float
    ) -> None:
        self._board, self._observer_for, self._policy_for = board, observer_for, policy_for
        self._timeout_s = timeout_s

    async def is_active(self, reference: Any, context: Any) -> Any:
        _, entry = await self._entry(reference, context)
        standing = await self._standing(entry, context)
        return CLASSES["IsActiveResponse"](result=standing.active)

    async def stream_is_active(self, reference: Any, context: Any) -> AsyncIterator[Any]:
        """The state as soon as it is known, and then each time it changes."""
        _, entry = await self._entry(reference, context)
        told: bool | None = None
        with _news_of(entry) as news:
            while True:
                news.clear()
                standing = entry.look()
                if standing is not None and standing.active is not told:
                    told = standing.active
                    yield CLASSES["IsActiveResponse"](result=told)
                await news.wait()

    async def get_metric_spec(self, reference: Any, context: Any) -> Any:
        settings, _ = await self._entry(reference, context)
        spec = CLASSES["MetricSpec"](metricName=settings.metric_name, targetSize=1, targetSizeFloat=1.0)
        return CLASSES["GetMetricSpecResponse"](metricSpecs=[spec])

    async def get_metrics(self, request: Any, context: Any) -> Any:
        settings, entry = await self._entry(request.scaledObjectRef, context)
        if request.metricName != settings.metric_name:
            await context.abort(
                grpc.StatusCode.NOT_FOUND,
                f"metricName: there is no metric {request.metricName[:80]!r}; there is {settings.metric_name!r}",
            )
        standing = await self._standing(entry, context)
        value = CLASSES["MetricValue"](
            metricName=settings.metric_name,
            metricValue=standing.replicas,
            metricValueFloat=float(standing.replicas),
        )
        return CLASSES["GetMetricsResponse"](metricValues=[value])

    async def _entry(self, reference: Any, context: Any) -> tuple[FleetSettings, Entry]:
        metadata = dict(reference.scalerMetadata)
        family: Hashable = (reference.namespace, reference.name)
        try:
            if not reference.name or len(reference.name) + len(reference.namespace) > _LONGEST_NAME:
                raise SettingError("name", f"a ScaledObject has one, of at most {_LONGEST_NAME} characters")
            settings = read_fleet(metadata)
            key = (*family, tuple(sorted(metadata.items())))  # type: ignore[misc]
            entry = self._board.enrol(key, lambda: self._fleet(settings), family=family)
        except InvalidInputError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except QuotaError as error:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))
        except MissingPackageError as error:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))
        return settings, entry

    def _fleet(self, settings: FleetSettings) -> Fleet:
        return Fleet(
            settings=settings.policy,
            observe=self._observer_for(settings),
            policy=self._policy_for(settings.policy),
            tolerance=settings.hpa_tolerance,
            hold_s=settings.hold_s,
        )

    async def _standing(self, entry: Entry, context: Any) -> Standing:
        left_s = context.time_remaining()
        timeout_s = self._timeout_s if left_s is None else min(self._timeout_s, left_s * 0.9)

        async def first() -> Standing | None:
            with _news_of(entry) as news:
                while (standing := entry.look()) is None and not entry.failing:
                    await news.wait()
                    news.clear()
            return standing

        try:
            standing = await asyncio.wait_for(first(), timeout_s)
        except asyncio.TimeoutError:  # another class than the builtin before Python 3.11
            standing = None
        if standing is None:
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(entry.nothing()))
            raise AssertionError("abort raises")
        return standing


@contextmanager
def _news_of(entry: Entry) -> Iterator[asyncio.Event]:
    """An event that is set after each decision, from the thread that decided."""
    loop, news = asyncio.get_running_loop(), asyncio.Event()

    def hear() -> None:
        with suppress(RuntimeError):  # the loop has ended meanwhile: nobody listens
            loop.call_soon_threadsafe(news.set)

    stop = entry.watch(hear)
    try:
        yield news
    finally:
        stop()


def _handlers(scaler: ExternalScaler) -> tuple[Any, ...]:
    def serialized(answer: Any) -> bytes:
        return bytes(answer.SerializeToString())

    def unary(method: Any, request: Any) -> Any:
        return grpc.unary_unary_rpc_method_handler(
            method, request_deserializer=request.FromString, response_serializer=serialized
        )

    reference = CLASSES["ScaledObjectRef"]
    methods = {
        "IsActive": unary(scaler.is_active, reference),
        "StreamIsActive": grpc.unary_stream_rpc_method_handler(
            scaler.stream_is_active,
            request_deserializer=reference.FromString,
            response_serializer=serialized,
        ),
        "GetMetricSpec": unary(scaler.get_metric_spec, reference),
        "GetMetrics": unary(scaler.get_metrics, CLASSES["GetMetricsRequest"]),
    }

    async def check(_: Any, __: Any) -> Any:
        return HEALTH_CLASSES["HealthCheckResponse"](status=_SERVING)

    health = {"Check": unary(check, HEALTH_CLASSES["HealthCheckRequest"])}
    return (
        grpc.method_handlers_generic_handler(SERVICE, methods),
        grpc.method_handlers_generic_handler(HEALTH_SERVICE, health),
    )


async def serve(
    listen: str,
    *,
    observer_for: ObserverMaker,
    policy_for: PolicyMaker = default_policy,
    board: DecisionBoard | None = None,
    tls: TlsFiles | None = None,
    timeout_s: float = 5.0,
    most_calls: int = 4096,
    ready: Callable[[int], None] | None = None,
    stop: asyncio.Event | None = None,
) -> None:
    """Serves until `stop` is set or the task is cancelled; `ready` hears the port.

    `listen` is HOST:PORT, port 0 for any. A call waits `timeout_s`, or for nine tenths of its own deadline if that is
    less, for a fleet's first decision. Raises InvalidInputError where the address cannot be listened on.
    """
    own = DecisionBoard() if board is None else board
    scaler = ExternalScaler(own, observer_for=observer_for, policy_for=policy_for, timeout_s=timeout_s)
    server = grpc.aio.server(
        options=[("grpc.max_receive_message_length", _LARGEST_MESSAGE), ("grpc.so_reuseport", 0)],
        maximum_concurrent_rpcs=most_calls,
    )
    server.add_generic_rpc_handlers(_handlers(scaler))
    try:
        port = _bind(server, listen, tls)
        await server.start()
        try:
            if ready is not None:
                ready(port)
            await (asyncio.Event() if stop is None else stop).wait()
        finally:
            # Streams last for ever: they are ended, not waited for.
            await server.stop(grace=0.5)
    finally:
        if board is None:
            await asyncio.to_thread(own.close)


def _bind(server: Any, listen: str, tls: TlsFiles | None) -> int:
    host, _, wanted = listen.rpartition(":")
    if (
        not host or not wanted.isdecimal() or int(wanted) > 65535
    ):  # gRPC takes any number, and what remains of it
        raise InvalidInputError(f"cannot listen on {listen!r}: it is not HOST:PORT", hint=_LISTEN)
    try:
        if tls is None:
            port: int = server.add_insecure_port(listen)
        else:
            credentials = grpc.ssl_server_credentials(
                [(tls.key, tls.certificate)], tls.client_ca, require_client_auth=tls.client_ca is not None
            )
            port = server.add_secure_port(listen, credentials)
    except RuntimeError as error:
        raise InvalidInputError(f"cannot listen on {listen}: {error}", hint=_LISTEN) from error
    if port == 0:
        raise InvalidInputError(f"cannot listen on {listen}", hint=_LISTEN)
    return port
