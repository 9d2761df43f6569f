"""Commands add what they did to a file of metrics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("prometheus_client")


def test_commands_write_their_metrics(
    run: Any, tmp_path: Path, models: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "metrics.prom"
    monkeypatch.setenv("TEXTNLP_FAST_METRICS_FILE", str(file))
    place = tmp_path / "r"
    assert run("push", models[0], "m@1.0.0", "--repo", place).code == 0
    assert run("push", models[1], "m@1.1.0", "--repo", place).code == 0
    assert run("pull", "m@9.0.0", tmp_path / "out", "--repo", place).code == 3
    text = file.read_text()
    assert 'textnlp_fast_versions_total{model="m"} 2.0' in text
    assert 'textnlp_fast_operations_total{operation="pull",outcome="VersionNotFoundError"} 1.0' in text


def test_a_file_that_cannot_be_written_is_told_and_changes_nothing(
    run: Any, place: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("TEXTNLP_FAST_METRICS_FILE", "/proc/nothing/m.prom")
    assert run("verify", "--repo", place).code == 0
    assert "cannot write metrics" in caplog.text
