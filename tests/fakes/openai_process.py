"""The engine of `openai_engine.py` as a process."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any

from free_ports import free_port

__all__ = ["EngineProcess"]

_ENGINE = Path(__file__).parent / "openai_engine.py"


class EngineProcess:
    """An engine as a process, which can be killed; `set` changes what it says of itself."""

    def __init__(self, name: str, *, slots: int = 4, token_s: float = 0.02, port: int = 0) -> None:
        self.name, self.port = name, port or free_port()
        self.process = subprocess.Popen(
            [
                sys.executable,
                str(_ENGINE),
                str(self.port),
                name,
                "--slots",
                str(slots),
                "--token-s",
                str(token_s),
            ]
        )
        end = time.monotonic() + 60
        while True:
            with suppress(OSError):
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            assert self.process.poll() is None and time.monotonic() < end, "the engine did not start"
            time.sleep(0.02)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def set(self, **what: Any) -> None:
        data = json.dumps(what).encode()
        urllib.request.urlopen(f"http://{self.address}/set", data, timeout=30).read()

    def served(self) -> int:
        text = urllib.request.urlopen(f"http://{self.address}/metrics", timeout=30).read().decode()
        return int(float(text.strip().rpartition(" ")[2]))

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
