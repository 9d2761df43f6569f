"""Fixtures for every folder of tests. What starts server processes lives in ``servers.py``."""

from __future__ import annotations

import sys
from pathlib import Path

from hypothesis import settings

sys.path.insert(
    0, str(Path(__file__).parent)
)  # tests import `faults.proxy`, `servers` and `reference` by name

pytest_plugins = ["servers"]

# A busy machine is no reason to fail; a failure prints what to paste to see it again.
settings.register_profile("any machine", deadline=None, print_blob=True)
settings.load_profile("any machine")
