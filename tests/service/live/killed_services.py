"""Services that are killed while they carry out pushes and pulls; run by test_kills.py, once, as a process of its own.

Arguments: folder, number of kills, seed. Prints a line for each kill. Forks a child for each service, so that nothing
waits for Python to start; this process itself never starts a thread, and asks by plain sockets.
"""

from __future__ import annotations

import ctypes
import datetime
import http.client
import json
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))  # run as a script
sys.path.insert(0, str(Path(__file__).parent))

from conftest import tree, write_model
from faults.children import say
from textnlp_fast.service.app import create_app
from textnlp_fast.service.config import ServiceConfig
from textnlp_fast.service.serving import serve
from textnlp_fast.storage import Repository, TransferOptions

OPTIONS = TransferOptions(shard_bytes=1 << 18, threads=2)
WAIT_S = 300.0
LEASE_S = 1.0
_PR_SET_PDEATHSIG = 1


class Services:
    """Children that serve one repository."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports: dict[int, int] = {}

    def start(self) -> int:
        """Another service; its process id."""
        port_file = self.folder / f"port-{time.monotonic_ns()}"
        pid = os.fork()
        if not pid:
            self._serve(port_file)
        deadline = time.monotonic() + WAIT_S
        while not port_file.exists():
            assert time.monotonic() < deadline, "the service did not start"
            assert os.waitpid(pid, os.WNOHANG)[0] == 0, "the service ended before it began"
            time.sleep(0.005)
        self.ports[pid] = int(port_file.read_text().rpartition(":")[2])
        return pid

    def _serve(self, port_file: Path) -> None:
        code = 1
        ctypes.CDLL(None).prctl(
            _PR_SET_PDEATHSIG, signal.SIGKILL
        )  # nobody is left behind, whatever ends this
        try:
            config = ServiceConfig(
                repo=str(self.folder / "repository"),
                port=0,
                allowed_paths=(self.folder / "root",),
                job_lease_s=LEASE_S,
                job_poll_s=0.1,
                job_workers=1,
            )

            def ready(address: str) -> None:
                written = port_file.with_suffix(".new")
                written.write_text(address)
                written.replace(port_file)

            serve(create_app(config, options=OPTIONS), config, ready=ready)
            code = 0
        finally:
            os._exit(code)

    def kill(self, pid: int) -> None:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        del self.ports[pid]

    def end(self, pid: int) -> int:
        """As an operator would; the exit status."""
        os.kill(pid, signal.SIGTERM)
        del self.ports[pid]
        return os.waitpid(pid, 0)[1]

    def ask(
        self, pid: int, method: str, path: str, body: dict[str, Any] | None = None, key: str | None = None
    ) -> dict[str, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.ports[pid], timeout=WAIT_S)
        headers = {"Content-Type": "application/json"}
        if key is not None:
            headers["Idempotency-Key"] = key
        try:
            connection.request(method, f"/api/v1{path}", json.dumps(body) if body else None, headers)
            answer = connection.getresponse()
            found: dict[str, Any] = json.loads(answer.read())
        finally:
            connection.close()
        assert answer.status < 300, (answer.status, found)
        return found

    def ended(self, pid: int, job_id: str) -> dict[str, Any]:
        deadline = time.monotonic() + WAIT_S
        while True:
            job = self.ask(pid, "GET", f"/transfers/{job_id}")
            if job["state"] in ("done", "failed", "cancelled"):
                return job
            assert time.monotonic() < deadline, job
            time.sleep(0.02)


def moment(text: str) -> float:
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def check_all(
    services: Services, pid: int, repository: Repository, asked: dict[str, str], wanted: list[str]
) -> None:
    """Nothing was lost, nothing done twice, nothing left harmed; then the services are ended."""
    deadline = time.monotonic() + WAIT_S
    listed: set[str] = set()
    while len(listed) < len(asked):  # what others did is seen a moment later
        assert time.monotonic() < deadline, "a transfer was lost"
        listed = {job["id"] for job in services.ask(pid, "GET", "/transfers?limit=1000")["items"]}
    assert listed == set(asked), "a transfer was done under two names"
    assert sorted(repository.models()["m"]) == sorted(wanted)
    for version in wanted:
        assert repository.manifest("m", version).metadata["transfer"] in asked
    report = Repository.open(services.folder / "repository", options=OPTIONS).verify()
    assert report.ok, report.problems
    for one in list(services.ports):
        assert services.end(one) == 0, "a service that was told to end did not end well"


def main(folder: Path, kills: int, seed: int) -> None:
    rng = random.Random(seed)
    root = folder / "root"
    models = [write_model(root / f"model-{number}", number, tensors=16, rows=256) for number in range(4)]
    repository = Repository.open(folder / "repository", create=True, options=OPTIONS, window_bytes=1 << 14)
    repository.push(models[0], "base", "1.0.0")
    services = Services(folder)
    pid, spare = services.start(), 0
    asked: dict[str, str] = {}
    took_s = {"push": 0.5, "pull": 0.5}
    for number in range(kills):
        kind = ("push", "pull")[number % 2]
        paired = number % 4 >= 2
        if paired and not spare:
            spare = services.start()
        model = models[number // 2 % 4]
        target = root / f"out-{number}"
        if kind == "push":
            body = {"kind": "push", "path": str(model), "model": "m", "version": f"1.{number}.0"}
        else:
            body = {"kind": "pull", "model": "base", "version": "1.0.0", "path": str(target)}
        job = services.ask(pid, "POST", "/transfers", body, key=f"key-{number}")
        asked[job["id"]] = kind
        time.sleep(rng.random() * took_s[kind])
        state = services.ask(pid, "GET", f"/transfers/{job['id']}")
        victim = pid
        services.kill(victim)
        if paired:
            pid, spare = spare, 0
        else:
            pid = services.start()
        again = services.ask(pid, "POST", "/transfers", body, key=f"key-{number}")
        assert again["id"] == job["id"], "the same key gave another transfer"
        ended = services.ended(pid, job["id"])
        assert ended["state"] == "done", ended
        if ended["attempts"] == 1:  # whole: the next kill comes within such a time
            took_s[kind] = min(2.0, max(0.05, moment(ended["ended_at"]) - moment(ended["created_at"])))
        if kind == "push":
            repository.pull("m", f"1.{number}.0", folder / "check")
            assert tree(folder / "check") == tree(model)
        else:
            assert tree(target) == tree(models[0])
        left = [path.name for path in root.iterdir() if path.name.startswith(".")]
        assert not left, f"left behind: {left}"
        say(f"kill {number} {kind} {'paired' if paired else 'alone'} {state['state']} {ended['attempts']}")
    check_all(services, pid, repository, asked, [f"1.{number}.0" for number in range(0, kills, 2)])
    say("verified")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
