"""The verbs of `delta`: what they print, the JSON they print, and the codes they exit with."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from textnlp_fast.cli.arguments import PatchVerb
from textnlp_fast.cli.delta import VERBS, create
from textnlp_fast.delta.low_rank_recovery import EFFORTS
from textnlp_fast.delta.patch import STRATEGIES

Run = Any


@pytest.fixture
def patch(tmp_path: Path, models: tuple[Path, Path], run: Run) -> Path:
    done = run(
        "delta",
        "create",
        *models,
        "-o",
        tmp_path / "p.tnpatch",
        "--from",
        "1.0.0",
        "--to",
        "1.1.0",
        "--meta",
        "step=7",
    )
    assert done.code == 0
    assert "made" in done.out
    assert "p.tnpatch" in done.out
    return tmp_path / "p.tnpatch"


def test_there_and_back(tmp_path: Path, models: tuple[Path, Path], patch: Path, run: Run) -> None:
    done = run("delta", "apply", patch, models[0], tmp_path / "out")
    assert done.code == 0
    assert "version 1.1.0" in done.out
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "out" / name).read_bytes() == (models[1] / name).read_bytes()
    report = run("delta", "apply", patch, models[0], models[0], "--json", "--threads", 1).document
    assert report["kept_files"] == 1
    assert report["target_version"] == "1.1.0"
    assert (models[0] / "model.safetensors").read_bytes() == (models[1] / "model.safetensors").read_bytes()
    again = run("delta", "apply", patch, models[0], models[0])
    assert again.code == 0
    assert "complete now" in again.out


def test_a_single_file(tmp_path: Path, models: tuple[Path, Path], run: Run) -> None:
    old, new = (model / "model.safetensors" for model in models)
    made = run("delta", "create", old, new, "-o", tmp_path / "p", "--json").document
    assert made["raw_bytes"] == new.stat().st_size
    assert made["ratio"] == made["raw_bytes"] / made["patch_bytes"]
    assert run("delta", "apply", tmp_path / "p", old, tmp_path / "out.safetensors").code == 0
    assert (tmp_path / "out.safetensors").read_bytes() == new.read_bytes()


def test_inspect(patch: Path, run: Run) -> None:
    text = run("delta", "inspect", patch).out
    for word in (
        "1.0.0",
        "1.1.0",
        "weight",
        "content",
        "1 learned",
        "bits per weight",
        "step=7",
        "strategy auto",
    ):
        assert word in text
    assert "same" not in text.split("weight")[0]
    assert "source" in run("delta", "inspect", patch, "--all").out
    document = run("delta", "inspect", patch, "--json").document
    rows = {row["name"]: row for row in document["tensors"] if row["name"]}
    assert rows["same"]["recipe"] == "source"
    assert rows["weight"]["recipe"] == "content"
    assert rows["weight"]["frames"] == {"learned": 1}
    assert document["patch_bytes"] == patch.stat().st_size
    assert document["metadata"] == {"step": "7"}


def test_squash(tmp_path: Path, models: tuple[Path, Path], patch: Path, run: Run) -> None:
    back = tmp_path / "back.tnpatch"
    assert (
        run("delta", "create", models[1], models[0], "-o", back, "--from", "1.1.0", "--to", "1.2.0").code == 0
    )
    done = run("delta", "squash", patch, back, "-o", tmp_path / "both")
    assert done.code == 0
    assert "of 2 patches from 1.0.0 to 1.2.0" in done.out
    anew = run("delta", "squash", patch, back, "-o", tmp_path / "anew", "--source", models[0], "--json")
    assert anew.document["stored_contents"] == 0
    wrong = run("delta", "squash", back, back, "-o", tmp_path / "x")
    assert wrong.code == 2
    assert "does not follow" in wrong.err
    assert run("delta", "apply", tmp_path / "both", models[0], tmp_path / "out").code == 0


def test_codes(tmp_path: Path, models: tuple[Path, Path], patch: Path, run: Run) -> None:
    other = run("delta", "apply", patch, models[1], tmp_path / "out")
    assert other.code == 4
    assert "target already" in other.err
    assert not (tmp_path / "out").exists()
    assert run("delta", "create", *models, "-o", tmp_path / "q", "--strategy", "magic").code == 2
    assert run("delta", "create", *models, "-o", tmp_path / "q", "--adapter", tmp_path).code == 2
    assert run("delta", "create", *models, "-o", tmp_path / "q", "--meta", "x").code == 2
    assert run("delta", "create", *models).code == 2
    assert run("delta", "inspect", tmp_path / "none").code == 2
    patch.write_bytes(patch.read_bytes()[:-1])
    for words in (("inspect", patch), ("apply", patch, models[0], tmp_path / "out")):
        cut = run("delta", *words)
        assert cut.code == 5
        assert "hint:" in cut.err


def test_low_rank_changes_are_looked_for(tmp_path: Path, models: tuple[Path, Path], run: Run) -> None:
    options = ("--strategy", "low_rank", "--effort", "fast", "--json")
    report = run("delta", "create", *models, "-o", tmp_path / "q", *options).document
    assert (report["strategy"], report["unsearched_matrices"]) == ("low_rank", 0)
    assert run("delta", "inspect", tmp_path / "q", "--json").document["strategy"] == "low_rank"


def test_an_approximate_patch_and_its_promise(tmp_path: Path, models: tuple[Path, Path], run: Run) -> None:
    done = run("delta", "create", *models, "-o", tmp_path / "near", "--approximate", "max_ulp=100")
    assert done.code == 0
    assert "approximate (max_ulp=100)" in done.out
    assert "approximate (max_ulp=100)" in run("delta", "inspect", tmp_path / "near").out
    document = run("delta", "inspect", tmp_path / "near", "--json").document
    assert document["promise"]["weight"]["asked"] == {"max_ulp": 100}
    assert 0 < document["max_ulp"] <= 100
    against = ("--check-against", models[1])
    done = run("delta", "apply", tmp_path / "near", models[0], tmp_path / "out", *against)
    assert done.code == 0
    assert "as promised" in done.out
    wrong = ("--check-against", models[0])
    run("delta", "create", *models, "-o", tmp_path / "exact")
    done = run("delta", "apply", tmp_path / "exact", models[0], tmp_path / "other", *wrong)
    assert done.code == 5
    assert "weight" in done.err
    assert run("delta", "create", *models, "-o", tmp_path / "q", "--approximate", "much").code == 2


@pytest.mark.parametrize("verb", VERBS)
def test_help_waits_for_nothing_that_makes_patches(verb: str) -> None:
    code = (
        "import sys\n"
        "from textnlp_fast.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: print('numpy' in sys.modules, 'textnlp_fast.delta.patch' in sys.modules)\n"
    )
    words = [sys.executable, "-c", code, "delta", verb, "--help"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(words, capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.endswith("False False\n"), done.stdout[-200:]
    assert isinstance(import_module(f"textnlp_fast.cli.delta.{verb}").command, PatchVerb)


def test_the_choices_are_those_of_the_package() -> None:
    assert create.STRATEGIES == STRATEGIES
    assert tuple(EFFORTS) == create.EFFORTS


@pytest.mark.parametrize("verb", VERBS)
def test_help_has_an_example(verb: str, run: Run) -> None:
    done = run("delta", verb, "--help")
    assert done.code == 0
    assert f"textnlp-fast delta {verb}" in done.out
    assert VERBS[verb] in run("delta", "--help").out
