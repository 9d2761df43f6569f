"""Commands add what they did to a file of metrics."""

from __future__ import annotations

import os
import subprocess
import sys
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


def _upload(source: Path, target: Path, metrics: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "textnlp_fast.cli", "upload", str(source), str(target)]
    environment = os.environ | {"TEXTNLP_FAST_METRICS_FILE": str(metrics)}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=False)


def test_transfers_write_their_metrics_too(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1234")
    assert _upload(tmp_path / "a", tmp_path / "b", tmp_path / "m.prom").returncode == 0
    counted = 'textnlp_fast_operations_total{operation="upload",outcome="ok"} 1.0'
    assert counted in (tmp_path / "m.prom").read_text()


@pytest.mark.parametrize("place", ["missing/m.prom", "fifo", "folder"])
def test_metrics_that_cannot_be_written_are_one_line_on_stderr(tmp_path: Path, place: str) -> None:
    (tmp_path / "a").write_bytes(b"1234")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "fifo")
    done = _upload(tmp_path / "a", tmp_path / "b", tmp_path / place)
    assert done.returncode == 0
    assert (tmp_path / "b").read_bytes() == b"1234"
    assert len(done.stderr.splitlines()) == 1
    assert str(tmp_path / place) in done.stderr
    assert not (tmp_path / "missing").exists()
    assert (tmp_path / "fifo").is_fifo()
