"""On a Compute Engine machine itself: preemption and host maintenance, told by the metadata server as they come.

https://cloud.google.com/compute/docs/metadata/getting-live-migration-notice and
https://cloud.google.com/compute/docs/instances/create-use-preemptible: `maintenance-event` is `NONE`,
`MIGRATE_ON_HOST_MAINTENANCE` or `TERMINATE_ON_HOST_MAINTENANCE`, `preempted` `TRUE` or `FALSE`.
`wait_for_change=true` with `last_etag` holds the answer back until there is another, or for `timeout_sec`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final

from textnlp_fast.errors import ProviderUnavailableError
from textnlp_fast.gpu.health.engine import Fact
from textnlp_fast.gpu.health.facts import Event
from textnlp_fast.gpu.health.http import request

__all__ = ["GcpMetadataSource"]

ENDPOINT: Final = "http://metadata.google.internal"
_LIMIT_BYTES: Final = 1 << 16


class GcpMetadataSource:
    """Waits at the metadata server for `wait_s` at a time; what changes is told at once."""

    reads_gpus = False

    def __init__(
        self,
        machine: str,
        *,
        endpoint: str = ENDPOINT,
        wait_s: float = 60.0,
        interval_s: float = 0.5,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.name = f"gcp metadata {endpoint}"
        self.machines: tuple[str, ...] = (machine,)
        self.interval_s = interval_s
        self.timeout_s = wait_s + 10.0
        self._endpoint = endpoint.rstrip("/")
        self._wait_s = wait_s
        self._clock = clock
        self._etags: dict[str, str] = {}
        self._values: dict[str, str] = {}

    async def read(self) -> Sequence[Fact]:
        keys = ("preempted", "maintenance-event")
        tasks = [asyncio.ensure_future(self._get(key)) for key in keys]
        try:
            # The first to change is told without waiting for the other; at first both are asked for at once.
            waits = asyncio.FIRST_COMPLETED if self._etags else asyncio.ALL_COMPLETED
            done, _ = await asyncio.wait(tasks, timeout=self.timeout_s, return_when=waits)
            if not done:
                raise ProviderUnavailableError("the metadata server did not answer in time")
            for task in done:
                key, etag, value = task.result()
                self._etags[key], self._values[key] = etag, value
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return self._facts()

    async def close(self) -> None:
        """Nothing is held."""

    def _facts(self) -> list[Fact]:
        at_s, machine = self._clock(), self.machines[0]
        facts: list[Fact] = []
        if self._values.get("preempted", "").upper() == "TRUE":
            facts.append(
                Event(machine=machine, kind="preempted", at_s=at_s, text="preempted is TRUE", source="gcp")
            )
        planned = self._values.get("maintenance-event")
        if planned is not None:
            over = {"over": "true"} if planned.upper() == "NONE" else {}
            facts.append(
                Event(
                    machine=machine,
                    kind="maintenance",
                    at_s=at_s,
                    text=planned[:200],
                    source="gcp",
                    details={"id": "maintenance-event", **over},
                )
            )
        return facts

    async def _get(self, key: str) -> tuple[str, str, str]:
        query = ""
        if key in self._etags:
            query = f"?wait_for_change=true&timeout_sec={int(self._wait_s)}&last_etag={self._etags[key]}"
        answer = await request(
            "GET",
            f"{self._endpoint}/computeMetadata/v1/instance/{key}{query}",
            headers={"Metadata-Flavor": "Google"},
            timeout_s=self.timeout_s,
            limit_bytes=_LIMIT_BYTES,
        )
        if answer.status != 200:
            raise ProviderUnavailableError(f"the metadata server answered {answer.status} for {key}")
        if answer.headers.get("metadata-flavor") != "Google":
            raise ProviderUnavailableError(
                "what answers is not Google's metadata server", hint="Is this a Compute Engine machine?"
            )
        etag = answer.headers.get("etag", "0")
        if not etag.isalnum() or len(etag) > 64:
            etag = "0"
        return key, etag, answer.body.decode("utf-8", "replace").strip()
