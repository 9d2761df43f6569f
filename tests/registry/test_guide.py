"""The guide's examples run, one after the other: the Python ones, then what it says for the command line."""

from __future__ import annotations

import ast
import inspect
import json
import shlex
from pathlib import Path

import pytest

from cli.conftest import Outcome
from registry.conftest import write_model
from textnlp_fast.cli import main
from textnlp_fast.storage.registry.subscriptions import read_webhooks

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "guide" / "registry.md"


def blocks(language: str) -> list[str]:
    """The fenced blocks of a language; "" for those that name none."""
    fences = GUIDE.read_text(encoding="utf-8").split("```")[1::2]
    return [text for name, _, text in (fence.partition("\n") for fence in fences) if name == language]


async def test_the_examples_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TEXTNLP_FAST_REPO", "registry-repository")
    monkeypatch.setenv("TEXTNLP_FAST_ACTOR", "alice")
    for seed, name in enumerate(("model.safetensors", "tuned.safetensors")):
        write_model(tmp_path / name, seed)
    found = blocks("python")
    assert len(found) >= 10
    scope: dict[str, object] = {}
    for example in found:
        ran = eval(compile(example, str(GUIDE), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), scope)
        if inspect.isawaitable(ran):
            await ran
    for document in blocks("json"):
        assert read_webhooks(json.loads(document)["webhooks"])
    lines = [line for block in blocks("") for line in block.splitlines() if line.startswith("textnlp-fast ")]
    assert len(lines) >= 15
    for line in lines:
        ended = _run(line, capsys)
        # The guide's stages come in the order of its text; the Python examples moved these versions already.
        expected = (0, 2) if " stage " in line or " card " in line else (0,)
        assert ended.code in expected, (line, ended.err)


def _run(line: str, capsys: pytest.CaptureFixture[str]) -> Outcome:
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(shlex.split(line)[1:])
    said = capsys.readouterr()
    assert isinstance(ended.value.code, int)
    return Outcome(ended.value.code, said.out, said.err)
