"""The guide's examples run, one after the other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from storage.sharding.shard_models import llama, write_model

GUIDE = Path(__file__).resolve().parents[3] / "docs" / "guide" / "sharding.md"


def test_the_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path / "model", llama(kv_heads=2))
    found = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(found) == 7
    scope: dict[str, object] = {}
    for example in found:
        exec(compile(example, str(GUIDE), "exec"), scope)
    made = {"shards", "chosen", "ranks", "four", "layers", "merged", "from-version", "async-shards"}
    assert made <= {path.name for path in tmp_path.iterdir()}
