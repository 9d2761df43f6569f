"""Fixtures for every folder of tests. What starts server processes lives in ``servers.py``."""

from __future__ import annotations

import sys
from pathlib import Path

from hypothesis import settings

# Tests import `faults.proxy`, `servers`, `attacks` and `reference` by name.
sys.path.insert(0, str(Path(__file__).parent))

pytest_plugins = ["servers"]

# A busy machine is no reason to fail; a failure prints what to paste to see it again.
settings.register_profile("any machine", deadline=None, print_blob=True)
settings.load_profile("any machine")
