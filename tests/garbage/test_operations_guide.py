"""The guide's examples run, one after the other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from storage.conftest import Makers
from textnlp_fast.storage import Repository, TransferOptions

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "guide" / "operations.md"


def test_the_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    options = TransferOptions(shard_bytes=1 << 16, prices=None)
    repository = Repository.open("weights", create=True, options=options, window_bytes=1 << 12)
    tensors = Makers.tensors()
    for number in range(5):
        Makers.directory(tmp_path / f"model-1.{number}.0", tensors)
        repository.push(f"model-1.{number}.0", "m", f"1.{number}.0")
        tensors = Makers.nudge(tensors, number, 0.4)
    found = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(found) >= 5
    scope: dict[str, object] = {}
    for example in found:
        exec(compile(example, str(GUIDE), "exec"), scope)
    assert repository.models() == {"m": ["1.3.0", "1.4.0"]}
