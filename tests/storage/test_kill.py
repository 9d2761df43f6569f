"""kill -9 at random moments: the repository opens, `verify` is clean, the next push succeeds."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

# A number of kills makes it the nightly run, whose moments are others each night.
KILLS = int(os.environ.get("TEXTNLP_FAST_KILLS", "25"))
SEED = 20250 if "TEXTNLP_FAST_KILLS" not in os.environ else random.SystemRandom().randrange(1 << 30)


@pytest.mark.slow
def test_killed_pushes(tmp_path: Path) -> None:
    script = Path(__file__).with_name("killed_pushes.py")
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path), str(KILLS), str(SEED)],
        capture_output=True,
        text=True,
        timeout=120 + 20 * KILLS,
        check=False,
    )
    assert done.returncode == 0, f"seed {SEED}\n" + done.stdout[-2000:] + done.stderr[-4000:]
    lines = [line for line in done.stdout.splitlines() if line.startswith("kill ")]
    assert len(lines) == KILLS
    left = [int(line.split()[-1]) for line in done.stdout.splitlines() if line.startswith("left behind")]
    assert len(left) == KILLS
    assert any(left), "no kill came in the middle of a push: the test proves nothing"
