"""How long requests wait in engines' queues behind one gateway: round robin, fewest connections, and our weights.

Four stand-in engines of unlike capacity as processes, HAProxy in front, the same seeded requests each time: arrivals
as Poisson has them, lengths log-normal, at a share of what all engines together carry. `python benches/gateway.py`
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from fakes.openai_process import EngineProcess
from free_ports import free_port
from textnlp_fast.adapter.gateway.agent import WeightAgent
from textnlp_fast.adapter.gateway.haproxy_config import haproxy_config
from textnlp_fast.adapter.gateway.plan import Endpoint, GatewayPlan
from textnlp_fast.adapter.gateway.running import find_haproxy, write_files

# Requests at once, and seconds a token: a large replica, two of half its size, and one that something slows down.
ENGINES = (("large", 8, 0.010), ("half", 4, 0.010), ("other half", 4, 0.010), ("slow", 2, 0.020))
MEAN_TOKENS = 30
WAYS = ("round robin", "fewest connections", "our weights")


def requests(seed: int, seconds: float, load: float) -> list[tuple[float, int]]:
    """(arrival, tokens) of each request."""
    carried = sum(slots / token_s for _, slots, token_s in ENGINES) / MEAN_TOKENS
    rng = random.Random(seed)
    found, now = [], 0.0
    while (now := now + rng.expovariate(load * carried)) < seconds:
        # A log-normal's mean is exp(mu + sigma^2 / 2).
        found.append((now, max(1, round(MEAN_TOKENS * rng.lognormvariate(-0.32, 0.8)))))
    return found


async def ask(where: Endpoint, tokens: int) -> float:
    """Seconds that one request waited in an engine."""
    reader, writer = await asyncio.open_connection(where.host, where.port)
    body = json.dumps({"model": "m", "messages": [], "max_tokens": tokens}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    writer.write(head.encode() + body)
    answer = await reader.read()
    writer.close()
    if not answer.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(answer[:200])
    document: dict[str, Any] = json.loads(answer.partition(b"\r\n\r\n")[2])
    return float(document["waited_s"])


async def measure(way: str, asked: list[tuple[float, int]], folder: Path) -> list[float]:
    engines = [
        EngineProcess(name.split()[0], slots=slots, token_s=token_s) for name, slots, token_s in ENGINES
    ]
    plan = GatewayPlan(
        endpoints=tuple(Endpoint("127.0.0.1", one.port) for one in engines),
        socket_path=folder / "s",
        listen=Endpoint("127.0.0.1", free_port()),
        metrics=None,
        agent=Endpoint("127.0.0.1", free_port()) if way == "our weights" else None,
        balance="round_robin" if way == "round robin" else "least_loaded",
    )
    config = write_files(plan, haproxy_config(plan), None)
    agent = asyncio.create_task(WeightAgent(plan.agent).serve()) if plan.agent is not None else None
    process = await asyncio.create_subprocess_exec(
        find_haproxy(), "-db", "-f", str(config), stderr=asyncio.subprocess.DEVNULL
    )
    try:
        await asyncio.sleep(3)
        began = time.monotonic()
        tasks = []
        for at, tokens in asked:
            await asyncio.sleep(max(0.0, began + at - time.monotonic()))
            tasks.append(asyncio.create_task(ask(plan.listen, tokens)))
        return list(await asyncio.gather(*tasks))
    finally:
        process.kill()
        await process.wait()
        if agent is not None:
            agent.cancel()
        for one in engines:
            one.kill()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=25)
    parser.add_argument("--load", type=float, default=0.8, help="of what all engines together carry")
    parser.add_argument("--seed", type=int, default=1)
    said = parser.parse_args()
    asked = requests(said.seed, said.seconds, said.load)
    print(
        f"{len(asked)} requests in {said.seconds:g} s, {said.load:.0%} of what the engines carry; waits in ms\n"
    )
    print("| | mean | p50 | p95 | p99 |\n|---|---|---|---|---|")
    for way in WAYS:
        with tempfile.TemporaryDirectory() as folder:
            waits = sorted(asyncio.run(measure(way, asked, Path(folder))))
        picks = [waits[int(share * (len(waits) - 1))] for share in (0.5, 0.95, 0.99)]
        row = [sum(waits) / len(waits), *picks]
        print(f"| {way} | " + " | ".join(f"{1000 * each:.0f}" for each in row) + " |", flush=True)


if __name__ == "__main__":
    main()
