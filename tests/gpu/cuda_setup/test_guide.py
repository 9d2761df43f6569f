"""The guide's commands and its Python run as they stand there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from fakes.cuda_machine import CudaMachine
from fakes.cuda_machine.situations import SITUATIONS
from textnlp_fast.cli.gpu.doctor import command
from textnlp_fast.gpu.cuda_setup import report as reporting
from textnlp_fast.gpu.cuda_setup.rules import RULES
from textnlp_fast.gpu.cuda_setup.tables import NEWEST_CUDA

GUIDE = (Path(__file__).resolve().parents[3] / "docs/guide/gpu-doctor.md").read_text(encoding="utf-8")


def test_its_commands_are_commands() -> None:
    lines = re.findall(r"^textnlp-fast gpu doctor.*$", GUIDE, re.MULTILINE)
    assert len(lines) == 4
    for line in lines:
        words = shlex.split(re.split(r"&&|>", line)[0])[3:]
        command.make_context("doctor", words)


def test_its_python_runs(
    fake: CudaMachine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    SITUATIONS["PyTorch for CUDA 13 on a driver of CUDA 12"].build(fake)
    monkeypatch.setattr(reporting, "Machine", fake.machine)
    (block,) = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
    exec(compile(block, "gpu-doctor.md", "exec"), {})
    out = capsys.readouterr().out
    assert out.endswith("False 550.54.14\n")
    # The sentence that the guide shows is the one that is printed.
    assert out.splitlines()[0] in GUIDE


def test_its_groups_and_its_newest_release_are_those_of_the_rules() -> None:
    for group in {rule.group for rule in RULES}:
        assert f"| {group} |" in GUIDE
    assert f"CUDA {NEWEST_CUDA[0]}.{NEWEST_CUDA[1]}" in GUIDE
