"""The guide's examples run, one after the other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "guide" / "transfers.md"


@pytest.mark.skipif(not GUIDE.exists(), reason="the sources are not here")
def test_the_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(found) >= 4
    scope: dict[str, object] = {"__name__": "guide"}
    for example in found:
        exec(compile(example, str(GUIDE), "exec"), scope)
    assert (tmp_path / "again.bin").read_bytes() == (tmp_path / "model.bin").read_bytes()
