"""Another machine's GPUs, through our own agent (`textnlp-fast gpu agent`): `/readings`, and `/events` as they come."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any, Final

from textnlp_fast.errors import AuthenticationError, ProviderUnavailableError
from textnlp_fast.gpu.health.engine import Fact
from textnlp_fast.gpu.health.facts import Event, Reading
from textnlp_fast.gpu.health.http import checked_url, request

__all__ = ["AgentSource", "event_of", "reading_of"]

_log = logging.getLogger(__name__)
_FORMAT: Final = 1
_MOST: Final = 4096
_MOST_TEXT: Final = 1000
#: Kinds that an agent tells of; what clouds say, or that an agent is out of reach, is not its to say.
_KINDS: Final = frozenset(
    {"xid", "sxid", "gpu-count", "driver-hung", "driver-answers", "driver-error", "driver-loaded"}
)


class AgentSource:
    """Waits at the agent for events, `interval_s` at a time, and takes the readings after each wait."""

    reads_gpus = True

    def __init__(
        self,
        machine: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        interval_s: float = 2.0,
        timeout_s: float = 10.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        parts = checked_url(url)
        self._url = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
        self.name = f"agent {self._url}"
        self.machines: tuple[str, ...] = (machine,)
        self.interval_s = 0.0
        self.timeout_s = 2 * timeout_s + interval_s
        self._each_s = timeout_s
        self._wait_s = min(interval_s, 25.0)
        self._headers = dict(headers or {})
        self._run: str | None = None
        self._next = 0

    async def read(self) -> Sequence[Fact]:
        wait_s = 0.0 if self._run is None else self._wait_s
        told = await self._get(f"/events?after={self._next}&wait_s={wait_s:g}", self._each_s + wait_s)
        run = told.get("run")
        if self._run is not None and run != self._run:
            # Another run of the agent: its numbers begin anew.
            self._next = 0
            told = await self._get("/events?after=0&wait_s=0", self._each_s)
        self._run = str(run)
        if self._next and isinstance(told.get("missed"), int) and told["missed"]:
            _log.warning("%s: %d events were missed", self.name, told["missed"])
        following = told.get("next")
        self._next = following if isinstance(following, int) and 0 <= following < 1 << 62 else self._next
        machine = self.machines[0]
        facts: list[Fact] = []
        for one in _list(told, "events"):
            event = event_of(machine, one)
            if event is not None:
                facts.append(event)
        document = await self._get("/readings", self._each_s)
        facts += [reading_of(machine, one) for one in _list(document, "readings")]
        return facts

    async def close(self) -> None:
        """Nothing is held."""

    async def _get(self, path: str, timeout_s: float) -> dict[str, Any]:
        answer = await request("GET", f"{self._url}{path}", headers=self._headers, timeout_s=timeout_s)
        if answer.status in (401, 403):
            raise AuthenticationError(
                f"{self._url} answered {answer.status}", hint="Give its token: Authorization: Bearer ..."
            )
        if answer.status != 200:
            raise ProviderUnavailableError(f"{self._url} answered {answer.status}")
        document = answer.json()
        if not isinstance(document, dict) or document.get("format") != _FORMAT:
            raise ProviderUnavailableError(f"{self._url} is no agent of this version")
        return document


def reading_of(machine: str, document: Mapping[str, Any]) -> Reading:
    """The reading in a document of an agent's. Raises ProviderUnavailableError for what is none."""
    values: dict[str, Any] = {}
    for item in fields(Reading):
        value = document.get(item.name)
        if value is None or item.name == "machine":
            continue
        kind = str(item.type).removesuffix(" | None")
        if not _fits(value, kind):
            raise ProviderUnavailableError(f"a reading's {item.name} is {value!r:.60}")
        values[item.name] = value[:_MOST_TEXT] if isinstance(value, str) else value
    try:
        return Reading(machine=machine, **values)
    except TypeError as error:
        raise ProviderUnavailableError(f"a reading is not whole: {error}") from None


def event_of(machine: str, document: Mapping[str, Any]) -> Event | None:
    """The event in a document of an agent's; None for a kind that is not an agent's to tell."""
    kind, code, gpu = document.get("kind"), document.get("code"), document.get("gpu")
    if kind not in _KINDS:
        return None
    at_s, details = document.get("at_s"), document.get("details") or {}
    sound = (
        _fits(at_s, "float")
        and (code is None or _fits(code, "int"))
        and (gpu is None or isinstance(gpu, str))
        and isinstance(details, dict)
    )
    if not sound:
        raise ProviderUnavailableError(f"an event of the agent is not whole: {document!r:.100}")
    return Event(
        machine=machine,
        kind=str(kind),
        at_s=float(at_s or 0.0),
        gpu=None if gpu is None else str(gpu)[:_MOST_TEXT],
        code=code,
        text=str(document.get("text", ""))[:_MOST_TEXT],
        source=str(document.get("source", "agent"))[:32],
        details={str(name)[:64]: str(value)[:_MOST_TEXT] for name, value in list(details.items())[:32]},
    )


def _fits(value: object, kind: str) -> bool:
    if kind == "bool":
        return isinstance(value, bool)
    if kind == "str":
        return isinstance(value, str)
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 2**63:
        return False
    return kind == "float" or isinstance(value, int)


def _list(document: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    found = document.get(name)
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise ProviderUnavailableError(f"the agent's answer holds no {name}")
    return found[:_MOST]
