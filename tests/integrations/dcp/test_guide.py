"""The guide's example runs as it stands."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from integrations.dcp.forking import Launcher
from textnlp_fast.cli import main
from textnlp_fast.storage import Repository

GUIDE = Path(__file__).resolve().parents[3] / "docs" / "guide" / "dcp.md"


def test_the_example(ranks: Launcher, tmp_path: Path) -> None:
    code = GUIDE.read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    root = tmp_path / "repository"
    assert ranks.run("example", 4, url=str(root), code=code) == [[True, True]] * 4
    repository = Repository.open(root)
    assert repository.versions("my-model") == ["0.0.1", "0.0.2", "0.0.3"]
    command = ["merge", "my-model@0.0.3", str(tmp_path / "model"), "--repo", str(root)]
    with pytest.raises(SystemExit, match="0"):
        main(command)
    ((name, tensor),) = load_file(tmp_path / "model" / "model.safetensors").items()
    expected = np.zeros((4, 16, 32), np.float32)
    expected[:, :3] = 1  # each step adds one to a row of each rank
    assert name == "w"
    assert np.array_equal(tensor, expected.reshape(64, 32))


def test_the_example_of_fsdp(ranks: Launcher, tmp_path: Path) -> None:
    code = GUIDE.read_text(encoding="utf-8").split("```python\n")[2].split("```")[0]
    assert ranks.run("guide_fsdp", 2, url=str(tmp_path / "repository"), code=code) == [True] * 2


def test_the_fields_of_a_report_are_those_of_the_guide() -> None:
    pytest.importorskip("torch")
    from textnlp_fast.integrations.torch_dcp.publishing import SaveReport  # noqa: PLC0415

    text = GUIDE.read_text(encoding="utf-8")
    line = text[text.index("`writer.report` has") :].split("\n\n")[0]
    assert all(f"`{name}`" in line for name in SaveReport.__slots__)


def test_without_torch_it_says_what_is_missing() -> None:
    code = "import sys; sys.modules['torch'] = None; import textnlp_fast.integrations.torch_dcp"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode != 0
    assert "MissingPackageError" in done.stderr
    assert "pip install torch" in done.stderr
