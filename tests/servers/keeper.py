"""Runs a server as long as somebody uses it: ``python keeper.py USERS LOG COMMAND...``.

Whoever uses the server holds a shared lock on the file ``USERS``; the kernel drops it when its holder dies, however it
dies. When nobody holds one any more, the server is stopped and its keeper ends.
"""

from __future__ import annotations

import fcntl
import subprocess
import sys
import time
from pathlib import Path

_LOOK_EVERY_S = 0.5


def main(users: str, log: str, *command: str) -> None:
    with Path(log).open("ab") as output, Path(users).open("rb") as file:
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
        while server.poll() is None:
            time.sleep(_LOOK_EVERY_S)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            break
        server.terminate()
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
