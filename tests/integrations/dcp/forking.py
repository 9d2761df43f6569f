"""Real ranks, quickly: one process that has imported torch forks them, for imports take longer than all tests.

As a program it reads jobs from its input, a line of JSON each, forks the ranks of a job, and prints what they answered.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parents[2]
# For machines with a load of twenty.
PATIENCE_S = 300.0
# How long ranks may go on that have lost one of theirs: gloo tells them at once, as a rule.
GRACE_S = 20.0


class RanksFailedError(Exception):
    """What ranks said before they failed."""


class Launcher:
    """Runs functions of `scenarios.py` on forked ranks; each is given `rank`, `world` and the job's arguments."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        )
        self._lock = threading.Lock()

    def run(
        self, scenario: str, world: int, *, env: dict[str, str] | None = None, **arguments: Any
    ) -> list[Any]:
        """What each rank returned, in their order. Raises RanksFailedError if one did not."""
        answers = self.attempt(scenario, world, env=env, **arguments)
        if any("error" in answer for answer in answers):
            raise RanksFailedError("\n".join(str(answer.get("error")) for answer in answers))
        return [answer["result"] for answer in answers]

    def attempt(
        self, scenario: str, world: int, *, env: dict[str, str] | None = None, **arguments: Any
    ) -> list[dict[str, Any]]:
        """As `run`, but also of ranks that failed, with `error`, or were killed, with `signal`."""
        job = {"scenario": scenario, "world": world, "env": env or {}, "arguments": arguments}
        with self._lock:
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._process.stdin.write(json.dumps(job) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        if not line:
            raise RanksFailedError("the launcher ended")
        answers: list[dict[str, Any]] = json.loads(line)
        return answers

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)


@contextmanager
def launcher() -> Iterator[Launcher]:
    """A launcher for as long as the context lasts."""
    one = Launcher()
    try:
        yield one
    finally:
        one.close()


def serve() -> None:
    """The program: imports torch once and forks."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is not an answer
    sys.path[:0] = [str(TESTS), str(Path(__file__).parent)]
    scenarios = importlib.import_module("scenarios")
    for late in (
        "torch._dynamo",
        "textnlp_fast.config",
    ):  # what the first save would import, in each rank anew
        importlib.import_module(late)
    for line in sys.stdin:
        job = json.loads(line)
        with tempfile.TemporaryDirectory() as folder:
            answers.write(json.dumps(_run(scenarios, job, Path(folder))) + "\n")
        answers.flush()


def _run(scenarios: Any, job: dict[str, Any], folder: Path) -> list[dict[str, Any]]:
    world = job["world"]
    pids = []
    for rank in range(world):
        pid = os.fork()
        if pid == 0:
            _be_rank(scenarios, job, folder, rank)
        pids.append(pid)
    answers: list[dict[str, Any] | None] = [None] * world
    deadline = time.monotonic() + PATIENCE_S
    while any(answer is None for answer in answers):
        for rank, pid in enumerate(pids):
            if answers[rank] is not None:
                continue
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                answers[rank] = _answer(folder / str(rank), status)
                if "error" in answers[rank] or "signal" in answers[rank]:  # type: ignore[operator]
                    deadline = min(deadline, time.monotonic() + GRACE_S)
            elif time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)
    return [answer for answer in answers if answer is not None]


def _answer(path: Path, status: int) -> dict[str, Any]:
    if os.WIFSIGNALED(status):
        return {"error": f"killed by signal {os.WTERMSIG(status)}", "signal": os.WTERMSIG(status)}
    answer: dict[str, Any] = json.loads(path.read_text())
    return answer


def _be_rank(scenarios: Any, job: dict[str, Any], folder: Path, rank: int) -> None:
    """In the child: runs the scenario, notes its answer, and ends without what the launcher's exit would do."""
    try:
        os.environ.update(job["env"])
        os.environ["LOCAL_WORLD_SIZE"] = str(job["world"])
        result = scenarios.run(job["scenario"], rank, job["world"], folder / "store", job["arguments"])
        answer = {"result": result}
    except BaseException:  # noqa: BLE001  (the test shall hear of anything)
        answer = {"error": f"rank {rank}: {traceback.format_exc()}"}
    (folder / str(rank)).write_text(json.dumps(answer))
    os._exit(0)


if __name__ == "__main__":
    serve()
