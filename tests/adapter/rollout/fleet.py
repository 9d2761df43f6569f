"""A repository with versions, replicas that serve them, a gateway, a load: all of it real, on loopback."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from adapter.rollout import processes, served_folder
from adapter.rollout.balancer import Balancer, Load, RemoteTraffic
from free_ports import free_port
from textnlp_fast.adapter.rollout.controller import Controller, Pace, Pool
from textnlp_fast.adapter.rollout.replicas import AgentClient, Replica
from textnlp_fast.adapter.rollout_settings import HealthCheck, Rollout
from textnlp_fast.storage import Registry, Repository

__all__ = ["Fleet", "controller_of", "publish", "until"]

# Processes begin as copies of one that has imported what takes time; tests' own folders it does not know.
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    [
        "textnlp_fast.adapter.rollout.agent",
        "textnlp_fast.adapter.rollout.controller",
        "textnlp_fast.adapter.rollout.restarting",
        "textnlp_fast.integrations.tensor_replica",
        "safetensors.numpy",
        "numpy",
    ]
)


def publish(repository: str, version: str, seed: int, *, health: float = 0.0) -> dict[int, Any]:
    """Pushes a version; what each request is to be answered with."""
    random = np.random.default_rng(seed)
    weights = {
        "w": random.standard_normal((64, 256)).astype(np.float32),
        "bias": random.standard_normal(4096).astype(np.float32),
        "health": np.full(8, health, dtype=np.float32),
    }
    folder = Path(repository).parent / f"made-{version}"
    folder.mkdir()
    save_file(weights, folder / "model.safetensors")
    Repository.open(repository, create=True).push(folder, processes.MODEL, version)
    return {x: served_folder.answer_of(weights, x) for x in range(4)}


def until(condition: Callable[[], bool], *, most_s: float = 120.0) -> None:
    end = time.monotonic() + most_s
    while not condition():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.02)


def controller_of(made: dict[str, Any], registry: Registry, told: list[str] | None = None) -> Controller:
    """A controller of plain data, so that another process can make it, too."""
    pool = Pool(
        replicas=tuple(Replica(*one) for one in made["replicas"]),
        spares=frozenset(made["spares"]),
        token=lambda: processes.TOKEN,
        traffic=RemoteTraffic(made["gateway"]),
        drain_s=20.0,
    )
    settings = Rollout(
        strategy=made["strategy"],
        max_unavailable=made.get("max_unavailable", 1),
        max_surge=made.get("max_surge", 0),
        steps=(25, 100),
        bake_s=made.get("bake_s", 0.3),
        health=HealthCheck(interval_s=0.1, failures=2, timeout_s=30.0),
        hot_swap=made.get("hot_swap", True),
    )
    # Those that work in milliseconds, on a machine that may be busy.
    pace = Pace(
        poll_s=0.03, lease_s=made.get("lease_s", 10.0), request_s=30.0, lost_s=made.get("lost_s", 20.0)
    )
    return Controller(
        registry,
        processes.MODEL,
        made["target"],
        pool,
        settings,
        pace=pace,
        told=(lambda words: None) if told is None else told.append,
    )


class Fleet:
    """`count` replicas that serve `version`, and as many `spares` as are asked for."""

    def __init__(
        self,
        folder: Path,
        known: dict[str, Any],
        *,
        count: int = 4,
        spares: int = 0,
        version: str = "1.0.0",
        target: str = "eu/serving",
        kind: str = "swap",
    ) -> None:
        self.repository = str(folder / "repository")
        self.folder = folder
        self.version = version
        self.target = target
        self._kind = kind
        self.ports = [(free_port(), free_port()) for _ in range(count + spares)]
        self.names = [f"127.0.0.1:{port}" for port, _ in self.ports]
        self.spares = self.names[count:]
        self.processes: dict[str, Any] = {}
        for name in self.names:
            self.start(name)
        self.agents = AgentClient(
            [
                Replica(name, f"http://127.0.0.1:{port}")
                for name, (_, port) in zip(self.names, self.ports, strict=True)
            ],
            token=lambda: processes.TOKEN,
            timeout_s=30.0,
        )
        self.registry = Registry(Repository.open(self.repository), actor="tests")
        self.registry.deploy(processes.MODEL, version, target)
        self.wait_ready()
        self.balancer = Balancer(self.names[:count], self.spares)
        self.load = Load(self.balancer, known)

    def start(self, name: str) -> None:
        """Starts a replica's process, as a supervisor would."""
        port, agent_port = self.ports[self.names.index(name)]
        place = self.folder / f"replica-{port}"
        place.mkdir(exist_ok=True)
        arguments: tuple[Any, ...] = (self.repository, str(place), port, agent_port, self.version)
        target = processes.replica
        if self._kind == "restart":
            target, arguments = processes.restart_agent, (*arguments, sys.executable)
        self.processes[name] = _context.Process(target=target, args=arguments, daemon=self._kind == "swap")
        self.processes[name].start()

    def kill(self, name: str) -> None:
        """kill -9."""
        os.kill(self.processes[name].pid, signal.SIGKILL)
        self.processes[name].join()

    def close(self) -> None:
        self.load.stop()
        self.balancer.close()
        for process in self.processes.values():
            if process.is_alive():
                process.terminate()
        for process in self.processes.values():
            process.join(30)
            if process.is_alive():
                process.kill()

    def wait_ready(self) -> None:
        until(
            lambda: all(sight.ready and sight.reachable for sight, _ in self.agents.look(self.names).values())
        )

    def versions(self, names: list[str] | None = None) -> set[str | None]:
        """What agents say that replicas serve."""
        return {sight.serving for sight, _ in self.agents.look(names or self.names).values()}

    def made(self, version: str, **more: Any) -> dict[str, Any]:
        return {
            "repository": self.repository,
            "target": self.target,
            "replicas": [
                (name, f"http://127.0.0.1:{port}")
                for name, (_, port) in zip(self.names, self.ports, strict=True)
            ],
            "spares": self.spares,
            "gateway": self.balancer.url,
            "version": version,
            "strategy": "rolling",
            **more,
        }

    def controller(self, version: str, told: list[str] | None = None, **more: Any) -> Controller:
        return controller_of(self.made(version, **more), self.registry, told)

    def control(self, version: str, die_at: int = 0, *, after: bool = False, **more: Any) -> Any:
        """A controller in a process of its own."""
        process = _context.Process(target=processes.control, args=(self.made(version, **more), die_at, after))
        process.start()
        return process

    def settle(self) -> None:
        """Lets the load ask everybody a few times."""
        before = sum(self.load.answers.values())
        until(lambda: sum(self.load.answers.values()) > before + 30)

    def notes(self) -> list[str]:
        """The target's history, the newest first."""
        history = self.registry.deployment_history(processes.MODEL, self.target)
        return [
            f"{each.action} {each.detail.get('version')} {each.detail.get('note', '')}" for each in history
        ]
