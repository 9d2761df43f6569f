"""A machine to build, and the situations that all rules are tried on."""

from __future__ import annotations

from pathlib import Path

import pytest

from fakes.cuda_machine import CudaMachine


@pytest.fixture
def fake(tmp_path: Path) -> CudaMachine:
    """A machine that has nothing yet."""
    (tmp_path / "site").mkdir()
    (tmp_path / "root").mkdir()
    return CudaMachine(tmp_path / "root", tmp_path / "site")
