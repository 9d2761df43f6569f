"""What readers of the service wait for: mixed reads at fixed times, while a thousand event streams are open.

    python benches/service_load.py                        # 200 requests/s for 30 s, 1,000 streams, 250 versions
    python benches/service_load.py --rate 50 --seconds 10 --streams 100

The loop is open: each request has a time at which it is due, whether or not those before it were answered, and its
latency counts from that time. So a pause of the service is paid by all whom it kept waiting, not by one. The client is
a process of its own and speaks over loopback alone; it opens connections as it needs them, 256 at most. Meanwhile an
alias is moved every second, which every stream must hear of.

`late` is how far behind the client itself was when it sent: where that is not small, the machine was too busy for the
figures to say anything of the service.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from measure import machine
from textnlp_fast.storage import Repository

MODELS = 10
MOST_CONNECTIONS = 256
MOST_SECONDS = 120.0
GOAL_MS = 50.0


# --- the repository -----------------------------------------------------------------------------------------------


def build(folder: Path, versions: int) -> None:
    """Versions of small models, as many of each."""
    os.environ["TEXTNLP_FAST_AUDIT"] = "off"
    repository = Repository.open(folder / "repository", create=True)
    rng = np.random.default_rng(0)
    for number in range(versions):
        path = folder / "model.safetensors"
        data = rng.integers(0x3C00, 0x3D00, 1024, np.uint16).tobytes()
        header = json.dumps(
            {"w": {"dtype": "BF16", "shape": [1024], "data_offsets": [0, len(data)]}}
        ).encode()
        path.write_bytes(len(header).to_bytes(8, "little") + header + data)
        repository.push(
            path, f"bench/model-{number % MODELS}", f"1.{number // MODELS}.0", message=f"run {number}"
        )


def paths(versions: int) -> list[str]:
    """Reads as a dashboard and scripts make them, the frequent ones more often."""
    each = max(1, versions // MODELS)
    found = [
        "/models",
        "/models?q=model-3",
        "/storage",
        "/transfers",
        "/deployments",
        "/me",
        "/fleet/costs",
    ] * 3
    for number in range(MODELS):
        name = f"/models/bench/model-{number}"
        found += [
            f"{name}/versions",
            f"{name}/versions/1.{number % each}.0",
            f"{name}/versions/1.0.0/tensors",
        ]
        found += [f"{name}/changes", f"{name}/graph"]
    return found


# --- the client ---------------------------------------------------------------------------------------------------


class Client:
    """Connections that are kept, and what came of the requests over them."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.free: deque[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = deque()
        self.count = asyncio.Semaphore(MOST_CONNECTIONS)
        self.latencies: list[float] = []
        self.late: list[float] = []
        self.statuses: Counter[str] = Counter()

    async def ask(self, method: str, path: str, body: bytes = b"") -> int:
        connection = self.free.pop() if self.free else None
        reader, writer = connection or await asyncio.open_connection("127.0.0.1", self.port)
        length = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n" if body else ""
        head = f"{method} /api/v1{path} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\n{length}\r\n"
        writer.write(head.encode() + body)
        answer = (await reader.readuntil(b"\r\n\r\n")).lower()
        size = int(answer.partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
        await reader.readexactly(size)
        if b"connection: close" in answer:
            writer.close()
        else:
            self.free.append((reader, writer))
        return int(answer.split(b" ", 2)[1])

    async def move(self, per_s: float, over: asyncio.Event) -> int:
        """Moves an alias to and fro, and counts how often."""
        moves = 0
        while per_s > 0 and not over.is_set():
            body = json.dumps({"version": f"1.{moves % 2}.0"}).encode()
            status = await self.ask("PUT", "/models/bench/model-0/aliases/champion", body)
            self.statuses[str(status) if status == 200 else f"{status} PUT"] += 1
            moves += 1
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(over.wait(), 1 / per_s)
        return moves

    async def at(self, due: float, path: str) -> None:
        loop = asyncio.get_running_loop()
        self.late.append(loop.time() - due)
        try:
            async with self.count:
                status = str(await asyncio.wait_for(self.ask("GET", path), 30))
        except (OSError, asyncio.TimeoutError, asyncio.IncompleteReadError) as error:
            status = type(error).__name__
        self.latencies.append(loop.time() - due)
        self.statuses[status if status == "200" else f"{status} {path}"] += 1


class Streams:
    """Readers of all events; `heard` counts moves of the alias, a stream each."""

    def __init__(self, port: int, count: int) -> None:
        self.port = port
        self.heard = [0] * count
        self.resyncs = 0
        self.tasks: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        for first in range(0, len(self.heard), 50):
            readers = await asyncio.gather(
                *(self._one(number) for number in range(first, min(first + 50, len(self.heard))))
            )
            self.tasks += [asyncio.ensure_future(reader) for reader in readers]

    async def all_heard(self, moves: int) -> None:
        """Until every stream has heard of all moves, or 30 s later."""
        for _ in range(300):
            if min(self.heard, default=moves) >= moves:
                return
            await asyncio.sleep(0.1)

    async def _one(self, number: int) -> Coroutine[Any, Any, None]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(f"GET /api/v1/events HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        if b" 200 " not in head.splitlines()[0]:
            raise SystemExit(f"a stream was refused: {head.splitlines()[0].decode()}")

        async def read() -> None:
            while data := await reader.read(1 << 16):
                self.heard[number] += data.count(b'"kind":"alias.')
                self.resyncs += data.count(b"event: resync")
            writer.close()

        return read()


async def attack(port: int, options: argparse.Namespace) -> dict[str, object]:
    """Sends what is due when it is due, and tells what came of it."""
    client, streams = Client(port), Streams(port, options.streams)
    await streams.open()
    rng = random.Random(1)
    wanted = paths(options.versions)
    for path in wanted:  # each once: the first answer is made, later ones are found
        await client.ask("GET", path)
    loop = asyncio.get_running_loop()
    begin = loop.time() + 0.5
    before, began = used(options.pid), time.monotonic()
    over = asyncio.Event()
    moving = asyncio.ensure_future(client.move(options.moves, over))
    running = []
    for number in range(int(options.rate * options.seconds)):
        due = begin + number / options.rate
        if (pause := due - loop.time()) > 0:
            await asyncio.sleep(pause)
        running.append(asyncio.ensure_future(client.at(due, rng.choice(wanted))))
    await asyncio.gather(*running)
    over.set()
    moves = await moving
    after, took = used(options.pid), time.monotonic() - began
    await streams.all_heard(moves)
    for task in streams.tasks:
        task.cancel()
    return {
        "latencies": client.latencies,
        "late": client.late,
        "statuses": dict(client.statuses),
        "moves": moves,
        "heard_least": min(streams.heard, default=0),
        "resyncs": streams.resyncs,
        "service_cores": (after[0] - before[0]) / took,
        "cpu_ms_per_request": 1000 * (after[0] - before[0]) / max(1, len(client.latencies)),
        "service_mib": [round(before[1]), round(after[1])],
    }


# --- the whole ----------------------------------------------------------------------------------------------------


def more_files() -> None:
    """A thousand sockets and more."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 65536), most))


def used(pid: int) -> tuple[float, float]:
    """Processor seconds and resident MiB of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    seconds = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return seconds, int(fields[21]) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def share(values: list[float], part: float) -> float:
    """The value that this part of all does not pass, in ms."""
    ordered = sorted(values)
    return 1000 * ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rate", type=float, default=200.0, help="requests per second")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--versions", type=int, default=250)
    parser.add_argument("--moves", type=float, default=1.0, help="alias moves per second; 0: none")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--profile", metavar="FILE", help="profile the service into FILE (cProfile)")
    parser.add_argument("--client", type=int, metavar="PORT", help=argparse.SUPPRESS)
    parser.add_argument("--pid", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.seconds = min(options.seconds, MOST_SECONDS)
    options.rate = max(1.0, options.rate)
    return options


def main() -> int:
    options = arguments()
    more_files()
    if options.client is not None:
        print(json.dumps(asyncio.run(attack(options.client, options))))
        return 0
    with tempfile.TemporaryDirectory(prefix="textnlp-fast-bench-") as name:
        folder = Path(name)
        build(folder, options.versions)
        profiled = ["-m", "cProfile", "-o", options.profile] if options.profile else []
        server = subprocess.Popen(
            [
                sys.executable, *profiled, "-m", "textnlp_fast.cli", "serve", "--port", "0",
                "--repo", str(folder / "repository"),
            ],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            assert server.stdout is not None
            port = int(server.stdout.readline().rpartition(":")[2])
            loads = os.getloadavg()
            done = subprocess.run(
                [sys.executable, __file__, *sys.argv[1:], "--client", str(port), "--pid", str(server.pid)],
                stdout=subprocess.PIPE, text=True, timeout=options.seconds + 240, check=True,
            )  # fmt: skip
        finally:
            server.terminate()
            server.wait(60)
    found = json.loads(done.stdout)
    latencies, late = found.pop("latencies"), found.pop("late")
    result = {
        "machine": machine(["fastapi", "uvicorn"]),
        "load": [round(one, 1) for one in (*loads[:1], *os.getloadavg()[:1])],
        "requests": len(latencies),
        "p50_ms": share(latencies, 0.5),
        "p99_ms": share(latencies, 0.99),
        "p999_ms": share(latencies, 0.999),
        "most_ms": 1000 * max(latencies),
        "mean_ms": 1000 * statistics.fmean(latencies),
        "late_p99_ms": share(late, 0.99),
        **found,
    }
    if options.json:
        print(json.dumps(result))
    else:
        show(result, options)
    return 0 if set(found["statuses"]) == {"200"} else 1


def show(result: dict[str, object], options: argparse.Namespace) -> None:
    for name, value in dict(result["machine"]).items():  # type: ignore[call-overload]
        print(f"{name}: {value}")
    print(f"load before and after: {result['load']}")
    print(
        f"{result['requests']} requests, {options.rate:g}/s, {options.streams} streams, {options.versions} versions"
    )
    names = ("p50", "p99", "p999", "most", "mean", "late_p99")
    print("  ".join(f"{name} {result[f'{name}_ms']:.1f} ms" for name in names))
    print(f"statuses {result['statuses']}")
    print(
        f"{result['moves']} changes, of which the stream that heard least heard {result['heard_least']}; "
        f"{result['resyncs']} resyncs"
    )
    print(
        f"service: {result['service_cores']:.2f} cores, {result['cpu_ms_per_request']:.2f} ms of processor a request, "
        f"events included; {result['service_mib']} MiB before and after"
    )
    print(f"goal, on 2 quiet cores: p99 below {GOAL_MS:g} ms")


if __name__ == "__main__":
    sys.exit(main())
