"""Answers HAProxy's agent checks for all replicas: reads their queues and caches, and says what each should weigh.

Whom to read is in what HAProxy sends (`haproxy_config.agent_word`): replicas that come and go in HAProxy come and go
here. If the agent ends, weights stay as they are and health checks go on.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

from textnlp_fast.adapter.gateway.plan import Endpoint, endpoint
from textnlp_fast.adapter.gateway.weights import ReplicaLoad, next_weights, percent
from textnlp_fast.errors import TextnlpFastError
from textnlp_fast.gpu.health.http import request
from textnlp_fast.gpu.health.prometheus_text import samples
from textnlp_fast.gpu.scaling.signals.engines import figures_of

__all__ = ["WeightAgent"]

_MOST_WORD: Final = 400
_MOST_REPLICAS: Final = 1024
_AT_ONCE: Final = 32
_LIMIT_BYTES: Final = 4 << 20
# HAProxy asks once a second; who was not asked about for so long is gone.
_FORGET_S: Final = 15.0


class WeightAgent:
    """Runs within one event loop: `serve` until cancelled. `period_s` is how often replicas are read."""

    def __init__(
        self,
        listen: Endpoint,
        *,
        period_s: float = 1.0,
        timeout_s: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._listen = listen
        self._period_s = period_s
        self._timeout_s = timeout_s
        self._clock = clock
        self._asked: dict[Endpoint, float] = {}
        self._weights: dict[str, float] = {}
        self.trouble: dict[str, str] = {}
        """What went wrong with replicas that could not be read, by address."""

    @property
    def weights(self) -> dict[str, float]:
        """By address, as they stand."""
        return dict(self._weights)

    async def serve(self, ready: Callable[[int], None] = lambda port: None) -> None:
        """Answers and reads until it is cancelled; `ready` hears the port."""
        server = await asyncio.start_server(
            self._answer, self._listen.host, self._listen.port, limit=_MOST_WORD
        )
        async with server:
            ready(int(server.sockets[0].getsockname()[1]))
            while True:
                started = self._clock()
                await self.read_all()
                await asyncio.sleep(max(0.05, self._period_s - (self._clock() - started)))

    async def read_all(self) -> None:
        """One round: reads every replica that was asked about lately, and moves the weights by what it hears."""
        now = self._clock()
        self._asked = {one: at for one, at in self._asked.items() if now - at <= _FORGET_S}
        gate = asyncio.Semaphore(_AT_ONCE)
        addresses = list(self._asked)
        found = await asyncio.gather(*(self._read(address, gate) for address in addresses))
        loads = {str(address): load for address, load in zip(addresses, found, strict=True)}
        self._weights = next_weights(self._weights, loads)
        self.trouble = {name: what for name, what in self.trouble.items() if loads.get(name, 0) is None}

    async def _read(self, address: Endpoint, gate: asyncio.Semaphore) -> ReplicaLoad | None:
        async with gate:
            try:
                answer = await request(
                    "GET",
                    f"http://{address}/metrics",
                    timeout_s=self._timeout_s,
                    limit_bytes=_LIMIT_BYTES,
                )
                text = answer.body.decode("utf-8", "replace") if answer.status == 200 else ""
                gauges = figures_of(samples(text), time_s=0).gauges
            except TextnlpFastError as error:
                self.trouble[str(address)] = str(error.args[0])
                return None
        if "waiting" not in gauges:
            self.trouble[str(address)] = "it exports no queue of vLLM, SGLang or TGI"
            return None
        return ReplicaLoad(gauges.get("running", 0.0), gauges["waiting"], min(1.0, gauges.get("kv_use", 0.0)))

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            word = await asyncio.wait_for(reader.readuntil(b"!"), self._timeout_s)
            where, _, share = word[:-1].decode("ascii").rpartition(",")
            address = endpoint(where)
            if not share.isdecimal() or len(share) > 4 or int(share) > 1000:
                return
            if address in self._asked or len(self._asked) < _MOST_REPLICAS:
                self._asked[address] = self._clock()
            weight = percent(self._weights.get(str(address), 1.0), int(share) / 1000)
            writer.write(f"{weight}%\n".encode())
            await asyncio.wait_for(writer.drain(), self._timeout_s)
        except (OSError, EOFError, ValueError, asyncio.LimitOverrunError, asyncio.TimeoutError):
            return  # not HAProxy, or gone: it asks again in a second
        finally:
            writer.close()
