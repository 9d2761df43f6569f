"""Fixtures for every folder of tests. What starts server processes lives in ``servers.py``."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(
    0, str(Path(__file__).parent)
)  # tests import `faults.proxy`, `servers` and `reference` by name

pytest_plugins = ["servers"]
