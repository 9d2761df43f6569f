"""On an Azure machine itself: Scheduled Events, and their approval if that is asked for.

https://learn.microsoft.com/azure/virtual-machines/linux/scheduled-events, api-version 2020-07-01: `Events` with
`EventType` (Freeze, Reboot, Redeploy, Preempt, Terminate), `EventStatus` (Scheduled, Started), `Resources`,
`NotBefore`. An event that is gone from the list is over. Posting its id approves it: Azure need not wait until
`NotBefore`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from textnlp_fast.errors import ProviderUnavailableError
from textnlp_fast.gpu.health.engine import Fact
from textnlp_fast.gpu.health.facts import Event
from textnlp_fast.gpu.health.http import request

__all__ = ["AzureEventsSource"]

ENDPOINT: Final = "http://169.254.169.254"
_PATH: Final = "/metadata/scheduledevents?api-version=2020-07-01"
_HEADERS: Final = {"Metadata": "true"}
_MOST_EVENTS: Final = 256
_LIMIT_BYTES: Final = 1 << 20


class AzureEventsSource:
    """Asks for the events of one machine. `resource` is its name in Azure: events of others in its set come along."""

    reads_gpus = False

    def __init__(
        self,
        machine: str,
        *,
        resource: str | None = None,
        endpoint: str = ENDPOINT,
        interval_s: float = 5.0,
        # The first call of all starts the service for the machine, which takes up to two minutes.
        timeout_s: float = 130.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.name = f"azure scheduled events {endpoint}"
        self.machines: tuple[str, ...] = (machine,)
        self.interval_s = interval_s
        self.timeout_s = timeout_s
        self._resource = resource or machine
        self._url = f"{endpoint.rstrip('/')}{_PATH}"
        self._clock = clock
        self._known: dict[str, str] = {}

    async def read(self) -> Sequence[Fact]:
        answer = await request(
            "GET", self._url, headers=_HEADERS, timeout_s=self.timeout_s, limit_bytes=_LIMIT_BYTES
        )
        if answer.status != 200:
            raise ProviderUnavailableError(f"Azure's metadata service answered {answer.status}")
        document = answer.json()
        events = document.get("Events") if isinstance(document, dict) else None
        if not isinstance(events, list):
            raise ProviderUnavailableError("Azure's answer holds no list of events")
        at_s = self._clock()
        facts: list[Fact] = []
        now: dict[str, str] = {}
        for one in events[:_MOST_EVENTS]:
            if not isinstance(one, dict) or not self._concerns(one):
                continue
            kind = "spot-interruption" if one.get("EventType") == "Preempt" else "maintenance"
            identity = str(one.get("EventId", ""))[:200]
            now[identity] = kind
            facts.append(self._event(kind, at_s, _said(one), identity))
        for identity, kind in self._known.items():
            if identity not in now:
                facts.append(self._event(kind, at_s, "", identity, over=True))
        self._known = now
        return facts

    async def approve(self, event_id: str) -> None:
        """Tells Azure that the machine is ready: what it has planned may begin now."""
        body = json.dumps({"StartRequests": [{"EventId": event_id}]}).encode()
        answer = await request(
            "POST",
            self._url,
            headers={**_HEADERS, "Content-Type": "application/json"},
            body=body,
            timeout_s=self.timeout_s,
            limit_bytes=_LIMIT_BYTES,
        )
        if answer.status != 200:
            raise ProviderUnavailableError(f"Azure did not take the approval: {answer.status}")

    async def close(self) -> None:
        """Nothing is held."""

    def _concerns(self, event: dict[str, Any]) -> bool:
        resources = event.get("Resources")
        return not isinstance(resources, list) or not resources or self._resource in resources

    def _event(self, kind: str, at_s: float, text: str, identity: str, *, over: bool = False) -> Event:
        details = {"id": identity} | ({"over": "true"} if over else {})
        return Event(
            machine=self.machines[0], kind=kind, at_s=at_s, text=text, source="azure", details=details
        )


def _said(event: dict[str, Any]) -> str:
    parts = [
        str(event.get(name, ""))[:200] for name in ("EventType", "EventStatus", "NotBefore", "Description")
    ]
    when = f" not before {parts[2]}" if parts[2] else ""
    return f"{parts[0]} ({parts[1]}){when}{': ' + parts[3] if parts[3] else ''}"
