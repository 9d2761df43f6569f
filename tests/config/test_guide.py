"""The guides to settings, security and metrics: their examples run, and their tables are complete."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from textnlp_fast.config.settings import Settings, names_of

ROOT = Path(__file__).resolve().parents[2]
GUIDES = ROOT / "docs" / "guide"


def text_of(guide: str) -> str:
    return (GUIDES / f"{guide}.md").read_text(encoding="utf-8")


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of the guides: a model, and the committed settings."""
    for name in Settings.model_fields:
        for variable in names_of(name):
            monkeypatch.delenv(variable, raising=False)
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "config", tmp_path / "config")
    (tmp_path / "my-model").mkdir()
    body = np.random.default_rng(0).bytes(4096)
    header = b'{"w":{"dtype":"U8","shape":[4096],"data_offsets":[0,4096]}}'
    (tmp_path / "my-model" / "model.safetensors").write_bytes(
        len(header).to_bytes(8, "little") + header + body
    )
    return tmp_path


def run_examples(guide: str, least: int) -> None:
    found = re.findall(r"```python\n(.*?)```", text_of(guide), re.DOTALL)
    assert len(found) >= least
    scope: dict[str, object] = {}
    for example in found:
        exec(compile(example, f"{guide}.md", "exec"), scope)


def test_the_examples_of_the_settings_run(model: Path) -> None:
    run_examples("configuration", 1)


def test_the_examples_of_security_run(model: Path) -> None:
    pytest.importorskip("cryptography")
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make keys with")
    commands = re.findall(r"^openssl (ec.*)$", text_of("security"), re.MULTILINE)
    assert len(commands) == 2
    for command in commands:
        subprocess.run(["openssl", *command.split()], check=True, capture_output=True, timeout=60)
    run_examples("security", 3)


def test_the_examples_of_metrics_run(model: Path) -> None:
    pytest.importorskip("prometheus_client")
    pytest.importorskip("opentelemetry")
    run_examples("metrics", 3)


def test_every_setting_is_in_the_guide_with_its_variable_and_meaning() -> None:
    rows = {
        cells[0].strip("`"): cells[1:]
        for line in text_of("configuration").splitlines()
        if line.startswith("| `")
        for cells in [[cell.strip() for cell in line.strip("|").split("|")]]
    }
    assert list(rows) == list(Settings.model_fields)
    for name, field in Settings.model_fields.items():
        assert rows[name][2] == field.description
        others = [variable for variable in names_of(name) if not variable.startswith("TEXTNLP_FAST_")]
        assert rows[name][0].strip("`") == "".join(others)


def test_every_metric_is_in_the_guide() -> None:
    client = pytest.importorskip("prometheus_client")
    from textnlp_fast.telemetry.metrics import PrometheusMetrics  # noqa: PLC0415

    registry = client.CollectorRegistry()
    PrometheusMetrics(registry)
    guide = text_of("metrics")
    for family in registry.collect():
        suffix = family.name.removeprefix("textnlp_fast")
        assert f"textnlp_fast{suffix}" in guide or f"`{suffix}" in guide, family.name
