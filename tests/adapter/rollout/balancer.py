"""A gateway for tests: routes by weight, drains, and is told over HTTP, so that a controller elsewhere can tell it.

With it a load that never stops, and that believes an answer only if it is that of one whole version.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

from textnlp_fast.adapter.rollout.agent_server import AgentServer
from textnlp_fast.errors import InvalidInputError, ProviderUnavailableError
from textnlp_fast.gpu.health.http import request

__all__ = ["Balancer", "Load", "RemoteTraffic"]


class Balancer:
    """Replicas by name; those of `serving` are routed to at first."""

    def __init__(self, serving: list[str], spares: list[str] | None = None) -> None:
        self._changed = threading.Condition()
        self.weights = dict.fromkeys([*serving, *(spares or [])], 100)
        self.drained = set(spares or [])
        self._running: Counter[str] = Counter()
        self.least = len(serving)
        """The fewest that were ever routed to at a time."""
        self._server = AgentServer(("127.0.0.1", 0), self._answer, lambda *_: None)
        self.url = "http://{}:{}".format(*self._server.address)

    def close(self) -> None:
        self._server.close()

    def _answer(self, method: str, path: str, body: Mapping[str, Any] | None) -> dict[str, Any]:
        assert body is not None
        name = body["replica"]
        with self._changed:
            assert name in self.weights, name
            if path == "/set_weight":
                assert 1 <= body["percent"] <= 100
                self.weights[name] = body["percent"]
            elif path == "/resume":
                self.drained.discard(name)
            else:
                self.drained.add(name)
                self.least = min(self.least, len(self.weights) - len(self.drained))
                self._changed.wait_for(lambda: not self._running[name], body["deadline_s"])
            self._changed.notify_all()
        return {}

    def pick(self, chance: random.Random) -> str:
        with self._changed:
            names = [name for name in self.weights if name not in self.drained]
            name = chance.choices(names, [self.weights[one] for one in names])[0]
            self._running[name] += 1
            return name

    def done(self, name: str) -> None:
        with self._changed:
            self._running[name] -= 1
            self._changed.notify_all()


class RemoteTraffic:
    """A `Traffic` that tells the balancer from another process."""

    def __init__(self, url: str) -> None:
        self._url = url

    def set_weight(self, replica: str, percent: int) -> None:
        self._tell("set_weight", replica=replica, percent=percent)

    def drain(self, replica: str, deadline_s: float) -> None:
        self._tell("drain", replica=replica, deadline_s=deadline_s)

    def resume(self, replica: str) -> None:
        self._tell("resume", replica=replica)

    def _tell(self, verb: str, **body: Any) -> None:
        raw = json.dumps(body).encode()
        answer = asyncio.run(request("POST", f"{self._url}/{verb}", body=raw, timeout_s=60.0))
        if answer.status == 500:
            raise InvalidInputError(answer.body.decode())
        if answer.status != 200:
            raise ProviderUnavailableError(f"{verb}: {answer.status}")


class Load:
    """Requests without a pause, from `threads` clients, each answer compared with what every version would say."""

    def __init__(self, balancer: Balancer, known: dict[str, Any], *, threads: int = 3) -> None:
        self._balancer = balancer
        self._known = known
        self._stop = threading.Event()
        self.answers: Counter[str] = Counter()
        self.wrong: list[tuple[str, str]] = []
        self._threads = [
            threading.Thread(target=self._run, args=(seed,), daemon=True) for seed in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def reset(self) -> None:
        """Forgets what was answered so far."""
        self.answers.clear()
        self.wrong.clear()
        self._balancer.least = len(self._balancer.weights) - len(self._balancer.drained)

    def _run(self, seed: int) -> None:
        chance = random.Random(seed)
        while not self._stop.is_set():
            name, x = self._balancer.pick(chance), chance.randrange(4)
            try:
                version = self._ask(name, x)
            except (OSError, http.client.HTTPException, ValueError) as error:
                self.wrong.append((name, f"{type(error).__name__}: {error}"))
            else:
                self.answers[version] += 1
            finally:
                self._balancer.done(name)
            time.sleep(0.004)

    def _ask(self, name: str, x: int) -> str:
        host, _, port = name.rpartition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=60)
        try:
            connection.request("GET", f"/v1/infer?x={x}")
            answer = connection.getresponse()
            raw = answer.read()
        finally:
            connection.close()
        if answer.status != 200:
            raise ValueError(f"status {answer.status}")
        said = json.loads(raw)
        for version, answers in self._known.items():
            if answers[x] == said:
                return version
        raise ValueError(f"an answer of no version: {said}")
