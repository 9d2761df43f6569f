"""A store that takes connections and never answers: a terminal is told whom the command waits for."""

from __future__ import annotations

import os
import pty
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest


@pytest.fixture
def silent_store() -> Iterator[str]:
    """The endpoint of a store whose connections are accepted by the kernel, and by nobody else."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(64)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def _environment(endpoint: str) -> dict[str, str]:
    return os.environ | {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
    }


@pytest.mark.parametrize(
    "words", [["ls", "--repo", "s3://bucket/models"], ["download", "s3://bucket/a", "/nowhere/out"]]
)
def test_a_terminal_is_told_whom_a_silent_command_waits_for(silent_store: str, words: list[str]) -> None:
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "textnlp_fast.cli", *words]
    environment = _environment(silent_store)
    piped = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
    process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=environment)
    os.close(slave)
    try:
        said, deadline = b"", time.monotonic() + 60
        while b"waiting for s3://bucket" not in said and time.monotonic() < deadline:
            if select.select([master], [], [], 1.0)[0]:
                said += os.read(master, 4096)
        assert b"waiting for s3://bucket" in said
        assert process.poll() is None
        piped.kill()
        assert piped.communicate(timeout=60) == (b"", b"")  # it began earlier, and nobody looks at it
    finally:
        piped.kill()
        process.kill()
        process.wait(timeout=60)
        os.close(master)
