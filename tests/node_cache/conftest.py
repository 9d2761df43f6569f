"""A model in a repository, and many nodes as processes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from textnlp_fast.storage import Repository

WAIT_S = 240
NODE = Path(__file__).with_name("node_process.py")


@dataclass
class Stored:
    folder: Path
    files: dict[str, bytes]
    object_bytes: int
    """Of all objects together."""
    digests: list[str] = field(default_factory=list)


@pytest.fixture(scope="session")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Stored:
    """A model of 8 MiB that nothing compresses, as version 1.0.0 of m."""
    source, folder = tmp_path_factory.mktemp("model"), tmp_path_factory.mktemp("repository")
    rng = np.random.default_rng(7)
    tensors = {f"layers.{n}.weight": rng.integers(0, 256, (512, 1024), dtype=np.uint8) for n in range(16)}
    save_file(tensors, source / "model.safetensors")
    (source / "config.json").write_text('{"model_type": "m"}')
    Repository.open(folder, create=True).push(source, "m", "1.0.0")
    objects = [path for path in (folder / "objects").rglob("*") if path.is_file()]
    files = {path.name: path.read_bytes() for path in source.iterdir()}
    return Stored(
        folder, files, sum(path.stat().st_size for path in objects), [path.name for path in objects]
    )


class Node:
    def __init__(self, settings: dict[str, Any], pid: int) -> None:
        self.settings = settings
        self.pid = pid
        self.control = Path(settings["control"])

    def _wait_for(self, name: str) -> Path:
        end = time.monotonic() + WAIT_S
        while not (self.control / name).exists():
            os.kill(self.pid, 0)  # it ended, if this raises
            assert time.monotonic() < end, f"no {name} of {self.settings}"
            time.sleep(0.02)
        return self.control / name

    def wait_until_ready(self) -> None:
        self._wait_for("ready")

    def tell(self) -> None:
        (self.control / "go").touch()

    def report(self) -> dict[str, Any]:
        """What it says when it has pulled."""
        found: dict[str, Any] = json.loads(self._wait_for("done").read_text())
        return found

    def signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)


@dataclass
class Fleet:
    nodes: list[Node]
    counts: Path

    def origin_bytes(self) -> int:
        if not self.counts.exists():
            return 0
        return sum(int(line.split()[0]) for line in self.counts.read_text().splitlines())


@pytest.fixture(scope="session")
def launcher() -> Iterator[Callable[[dict[str, Any]], int]]:
    """Starts a node; its process id."""
    process = subprocess.Popen(
        [sys.executable, NODE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )

    def launch(settings: dict[str, Any]) -> int:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(settings) + "\n")
        process.stdin.flush()
        return int(process.stdout.readline())

    yield launch
    process.kill()
    process.wait()


@pytest.fixture
def fleet(
    tmp_path: Path, stored: Stored, launcher: Callable[[dict[str, Any]], int]
) -> Iterator[Callable[..., Fleet]]:
    made: list[Node] = []

    def start(count: int, *, each: Callable[[int], dict[str, Any]] = lambda _: {}, **settings: Any) -> Fleet:
        sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
        ports = [one.getsockname()[1] for one in sockets]
        for one in sockets:
            one.close()
        nodes = []
        for number, port in enumerate(ports):
            folder = tmp_path / f"node{len(made)}"
            folder.mkdir()
            asked = {
                "repository": str(stored.folder),
                "cache": str(folder / "cache"),
                "control": str(folder),
                "out": str(folder / "out"),
                "counts": str(tmp_path / "counts"),
                "port": port,
                "ports": ports,
            }
            asked |= settings | each(number)
            nodes.append(Node(asked, launcher(asked)))
            made.append(nodes[-1])
        for node in nodes:
            node.wait_until_ready()
        return Fleet(nodes, tmp_path / "counts")

    yield start
    for node in made:
        node.signal(signal.SIGKILL)
