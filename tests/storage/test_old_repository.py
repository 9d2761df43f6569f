"""A repository of format 1, made once and committed, opens for ever.

`make_old_repository.py` beside this file made it; nobody has a reason to run that again.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from textnlp_fast.storage import Repository

VECTORS = Path(__file__).parents[1] / "vectors" / "repository"


@pytest.fixture
def old(tmp_path: Path) -> Repository:
    shutil.copytree(VECTORS / "format-1", tmp_path / "repository")
    return Repository.open(tmp_path / "repository")


def test_every_version_comes_back(tmp_path: Path, old: Repository) -> None:
    expected = json.loads((VECTORS / "expected.json").read_text())
    assert old.models() == {"org/tiny": list(expected)}
    for version, files in expected.items():
        old.pull("org/tiny", version, tmp_path / "out")
        for path, digest in files.items():
            assert hashlib.sha256((tmp_path / "out" / path).read_bytes()).hexdigest() == digest, path
    assert old.verify().ok


def test_the_next_version_goes_on_top(tmp_path: Path, old: Repository) -> None:
    old.pull("org/tiny", "1.2.0", tmp_path / "model")
    report = old.push(tmp_path / "model", "org/tiny", "1.3.0")
    assert report.parent == "org/tiny@1.2.0"
    assert report.new_contents == 0
