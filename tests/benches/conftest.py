"""The benches are scripts that import each other by name; their tests do the same."""

from __future__ import annotations

import sys
from pathlib import Path

BENCHES = Path(__file__).resolve().parents[2] / "benches"

# Tests that run without the sources beside them have no benches to test.
collect_ignore_glob = [] if BENCHES.is_dir() else ["test_*.py"]
sys.path.append(str(BENCHES))
