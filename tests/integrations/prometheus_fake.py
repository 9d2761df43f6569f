"""A Prometheus on loopback that has scraped some vLLM replicas, and a gateway in front of them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import parse_qs

from fakes.loopback_http import Asked, Said, loopback


class PrometheusFake:
    """`replicas`: instance -> requests waiting and running. `gateway`: what waits before them; None: no such series."""

    def __init__(self) -> None:
        self.replicas: dict[str, tuple[float, float]] = {}
        self.gateway: float | None = None
        self.broken = False
        self.queries: list[str] = []
        self.url = ""

    def answer(self, asked: Asked) -> Said:
        (query,) = parse_qs(asked.body.decode())["query"]
        self.queries.append(query)
        if self.broken:
            return Said(500, b"storage is being replayed")
        now_s = time.time()
        rows: list[dict[str, object]] = []

        def row(value: float, **labels: str) -> None:
            rows.append({"metric": labels, "value": [now_s, repr(value)]})

        if query.startswith("sum(gateway"):
            if self.gateway is not None:
                row(self.gateway)
        else:
            for instance, (waiting, running) in self.replicas.items():
                if query.startswith("max by"):
                    row(now_s, instance=instance)
                    continue
                for name, value in (("waiting", waiting), ("running", running)):
                    labels = {"__name__": f"vllm:num_requests_{name}", "model_name": "llama", "engine": "0"}
                    row(value, instance=instance, **labels)
        document = {"status": "success", "data": {"resultType": "vector", "result": rows}}
        return Said(200, json.dumps(document).encode())


@contextmanager
def prometheus() -> Iterator[PrometheusFake]:
    fake = PrometheusFake()
    with loopback(fake.answer) as server:
        fake.url = server.url
        yield fake
