"""Replicas as a controller reaches them: each by the agent beside it, its health by the address where it serves."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from textnlp_fast.adapter.rollout.state import Sight
from textnlp_fast.adapter.rollout_settings import HealthCheck
from textnlp_fast.errors import (
    AuthenticationError,
    ConflictError,
    InvalidInputError,
    ProviderUnavailableError,
)
from textnlp_fast.gpu.health.http import checked_url, request

__all__ = ["AgentClient", "Health", "Replica"]

_LIMIT_BYTES: Final = 1 << 20
_MOST_AT_ONCE: Final = 64


@dataclass(frozen=True, slots=True)
class Replica:
    """`name` is `HOST:PORT` of where it serves, which the gateway calls it by; `agent` the URL of its agent."""

    name: str
    agent: str

    def __post_init__(self) -> None:
        checked_url(self.agent)
        checked_url(f"http://{self.name}")


class AgentClient:
    """Asks agents, all of one look at the same time; a request lasts at most `timeout_s`. For one thread.

    `token` is asked each time; agents that other machines reach want one.
    """

    def __init__(
        self, replicas: Iterable[Replica], *, token: Callable[[], str | None], timeout_s: float = 5.0
    ) -> None:
        self.replicas = {one.name: one for one in replicas}
        self._token = token
        self._timeout_s = timeout_s

    def look(self, names: Iterable[str]) -> dict[str, tuple[Sight, int]]:
        """What each agent says, and the largest fence it has heard; unreachable is a `Sight`, too."""
        return asyncio.run(self._look(tuple(names)))

    async def _look(self, names: tuple[str, ...]) -> dict[str, tuple[Sight, int]]:
        gate = asyncio.Semaphore(_MOST_AT_ONCE)

        async def one(name: str) -> tuple[Sight, int]:
            async with gate:
                try:
                    said = await self._ask("GET", name, "state", None, self._timeout_s)
                    return _sight(said), int(said.get("fence", 0))
                except (
                    ProviderUnavailableError,
                    AuthenticationError,
                    ConflictError,
                    LookupError,
                    ValueError,
                    TypeError,
                ) as error:
                    return Sight(
                        reachable=False,
                        why=" ".join(str(error.args[0] if error.args else error).split())[:300],
                    ), 0

        return dict(zip(names, await asyncio.gather(*map(one, names)), strict=True))

    def tell(self, name: str, verb: str, body: Mapping[str, Any], *, timeout_s: float | None = None) -> None:
        """One verb. Raises ProviderUnavailableError, ConflictError (another controller has a larger fence)."""
        asyncio.run(self._ask("POST", name, verb, body, timeout_s or self._timeout_s))

    async def _ask(
        self, method: str, name: str, verb: str, body: Mapping[str, Any] | None, timeout_s: float
    ) -> dict[str, Any]:
        url = f"{self.replicas[name].agent.rstrip('/')}/v1/{verb}"
        headers = {"Content-Type": "application/json"}
        token = self._token()
        if token:
            headers["Authorization"] = f"Bearer {token}"
        raw = b"" if body is None else json.dumps(body).encode()
        answer = await request(
            method, url, headers=headers, body=raw, timeout_s=timeout_s, limit_bytes=_LIMIT_BYTES
        )
        said: Any = {}
        try:
            said = answer.json()
        except ProviderUnavailableError:
            if answer.status == 200:
                raise
        words = str(said.get("error", "")) if isinstance(said, dict) else ""
        text = f"the agent of {name} answers {verb} with {answer.status}: {words}"[:500]
        if answer.status in (401, 403):
            raise AuthenticationError(text, hint="Give the token that the agents were started with.")
        if answer.status == 409:
            raise ConflictError(text, hint="Another controller is at work on this target.")
        if answer.status == 400:
            raise InvalidInputError(text)
        if answer.status != 200 or not isinstance(said, dict):
            raise ProviderUnavailableError(text, hint="Check what listens there.")
        return said


def _sight(said: Mapping[str, Any]) -> Sight:
    mode = said["mode"]
    if mode not in ("swap", "restart"):
        raise ValueError(f"mode {mode!r}")
    return Sight(
        serving=_version(said["serving"]),
        prepared=_version(said["prepared"]),
        mode=mode,
        busy=bool(said["busy"]),
        operation=str(said["operation"])[:200],
        error=str(said["error"])[:300],
        ready=bool(said["ready"]),
        run=str(said["run"])[:200],
        is_open=bool(said.get("open", False)),
    )


def _version(value: object) -> str | None:
    return None if value is None else str(value)[:128]


class Health:
    """Health checks of replicas that serve, and what they make of several in a row. For one thread.

    A replica that begins to serve another version, or another process, begins anew.
    """

    def __init__(self, check: HealthCheck, clock: Callable[[], float]) -> None:
        self._check = check
        self._clock = clock
        self._of: dict[str, tuple[object, ...]] = {}
        self._row: dict[str, int] = {}
        self._verdict: dict[str, bool | None] = {}
        self._why: dict[str, str] = {}
        self._due: dict[str, float] = {}

    def judge(self, sights: Mapping[str, Sight]) -> dict[str, Sight]:
        """The sights with what health checks say; asks those that are due, all at the same time."""
        now = self._clock()
        due: list[str] = []
        for name, sight in sights.items():
            what = (sight.serving, sight.run)
            if sight.reachable and self._of.get(name) != what:
                self._of[name] = what
                self._row[name], self._verdict[name], self._due[name] = 0, None, now
            asked = sight.reachable and sight.ready and not sight.busy
            if asked and not (sight.mode == "swap" and sight.prepared) and self._due.get(name, now) <= now:
                due.append(name)
        for name, why in asyncio.run(self._ask(due)).items():
            self._note(name, why)
            self._due[name] = now + self._check.interval_s
        return {
            name: replace(sight, healthy=self._verdict.get(name), why=self._why.get(name, sight.why))
            if sight.reachable
            else sight
            for name, sight in sights.items()
        }

    def _note(self, name: str, why: str) -> None:
        row = self._row.get(name, 0)
        row = (max(row, 0) + 1) if not why else (min(row, 0) - 1)
        self._row[name] = row
        if row >= self._check.success_after:
            self._verdict[name], self._why[name] = True, ""
        elif row <= -self._check.failures:
            self._verdict[name], self._why[name] = False, why

    async def _ask(self, names: list[str]) -> dict[str, str]:
        gate = asyncio.Semaphore(_MOST_AT_ONCE)

        async def one(name: str) -> str:
            async with gate:
                url = f"http://{name}{self._check.path}"
                try:
                    answer = await request("GET", url, timeout_s=self._check.timeout_s, limit_bytes=1 << 20)
                except ProviderUnavailableError as error:
                    return str(error.args[0])[:200]
                return "" if 200 <= answer.status < 300 else f"{self._check.path} answers {answer.status}"

        return dict(zip(names, await asyncio.gather(*map(one, names)), strict=True))
