"""Nodes as processes, forked by a program that has its imports behind it; their origin counts what they read.

``python node_process.py`` reads a line of JSON for each node and prints its process id. Settings: repository, cache,
port, ports (of all nodes), control (a folder: the node makes ``ready``, waits for ``go``, and leaves its report in
``done``), counts (a file that every read of the origin appends its bytes to, so that a kill loses none), out (where to
pull to), lie (what is in the path of what it falsifies), slow_s, origin_s (each read of the origin takes so long).
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

from textnlp_fast.objectstore import open_store
from textnlp_fast.objectstore.peers import Members, NodeServer, PieceCache, Swarm, with_peers
from textnlp_fast.objectstore.peers import pieces as cutting
from textnlp_fast.objectstore.peers.value_lists import Patience
from textnlp_fast.storage import Repository


class Counting:
    """The origin: a store whose reads are written down."""

    def __init__(self, store: Any, counts: str, origin_s: float) -> None:
        self.url = store.url
        self._store = store
        self._origin_s = origin_s
        self._file = os.open(counts, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def get_ranges(self, key: str, starts: Any, lengths: Any) -> list[memoryview]:
        time.sleep(self._origin_s)
        found = self._store.get_ranges(key, starts, lengths)
        if key.startswith("objects/"):
            os.write(self._file, f"{sum(map(len, found))} {key[-6:]} {starts[0]}\n".encode())
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


class Lying(NodeServer):
    """Answers as asked for, with other bytes."""

    what = ""
    slow_s = 0.0

    def _document(self, path: str) -> tuple[int, str, bytes]:
        status, kind, body = super()._document(path)
        if status == 200 and "/v1/" in path:
            time.sleep(self.slow_s)
            if self.what and self.what in path:
                if kind == "application/json":
                    body = json.dumps(
                        {piece: value[::-1] for piece, value in json.loads(body).items()}
                    ).encode()
                else:
                    body = body[:-1] + bytes([body[-1] ^ 1])
        return status, kind, body


# Small models in many pieces.
cutting.LEAST_PIECE_BYTES = 256 << 10


def run(said: dict[str, Any]) -> None:
    control = Path(said["control"])
    store = open_store(said["repository"])
    addresses = [f"http://127.0.0.1:{port}" for port in said["ports"]]
    me = f"http://127.0.0.1:{said['port']}"
    patience = Patience(request_s=said.get("request_s", 60.0), stall_s=said.get("stall_s", 120.0))
    counting = Counting(store, said["counts"], said.get("origin_s", 0.0))
    cache = PieceCache(said["cache"], limit_bytes=said.get("limit_bytes", 1 << 30))
    swarm = Swarm(counting, Members(addresses, me=me), cache=cache, name=me, patience=patience)
    server = Lying(swarm, "127.0.0.1", said["port"], token=None, name=me)
    server.what, server.slow_s = said.get("lie", ""), said.get("slow_s", 0.0)
    threading.Thread(target=server.serve, daemon=True).start()
    (control / "ready").touch()
    while not (control / "go").exists():
        time.sleep(0.01)
    # What the node cannot get, its client takes from the same origin, and is counted.
    direct = store.over(lambda backend: Counting(backend, said["counts"], said.get("origin_s", 0.0)))  # type: ignore[arg-type,return-value]
    client = with_peers(direct, [me], patience=patience)
    began = time.monotonic()
    Repository(client).pull("m", "1.0.0", Path(said["out"]))
    report = {
        "seconds": time.monotonic() - began,
        "read": dict(swarm.read_bytes),
        "banned": swarm.members.banned(),
        "problem": cache.problem,
    }
    (control / "report").write_text(json.dumps(report))
    (control / "report").rename(control / "done")
    while True:
        time.sleep(60)


def main() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them
    for line in sys.stdin:
        child = os.fork()
        if not child:
            try:
                run(json.loads(line))
            finally:
                traceback.print_exc()
                os._exit(1)
        sys.stdout.write(f"{child}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
