"""`textnlp-fast gpu doctor`: what it prints, writes and exits with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cli.conftest import Run
from fakes.cuda_machine import CudaMachine
from fakes.cuda_machine.situations import SITUATIONS
from textnlp_fast.gpu.cuda_setup import report as reporting


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CudaMachine:
    """The machine that the command examines."""
    for name in ("root", "site"):
        (tmp_path / name).mkdir()
    fake = CudaMachine(tmp_path / "root", tmp_path / "site")
    monkeypatch.setattr(reporting, "Machine", fake.machine)
    return fake


def build(fake: CudaMachine, situation: str) -> None:
    SITUATIONS[situation].build(fake)


def test_a_machine_that_is_well(fake: CudaMachine, run: Run) -> None:
    build(fake, "one healthy T4")
    outcome = run("gpu", "doctor")
    assert outcome.code == 0
    assert "Ubuntu 24.04.3 LTS, kernel 6.8.0-87-generic, x86_64" in outcome.out
    assert "The driver shows 1 x Tesla T4, 15 GiB, compute capability 7.5." in outcome.out
    assert outcome.out.rstrip().endswith("All is well.")


def test_a_problem_is_shown_with_its_evidence_and_commands(fake: CudaMachine, run: Run) -> None:
    build(fake, "PyTorch for CUDA 13 on a driver of CUDA 12")
    outcome = run("gpu", "doctor")
    assert outcome.code == 1
    lines = outcome.out.splitlines()
    place = next(number for number, line in enumerate(lines) if line.startswith("  PROBLEM PyTorch 2.11.0"))
    below = "\n".join(lines[place : place + 6])
    assert "CUDA 13 needs 580.65.06 or newer" in below
    # A command is one line, to be copied.
    assert (
        "            $ /usr/bin/python3 -m pip install --force-reinstall 'torch<2.15' "
        "--index-url https://download.pytorch.org/whl/cu126" in lines
    )
    assert lines[-1] == "1 problem."


def test_the_same_commands_are_shown_once(fake: CudaMachine, run: Run) -> None:
    build(fake, "Fabric Manager is not installed")
    out = run("gpu", "doctor").out
    assert out.count("systemctl enable --now nvidia-fabricmanager") == 1
    assert "the same commands as above" in out


def test_warnings_are_no_failure(fake: CudaMachine, run: Run) -> None:
    build(fake, "no huge pages")
    outcome = run("gpu", "doctor")
    assert outcome.code == 0
    assert outcome.out.rstrip().endswith("No problems, 1 warning.")


def test_no_gpu_is_a_problem_only_where_one_is_required(fake: CudaMachine, run: Run) -> None:
    build(fake, "no GPU at all")
    assert run("gpu", "doctor").code == 0
    assert "All is well, without a GPU." in run("gpu", "doctor").out
    outcome = run("gpu", "doctor", "--require-gpu")
    assert outcome.code == 1
    assert "PROBLEM This machine has no NVIDIA GPU" in outcome.out


def test_a_gpu_that_no_driver_shows_does_not_meet_a_requirement(fake: CudaMachine, run: Run) -> None:
    build(fake, "nvidia-smi fails with a driver loaded")
    document = run("gpu", "doctor", "--require-gpu", "--json").document
    assert [one["level"] for one in document["verdicts"] if one["rule"] == "gpu-present"] == ["problem"]


def test_the_document_for_scripts(fake: CudaMachine, run: Run) -> None:
    build(fake, "two CuPys")
    outcome = run("gpu", "doctor", "--json")
    assert outcome.code == 1
    document = outcome.document
    assert document["format"] == 1
    assert (document["healthy"], document["has_gpu"]) == (False, True)
    (bad,) = [one for one in document["verdicts"] if one["level"] == "problem"]
    assert bad["rule"] == "cupy"
    assert set(bad) == {"rule", "group", "level", "summary", "evidence", "commands", "source"}
    assert document["facts"]["driver"]["version"] == "580.95.05"
    assert document["facts"]["gpus"][0]["compute_capability"] == [8, 0]
    assert document["facts"]["packages"]["cupy-cuda13x"]["version"] == "14.2.0"


def test_verbose_shows_what_every_verdict_rests_on(fake: CudaMachine, run: Run) -> None:
    build(fake, "PyTorch for CUDA 11 on a Hopper that it knows")
    assert "minor version compatibility" in run("gpu", "doctor", "-v").out
    assert "compiled for sm_37" in run("gpu", "doctor", "-v").out
    assert "compiled for sm_37" not in run("gpu", "doctor").out


def test_optional_parts_are_named_with_the_command_that_adds_them(fake: CudaMachine, run: Run) -> None:
    build(fake, "optional parts of this package")
    outcome = run("gpu", "doctor")
    assert outcome.code == 0
    assert "Optional parts of textnlp-fast: gpu installed; not: aws." in outcome.out
    assert "$ /usr/bin/python3 -m pip install 'textnlp-fast[aws]'" in outcome.out


def test_the_environment_file(
    fake: CudaMachine, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(fake, "nvcc is not on PATH")
    monkeypatch.chdir(tmp_path)
    outcome = run("gpu", "doctor", "--write-env", "cuda.env")
    assert outcome.out.rstrip().endswith("cuda.env written: use it with `. ./cuda.env`")
    script = '. ./cuda.env; echo "$CUDA_HOME"'
    done = subprocess.run(
        ["sh", "-eu", "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout == "/usr/local/cuda-13.0\n"
    assert "is as it should be" in run("gpu", "doctor", "--write-env", "cuda.env").out
    outcome = run("gpu", "doctor", "--write-env", "nowhere/cuda.env")
    assert outcome.code == 2
    assert "there is no folder nowhere" in outcome.err
    assert not (tmp_path / "nowhere").exists()
    (tmp_path / "mine").write_text("mine\n")
    outcome = run("gpu", "doctor", "--write-env", "mine")
    assert outcome.code == 2
    assert "was not written by this command" in outcome.err
    assert (tmp_path / "mine").read_text() == "mine\n"


def test_what_a_machine_says_cannot_steer_the_terminal(fake: CudaMachine, run: Run) -> None:
    build(fake, "one healthy T4")
    fake.write(
        "/etc/os-release", 'ID=ubuntu\nPRETTY_NAME="\x1b]0;title\x07[bold]Ubuntu"\nVERSION_ID="24.04"\n'
    )
    out = run("gpu", "doctor").out
    assert "\x1b]0" not in out
    assert "\x07" not in out
    assert "[bold]Ubuntu" in out


def test_help_says_how_it_ends(run: Run) -> None:
    out = run("gpu", "doctor", "--help").out
    assert "Exit codes: 0 nothing is a problem" in " ".join(out.split())
    assert "doctor" in run("gpu", "--help").out


def test_this_very_machine(tmp_path: Path) -> None:
    """In a process of its own: nothing of PyTorch or of NVIDIA's bindings may come into it."""
    script = (
        "import sys\n"
        "from textnlp_fast.gpu.cuda_setup import examine\n"
        "report = examine()\n"
        "import json\n"
        "loaded = [name for name in ('torch', 'pynvml', 'cupy', 'jax', 'vllm') if name in sys.modules]\n"
        "print(json.dumps([loaded, report.to_document()]))\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env=environment,
    )
    loaded, document = json.loads(done.stdout)
    assert loaded == []
    assert document["verdicts"]
    rules = {one["rule"]: one["level"] for one in document["verdicts"]}
    assert "gpu-present" in rules
    if not Path("/proc/driver/nvidia").exists() and not document["facts"]["driver"]["pci"]:
        assert document["has_gpu"] is False
        assert rules["gpu-present"] in {"ok", "unknown"}
    for toolkit in document["facts"]["toolkits"]:
        assert Path(toolkit["path"]).is_dir()
