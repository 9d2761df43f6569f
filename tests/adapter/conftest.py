"""Machines that tests start."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator

import pytest

_PATIENCE_S = 120


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes that are ended with all of their own when the test is over."""
    found: list[subprocess.Popen[bytes]] = []
    yield found
    for one in found:
        if one.poll() is None:
            os.killpg(one.pid, signal.SIGKILL)
            one.wait(timeout=_PATIENCE_S)
