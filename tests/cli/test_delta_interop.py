"""`delta export` and `delta import`: what they print, and the codes they exit with."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from textnlp_fast.delta.interop import LAYOUTS, slime

pytest.importorskip("zstandard")

Run = Any


@pytest.fixture
def patch(tmp_path: Path, models: tuple[Path, Path], run: Run) -> Path:
    assert run("delta", "create", *models, "-o", tmp_path / "p.tnpatch").code == 0
    return tmp_path / "p.tnpatch"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_out_and_in_again(
    layout: str, tmp_path: Path, models: tuple[Path, Path], patch: Path, run: Run
) -> None:
    checksum = ["--checksum", "blake3"] if layout == "slime" else []
    done = run("delta", "export", layout, patch, models[0], "-o", tmp_path / "d", "--version", 7, *checksum)
    assert done.code == 0
    assert "1 tensor changed" in done.out
    done = run("delta", "import", layout, tmp_path / "d", models[0], "-o", tmp_path / "q", "--to", "7")
    assert done.code == 0
    assert "made" in done.out
    assert run("delta", "apply", tmp_path / "q", models[0], tmp_path / "out").code == 0
    name = "model.safetensors"
    assert (tmp_path / "out" / name).read_bytes() == (models[1] / name).read_bytes()


def test_json(tmp_path: Path, models: tuple[Path, Path], patch: Path, run: Run) -> None:
    (models[1] / "config.json").write_text("{ }")
    assert run("delta", "create", *models, "-o", patch).code == 0
    report = run("delta", "export", "sparse", patch, models[0], "-o", tmp_path / "d", "--json").document
    assert report["changed_tensors"] == 1
    assert report["left_out"] == ["config.json"]
    said = run("delta", "export", "sparse", patch, models[0], "-o", tmp_path / "e").out
    assert "left out" in said
    report = run(
        "delta", "import", "sparse", tmp_path / "d", models[0], "-o", tmp_path / "q", "--json"
    ).document
    assert report["ratio"] > 1


def test_codes(tmp_path: Path, models: tuple[Path, Path], patch: Path, run: Run) -> None:
    assert run("delta", "export", "sparse", patch, models[1], "-o", tmp_path / "d").code == 4
    assert (
        run("delta", "export", "slime", patch, models[0], "-o", tmp_path / "d", "--checksum", "adler32").code
        == 0
    )
    wrong = run("delta", "import", "slime", tmp_path / "d", models[1], "-o", tmp_path / "q")
    assert wrong.code == 5
    assert "SOURCE is not the version" in wrong.err
    assert run("delta", "import", "torch", tmp_path / "d", models[0], "-o", tmp_path / "q").code == 2


def test_choices_are_the_layouts() -> None:
    for verb in ("import", "export"):
        assert import_module(f"textnlp_fast.cli.delta.{verb}").LAYOUTS == LAYOUTS
    assert import_module("textnlp_fast.cli.delta.export").CHECKSUMS == slime.CHECKSUMS
