"""What tests run in processes of their own, to kill them: replicas that hold tensors, agents, controllers."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from adapter.rollout.served_folder import serve_tensors
from textnlp_fast.adapter.rollout import controller as controller_module
from textnlp_fast.adapter.rollout.agent import ReplicaAgent
from textnlp_fast.adapter.rollout.restarting import RestartEngine
from textnlp_fast.errors import ConflictError
from textnlp_fast.integrations.tensor_replica import TensorReplica, last_served
from textnlp_fast.storage import Registry, Repository

MODEL = "llm"
TOKEN = "a-token-of-the-agents"
LOST = 75
"""What a controller exits with that lost its lease, or found another at work."""


def replica(repository: str, folder: str, port: int, agent_port: int, version: str) -> None:
    """A process that holds tensors and swaps them in place."""
    place = Path(folder)
    version = last_served(place, version)
    repo = Repository.open(repository)
    files = place / f"pulled-{version}"
    repo.pull(MODEL, version, files)
    tensors = {name: np.array(value) for name, value in load_file(files / "model.safetensors").items()}
    engine = TensorReplica(tensors, repository, MODEL, version, folder=place, threads=1)
    with ReplicaAgent(engine, place, port=agent_port, token=TOKEN):
        serve_tensors(port, tensors, engine.gate)


def restart_agent(
    repository: str, folder: str, port: int, agent_port: int, version: str, python: str
) -> None:
    """An agent beside an engine that it starts and stops."""
    engine = RestartEngine(
        [python, str(Path(__file__).with_name("served_folder.py")), "{model_dir}", str(port)],
        folder,
        Repository.open(repository),
        MODEL,
        ready_url=f"http://127.0.0.1:{port}/health",
        start_s=60.0,
        stop_s=10.0,
    )
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    engine.start(version)
    with ReplicaAgent(engine, folder, port=agent_port, token=TOKEN):
        ended.wait()
    engine.close(stop_engine=True)


def control(made: dict[str, Any], die_at: int, after: bool) -> None:
    """A controller that kills itself when it writes the record for the `die_at`-th time, before or after it does."""
    from adapter.rollout.fleet import controller_of  # noqa: PLC0415  (it starts these)

    real, count = controller_module.write_record, 0

    def write(*arguments: Any) -> Any:
        nonlocal count
        count += 1
        if count == die_at and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        written = real(*arguments)
        if count == die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return written

    if die_at:
        controller_module.write_record = write  # type: ignore[assignment]
    controller = controller_of(made, Registry(Repository.open(made["repository"]), actor="tests"))
    try:
        controller.apply(made["version"], note="in a process")
    except ConflictError:
        sys.exit(LOST)
