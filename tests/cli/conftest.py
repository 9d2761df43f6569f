"""The command line, run in this process, and two versions of a model to run it on."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from textnlp_fast.cli import main
from textnlp_fast.config import Settings
from textnlp_fast.config.settings import PREFIX, names_of


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Outcome]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the command line with these words."""
    monkeypatch.delenv("TEXTNLP_FAST_REPO", raising=False)

    def call(*words: object) -> Outcome:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(word) for word in words])
        captured = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return Outcome(ended.value.code, captured.out, captured.err)

    return call


def write_model(folder: Path, bump: int, *, every: int = 97) -> Path:
    rng = np.random.default_rng(0)
    weights = (rng.normal(0, 0.02, 4096).astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    weights[::every] += bump
    header = b'{"same":{"dtype":"BF16","shape":[8],"data_offsets":[0,16]},'
    header += b'"weight":{"dtype":"BF16","shape":[4096],"data_offsets":[16,8208]}}'
    folder.mkdir()
    body = np.arange(8, dtype=np.uint16).tobytes() + weights.tobytes()
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + body)
    (folder / "config.json").write_text("{}")
    return folder


@pytest.fixture
def models(tmp_path: Path) -> tuple[Path, Path]:
    """Two versions of a model; 43 weights of the second are one ULP higher."""
    return write_model(tmp_path / "v1", 0), write_model(tmp_path / "v2", 1)


@pytest.fixture
def place(tmp_path: Path, models: tuple[Path, Path], run: Run) -> Path:
    """A repository that holds both as m@1.0.0 and m@1.1.0."""
    place = tmp_path / "repository"
    assert run("push", models[0], "m@1.0.0", "--repo", place, "-m", "first").code == 0
    assert run("push", models[1], "m@1.1.0", "--repo", place).code == 0
    return place


@pytest.fixture
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting comes from the machine that runs the tests."""
    for name in Settings.model_fields:
        for variable in names_of(name):
            monkeypatch.delenv(variable, raising=False)
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        monkeypatch.delenv(name)
