"""The guide of rollouts: its files can be read, its Python runs, its commands have the options that it names."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import numpy as np

from adapter.rollout.fleet import publish
from textnlp_fast.adapter import parse_deployment
from textnlp_fast.adapter.rollout import pool_file
from textnlp_fast.cli.program import group

GUIDE = (Path(__file__).parents[3] / "docs" / "guide" / "rollouts.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", GUIDE, re.DOTALL)


def test_its_files_are_read(tmp_path: Path) -> None:
    description, agents = blocks("yaml")
    assert parse_deployment(description).rollout.strategy == "canary"
    (tmp_path / "agents.yaml").write_text(agents)
    replicas, spares = pool_file.read_pool(tmp_path / "agents.yaml")
    assert (len(replicas), spares) == (3, {"10.0.0.3:8000"})


def test_its_python_runs(tmp_path: Path, monkeypatch: Any) -> None:
    swapping, rolling = blocks("python")
    names: dict[str, Any] = {}
    publish(str(tmp_path / "repository"), "1.0.0", 1)
    exec(
        compile(swapping.replace("s3://bucket/models", str(tmp_path / "repository")), "rollouts.md", "exec"),
        names,
    )
    monkeypatch.setattr("textnlp_fast.adapter.rollout.agent.DEFAULT_AGENT_PORT", 0)
    names["ReplicaAgent"] = lambda *given, **more: SimpleNamespace(given=given, more=more)
    gate, agent = names["serve"]({"w": np.zeros((64, 256), dtype=np.float32)}, str(tmp_path))
    assert gate.is_open
    assert agent.given[0].look().serving == "1.0.0"
    exec(compile(rolling, "rollouts.md", "exec"), names)
    assert callable(names["roll_out"])


def test_its_commands_have_these_options() -> None:
    context = click.Context(group)
    deploy = group.get_command(context, "deploy")
    assert isinstance(deploy, click.Group)
    text = GUIDE.replace("\\\n", " ")
    lines = re.findall(r"^textnlp-fast deploy (\w+) (.*)$", text, re.MULTILINE)
    assert {verb for verb, _ in lines} == {"agent", "apply", "status", "rollback"}
    for verb, rest in lines:
        command = deploy.get_command(context, verb)
        assert command is not None
        known = {option for parameter in command.params for option in parameter.opts}
        assert set(re.findall(r"--[a-z-]+", rest.partition(" -- ")[0])) <= known


def test_agents_beside_addresses() -> None:
    (one,) = pool_file.agents_beside(["10.0.0.1:8000"])
    assert one.agent == "http://10.0.0.1:9402"
