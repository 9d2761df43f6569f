"""One object to many nodes: pieces among nodes, against everybody from the origin and a binomial tree.

A simulation of events in which nodes decide by the very functions of `objectstore/peers/policy.py`; links are queues
with a rate, so that who is asked by many answers late. `--processes 4 20` runs real nodes on this machine, measures,
and simulates the same. `python benches/fan_out.py [--plot docs/studies/fan-out.png]`
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from textnlp_fast.objectstore.peers import pieces
from textnlp_fast.objectstore.peers.pieces import Layout
from textnlp_fast.objectstore.peers.policy import homes, node_order, pick_source, piece_order

GB = 1e9
DIGEST = "5a" * 32
# As in swarm.py and value_lists.py.
THREADS, NEIGHBOURS, MAP_LASTS_S, POLL_S, COLLECTORS = 16, 8, 1.0, 0.05, 64


@dataclass(frozen=True)
class Network:
    """Rates in bytes a second: of the origin as a whole, of one node's link in each direction. Delays in seconds."""

    origin: float
    nic: float
    origin_delay_s: float = 0.03
    delay_s: float = 0.0005


@dataclass
class Queue:
    """A link: transfers one after the other."""

    rate: float
    free_s: float = 0.0

    def take(self, now: float, size: int) -> float:
        """When a transfer that comes now has gone through."""
        self.free_s = max(now, self.free_s) + size / self.rate
        return self.free_s


@dataclass
class Outcome:
    done_s: list[float]
    origin_bytes: float
    most_sent: float = 0.0

    def row(self, size: int) -> str:
        done = sorted(self.done_s)
        shares = f"{self.origin_bytes / size:.2f} | {self.most_sent / size:.1f}"
        return f"{done[len(done) // 2]:.1f} | {done[-1]:.1f} | {shares}"


def all_from_origin(size: int, nodes: int, net: Network) -> Outcome:
    """Everybody shares the origin's rate, at most their own link's."""
    rate = min(net.nic, net.origin / nodes)
    return Outcome([net.origin_delay_s + size / rate] * nodes, float(size) * nodes)


def binomial_tree(size: int, nodes: int, net: Network) -> Outcome:
    """One reads the origin; then whoever has the object sends it, whole, to one that has not."""
    first = net.origin_delay_s + size / min(net.nic, net.origin)
    done = [first]
    while len(done) < nodes:
        step = [one + net.delay_s + size / net.nic for one in [done[-1]] * min(len(done), nodes - len(done))]
        done += step
    return Outcome(done, float(size), size * math.ceil(math.log2(nodes)) if nodes > 1 else 0)


@dataclass
class Node:
    number: int
    up: Queue
    down: Queue
    have: set[int] = field(default_factory=set)
    wanted: list[int] = field(default_factory=list)
    asked: Counter[int] = field(default_factory=Counter)
    looked_s: float = -math.inf
    held: dict[int, frozenset[int]] = field(default_factory=dict)
    sent: int = 0
    done_s: float = 0.0


class Pieces:
    """Nodes that read their share, learn the list of values, and exchange."""

    def __init__(self, size: int, nodes: int, net: Network, *, seed: int = 1) -> None:
        self.layout = Layout(size)
        self.net = net
        self.rng = random.Random(seed)
        self.nodes = [Node(n, Queue(net.nic), Queue(net.nic)) for n in range(nodes)]
        self.order = [int(name) for name in node_order(DIGEST, [str(n) for n in range(nodes)])]
        self.origin = Queue(net.origin)
        self.origin_bytes = 0
        self.events: list[tuple[float, int, Callable[[float], None]]] = []
        self.count = 0

    def at(self, when: float, what: Callable[[float], None]) -> None:
        self.count += 1
        heapq.heappush(self.events, (when, self.count, what))

    def run(self) -> Outcome:
        share: dict[int, list[int]] = {}
        for piece in range(self.layout.count):
            share.setdefault(homes(self.order, piece)[0], []).append(piece)
        listed = 0.0
        for turn, (home, mine) in enumerate(share.items()):
            # The collector asks so many homes at a time; each reads its pieces side by side.
            began = self.net.delay_s * (1 + turn // COLLECTORS)
            for piece in mine:
                listed = max(listed, self._read(self.nodes[home], piece, began))
        values = 32 * self.layout.count
        collector = self.nodes[self.order[0]]
        for node in self.nodes:
            # Everybody asks the collector again and again until it has the list.
            told = listed + self.rng.uniform(0, POLL_S) + self.net.delay_s
            if node is not collector:
                told = max(collector.up.take(told, values), node.down.take(told, values))
            self.at(told, lambda now, node=node: self._begin(node, now))
        while self.events:
            now, _, what = heapq.heappop(self.events)
            what(now)
        return Outcome(
            [node.done_s for node in self.nodes], self.origin_bytes, max(node.sent for node in self.nodes)
        )

    def _read(self, node: Node, piece: int, now: float) -> float:
        length = self.layout.length(piece)
        self.origin_bytes += length
        node.have.add(piece)  # before it is asked for by others, who wait for the list
        came = self.origin.take(now, length) + self.net.origin_delay_s
        return max(came, node.down.take(now, length))

    def _begin(self, node: Node, now: float) -> None:
        missing = [piece for piece in range(self.layout.count) if piece not in node.have]
        node.wanted = piece_order(missing, self.rng)[::-1]
        if not missing:
            node.done_s = now
        for _ in range(min(THREADS, len(missing))):
            self._next(node, now)

    def _next(self, node: Node, now: float) -> None:
        if not node.wanted:
            return
        piece = node.wanted.pop()
        if now - node.looked_s >= MAP_LASTS_S:
            node.looked_s = now
            others = self.rng.sample(range(len(self.nodes)), min(NEIGHBOURS, len(self.nodes)))
            node.held = {n: frozenset(self.nodes[n].have) for n in others if n != node.number}
        holders = [n for n, have in node.held.items() if piece in have]
        source = pick_source(holders, node.asked, self.rng) if holders else homes(self.order, piece)[0]
        length = self.layout.length(piece)
        node.asked[source] += 1
        peer = self.nodes[source]
        peer.sent += length
        sent = peer.up.take(now + self.net.delay_s, length)
        came = max(sent, node.down.take(now + self.net.delay_s, length)) + self.net.delay_s
        self.at(came, lambda then: self._arrived(node, piece, source, then))

    def _arrived(self, node: Node, piece: int, source: int, now: float) -> None:
        node.have.add(piece)
        node.asked[source] -= 1
        if len(node.have) == self.layout.count:
            node.done_s = now
        self._next(node, now)


def measured(count: int, size: int) -> tuple[float, float, float]:
    """Real nodes on this machine: seconds of the last, of the median, and bytes of the origin by the object's."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "node_cache"))
    import numpy as np  # noqa: PLC0415
    from safetensors.numpy import save_file  # noqa: PLC0415

    from textnlp_fast.storage import Repository  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "model").mkdir()
        data = np.random.default_rng(0).integers(0, 256, (size >> 20, 1 << 20), dtype=np.uint8)
        save_file({f"w{n}": row for n, row in enumerate(data)}, folder / "model" / "model.safetensors")
        Repository.open(folder / "repository", create=True).push(folder / "model", "m", "1.0.0")
        sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
        ports = [one.getsockname()[1] for one in sockets]
        for one in sockets:
            one.close()
        script = Path(__file__).parents[1] / "tests" / "node_cache" / "node_process.py"
        launcher = subprocess.Popen(
            [sys.executable, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert launcher.stdin is not None
        assert launcher.stdout is not None
        pids = []
        for number, port in enumerate(ports):
            control = folder / f"node{number}"
            control.mkdir()
            said = {"repository": str(folder / "repository"), "cache": str(control / "cache"), "port": port}
            said |= {"control": str(control), "out": str(control / "out"), "counts": str(folder / "counts")}
            launcher.stdin.write(json.dumps(said | {"ports": ports}) + "\n")
            launcher.stdin.flush()
            pids.append(int(launcher.stdout.readline()))
        try:
            for name in ("ready", "done"):
                for number in range(count):
                    while not (folder / f"node{number}" / name).exists():
                        time.sleep(0.02)
                if name == "ready":
                    for number in range(count):
                        (folder / f"node{number}" / "go").touch()
        finally:
            import os  # noqa: PLC0415
            import signal  # noqa: PLC0415

            for pid in pids:
                os.kill(pid, signal.SIGKILL)
            launcher.kill()
            launcher.wait()
        seconds = sorted(
            json.loads((folder / f"node{number}" / "done").read_text())["seconds"] for number in range(count)
        )
        lines = (folder / "counts").read_text().splitlines()
        read = sum(int(line.split()[0]) for line in lines)
    return seconds[-1], seconds[count // 2], read / size


def calibrated(counts: list[int], size: int) -> None:
    """Real nodes share this machine's processors: a link's rate is what the first count gives, divided by nodes."""
    pieces.LEAST_PIECE_BYTES = 256 << 10  # as the processes have it
    print("| processes | last, s | median, s | origin, objects | simulated last, s | simulated origin |")
    print("|---|---|---|---|---|---|")
    whole = 0.0
    for count in counts:
        last, median, origin = measured(count, size)
        if not whole:
            whole = count * size / last
        net = Network(origin=whole, nic=whole / count, origin_delay_s=0.0, delay_s=0.002)
        guess = Pieces(size, count, net).run()
        print(
            f"| {count} | {last:.1f} | {median:.1f} | {origin:.2f} | {max(guess.done_s):.1f} | "
            f"{guess.origin_bytes / size:.2f} |",
            flush=True,
        )


def compared(size: int, nodes: list[int], net: Network) -> dict[str, list[Outcome]]:
    found: dict[str, list[Outcome]] = {
        "all from the origin": [],
        "binomial tree": [],
        "pieces among nodes": [],
    }
    print(
        f"\n{size / GB:.0f} GB; origin {net.origin / GB:g} GB/s, links {net.nic / GB:g} GB/s\n\n"
        "| nodes | way | median, s | last, s | from the origin, objects | most sent by a node, objects |\n"
        "|---|---|---|---|---|---|"
    )
    for count in nodes:
        for way, outcome in (
            ("all from the origin", all_from_origin(size, count, net)),
            ("binomial tree", binomial_tree(size, count, net)),
            ("pieces among nodes", Pieces(size, count, net).run()),
        ):
            found[way].append(outcome)
            print(f"| {count} | {way} | {outcome.row(size)} |", flush=True)
    return found


def plot(found: dict[str, list[Outcome]], nodes: list[int], path: Path) -> None:
    import matplotlib as mpl  # noqa: PLC0415

    mpl.use("Agg")
    import matplotlib.pyplot as plt  # noqa: PLC0415

    figure, axes = plt.subplots(1, 2, figsize=(10, 4))
    for way, outcomes in found.items():
        axes[0].plot(nodes, [max(one.done_s) for one in outcomes], marker="o", label=way)
        axes[1].plot(nodes, [one.origin_bytes / 16e9 for one in outcomes], marker="o", label=way)
    for axis, what in zip(
        axes, ("until the last node has it, s", "read from the origin, objects"), strict=True
    ):
        axis.set(xscale="log", yscale="log", xlabel="nodes", ylabel=what)
        axis.grid(alpha=0.3)
    axes[0].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, nargs="*", default=[10, 30, 100, 300, 1000])
    parser.add_argument("--size", type=float, default=16e9)
    parser.add_argument("--origin", type=float, default=12.5, help="GB/s")
    parser.add_argument("--nic", type=float, default=3.125, help="GB/s, in each direction")
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--processes", type=int, nargs="*", default=[])
    said = parser.parse_args()
    if said.processes:
        calibrated(said.processes, 16 << 20)
        return
    net = Network(origin=said.origin * GB, nic=said.nic * GB)
    found = compared(int(said.size), said.nodes, net)
    if said.plot is not None:
        plot(found, said.nodes, said.plot)


if __name__ == "__main__":
    main()
