"""The guide's examples run, one after the other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from delta.models import Model, weights, write

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "guide" / "load.md"


def test_the_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = ("layers.0.q_proj.weight", "layers.0.o_proj.weight", "norm.weight")
    model: Model = {"model.safetensors": {name: weights(n) for n, name in enumerate(names)}}
    write(model, tmp_path)
    found = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(found) >= 6
    scope: dict[str, object] = {}
    for example in found:
        exec(compile(example, str(GUIDE), "exec"), scope)
    part = scope["part"]
    assert isinstance(part, dict)
    assert [part[name].shape for name in names] == [(32, 128), (64, 64), (64, 128)]
