"""What an installed package tells other projects by its entry points, read as those projects read it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from integrations.libraries.conftest import Shelf

tomllib: Any = pytest.importorskip("tomllib")
PROJECT = Path(__file__).resolve().parents[3] / "pyproject.toml"


@pytest.fixture
def installed(tmp_path: Path) -> dict[str, str]:
    """The environment of a process that sees the entry points as an installation would write them."""
    groups = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]["entry-points"]
    info = tmp_path / "site" / "textnlp_fast_entry_points-0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: textnlp-fast-entry-points\nVersion: 0\n")
    (info / "entry_points.txt").write_text(
        "".join(
            f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in found.items())
            for group, found in groups.items()
        )
    )
    path = os.pathsep.join([str(tmp_path / "site"), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path}


def run(code: str, environment: dict[str, str], *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_fsspec_finds_the_file_system(installed: dict[str, str], shelf: Shelf) -> None:
    pytest.importorskip("fsspec")
    code = (
        "import sys, fsspec\n"
        "print(fsspec.open('textnlp://org/tiny@latest/config.json', repo=sys.argv[1]).open().read())"
    )
    assert "hidden_size" in run(code, installed, shelf.path)


def test_mlflow_finds_the_artifacts(installed: dict[str, str], shelf: Shelf) -> None:
    pytest.importorskip("mlflow")
    code = (
        "import sys\nfrom mlflow.store.artifact.artifact_repository_registry import get_artifact_repository\n"
        "print([each.path for each in get_artifact_repository(sys.argv[1]).list_artifacts()])"
    )
    assert "config.json" in run(code, installed, f"textnlp://org/tiny@1.0.0?repo={shelf.path}")


def test_the_plugin_of_vllm_is_there(installed: dict[str, str]) -> None:
    code = (
        "from importlib.metadata import entry_points\n"
        "points = {each.value: each for each in entry_points(group='vllm.general_plugins') if each.name == 'textnlp'}\n"
        "(point,) = points.values()\n"  # where the package is installed, it has told so already
        "print(point.load().__module__)"
    )
    assert run(code, installed).strip() == "textnlp_fast.integrations.vllm_loader"
