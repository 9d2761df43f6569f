"""Server processes that the workers of one test run share, and that never outlive it."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from free_ports import free_port

__all__ = ["shared_process"]

_START_TIMEOUT_S = 120.0
_KEEPER = Path(__file__).parent / "keeper.py"


@contextmanager
def shared_process(
    name: str,
    factory: pytest.TempPathFactory,
    command: Callable[[int, Path], tuple[Sequence[str], Mapping[str, str]]],
) -> Iterator[str]:
    """The URL of the server ``name``, which this or another worker of the run has started.

    ``command`` gets a port and an empty folder and returns what to run, and variables to add to the environment. The
    server is up when it answers HTTP. ``RuntimeError`` with the end of its log if it does not come up.
    """
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / f"server-{name}"
    folder.mkdir(exist_ok=True)
    users, state, log = folder / "users", folder / "state.json", folder / "log"
    with users.open("ab") as mine, (folder / "starting").open("ab") as starting:
        fcntl.flock(mine, fcntl.LOCK_SH)
        fcntl.flock(starting, fcntl.LOCK_EX)
        try:
            url = json.loads(state.read_text())["url"] if state.exists() else None
            if url is None or not _answers(url):
                work = folder / f"work-{time.monotonic_ns()}"
                work.mkdir()
                port = free_port()
                url = f"http://127.0.0.1:{port}"
                arguments, variables = command(port, work)
                keeper = subprocess.Popen(
                    [sys.executable, str(_KEEPER), str(users), str(log), *arguments],
                    cwd=work,
                    env={**os.environ, **variables},
                    stdin=subprocess.DEVNULL,
                    start_new_session=True,
                )
                _wait_until_up(name, keeper, url, log)
                state.write_text(json.dumps({"url": url}))
        finally:
            fcntl.flock(starting, fcntl.LOCK_UN)
        yield url


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=30):
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False


def _wait_until_up(name: str, process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        if _answers(url):
            return
        time.sleep(0.1)
    process.terminate()
    tail = log.read_text(errors="replace")[-2000:] if log.exists() else ""
    raise RuntimeError(f"{name} did not come up (exit status {process.poll()}):\n{tail}")
