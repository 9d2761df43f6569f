"""kill -9 at fifty random moments: the repository opens, `verify` is clean, the next push succeeds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_killed_pushes(tmp_path: Path) -> None:
    script = Path(__file__).with_name("killed_pushes.py")
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path), "50", "20250"],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    lines = [line for line in done.stdout.splitlines() if line.startswith("kill ")]
    assert len(lines) == 50
    left = [int(line.split()[-1]) for line in done.stdout.splitlines() if line.startswith("left behind")]
    assert len(left) == 50
    assert any(left), "no kill came in the middle of a push: the test proves nothing"
