"""`textnlp-fast config show`, and commands that take the repository from settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CONFIG", "ENV_FILE", "PROVIDER", "THREADS", "AUDIT_KEY", "AWS_REGION"):
        monkeypatch.delenv(f"TEXTNLP_FAST_{name}", raising=False)
    for name in ("MODEL_STORAGE_BUCKET", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)


def test_it_shows_each_value_and_its_source_but_no_secret(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("threads: 3\n")
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    monkeypatch.setenv("TEXTNLP_FAST_AUDIT_KEY", "5ec2e7" * 12)
    shown = run("config", "show", "--config", file)
    lines = {line.split()[0]: line.split()[1:] for line in shown.out.splitlines()}
    assert lines["threads"] == ["3", str(file)]
    assert lines["aws_region"] == ["eu-west-1", "environment", "(AWS_REGION)"]
    assert lines["enable_compression"] == ["true", "default"]
    assert "5ec2e7" not in shown.out
    document = run("config", "show", "--config", file, "--json").document
    assert document["threads"] == {"value": 3, "source": str(file), "variables": ["TEXTNLP_FAST_THREADS"]}
    assert document["audit_key"]["value"] == "**********"


def test_a_password_in_a_url_is_not_shown(run: Any, tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("endpoint_url: https://me:5ec2e7@host:9000/x\nrepo: s3://a:5ec2e7@bucket/p@1\n")
    for words in ([], ["--json"]):
        shown = run("config", "show", "--config", file, *words)
        assert shown.code == 0
        assert "5ec2e7" not in shown.out
        assert "@host:9000/x" in shown.out


def test_a_mistake_in_a_file_is_told(run: Any, tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("thread: 3\n")
    outcome = run("config", "show", "--config", file)
    assert outcome.code == 2
    assert "'threads'" in outcome.err


def test_commands_find_the_repository_in_settings(
    run: Any, tmp_path: Path, models: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(f"model_storage_bucket: weights\nroot: {tmp_path}\nthreads: 1\n")
    monkeypatch.setenv("TEXTNLP_FAST_CONFIG", str(file))
    assert run("push", models[0], "m@1.0.0").code == 0
    assert (tmp_path / "weights" / "repository.json").is_file()
    assert [(one["name"], one["versions"]) for one in run("ls", "--json").document] == [("m", ["1.0.0"])]
    assert run("ls", "--repo", tmp_path / "other").code == 3  # an argument comes first
