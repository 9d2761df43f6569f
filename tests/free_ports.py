"""Loopback ports for servers that tests and benches start as processes of their own."""

from __future__ import annotations

import fcntl
import os
import random
import socket
import tempfile
from pathlib import Path
from typing import Final

__all__ = ["free_port"]

# Below what Linux gives to connections and to whoever binds port 0: from there a port that was free a moment ago may be
# somebody's own end of a connection before the server has bound it.
_RANGE: Final = range(12_000, 32_000)
_random = random.Random(os.urandom(8))
# Each port that was given out stays locked for as long as this process lives: no other one gives it out, too.
_locks: list[int] = []


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on, and that no other call gives out before this process has ended."""
    folder = Path(tempfile.gettempdir(), f"textnlp-fast-ports-{os.getuid()}")
    folder.mkdir(exist_ok=True)
    while True:
        port = _random.choice(_RANGE)
        lock = os.open(folder / str(port), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with socket.socket() as probe:
                # As servers do: what is left of old connections is no reason not to listen.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(("0.0.0.0", port))
        except OSError:
            os.close(lock)
            continue
        _locks.append(lock)
        return port
