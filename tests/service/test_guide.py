"""The guide: its examples run, its options exist, its metrics are those that there are."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from textnlp_fast.cli.serve import command
from textnlp_fast.service.auth.principals import Role
from textnlp_fast.storage import Repository

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "guide" / "service.md"


def test_its_python_runs(filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models").symlink_to(filled)
    monkeypatch.chdir(tmp_path)
    examples = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    assert examples
    scope: dict[str, Any] = {}
    for example in examples:
        exec(compile(example, "service.md", "exec"), scope)
    scope["app"].state.service.close()


def test_its_options_and_roles_exist() -> None:
    text = GUIDE.read_text()
    known = {name for option in command.params for name in option.opts}
    used = {word for line in text.splitlines() for word in re.findall(r"(?<![\w-])--[a-z][a-z-]+", line)}
    assert used - {"--cacert"} <= known, used - known
    assert {role.word for role in Role} == set(re.findall(r"^\| `(\w+)` \| (?:`/|all)", text, re.MULTILINE))


async def test_its_requests_are_answered(filled: Path, serving: Any) -> None:
    paths = re.findall(r"curl '(?:http://127.0.0.1:8470)(/[^']*)'", GUIDE.read_text())
    assert len(paths) == 3
    async with serving(filled) as client:
        for path in paths:
            assert (await client.get(path)).status_code == 200, path


async def test_its_metrics_are_those_that_there_are(filled: Path, serving: Any) -> None:
    async with serving(filled) as client:
        await client.get("/api/v1/models")
        served = (await client.get("/metrics")).text
    names = set(re.findall(r"^# TYPE (textnlp_fast_(?:http|service)_\w+) ", served, re.MULTILINE))
    names = {name for name in names if not name.endswith("_created")}
    text = GUIDE.read_text()
    for name in names:
        assert name in text or f"`_{name.removeprefix('textnlp_fast_service_')}`" in text, name


def test_the_demo_s_repository_is_made_once_and_whole(tmp_path: Path) -> None:
    script = GUIDE.parents[2] / "examples" / "demo_repository.py"
    for said in ("is in", "is there already"):
        done = subprocess.run(
            [sys.executable, str(script), str(tmp_path / "demo")],
            capture_output=True,
            text=True,
            timeout=300,
            check=True,
        )
        assert said in " ".join(done.stdout.split())
    repository = Repository.open(tmp_path / "demo")
    assert {name: len(versions) for name, versions in repository.models().items()} == {
        "demo/tiny-llama": 5,
        "demo/tiny-llama-chat": 1,
    }
    assert repository.verify(deep=False).ok
