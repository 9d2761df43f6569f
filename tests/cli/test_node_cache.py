"""`node-cache` as a process: serves, goes on after SIGKILL, ends on SIGTERM, and refuses what is unsafe."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from textnlp_fast.storage import Repository


def start(place: Path | str, cache: Path, *more: str, warned: str = "") -> tuple[subprocess.Popen[str], str]:
    command = [
        sys.executable,
        "-m",
        "textnlp_fast.cli",
        "node-cache",
        "--repo",
        str(place),
        "--cache",
        str(cache),
    ]
    node = subprocess.Popen([*command, "--listen", "127.0.0.1:0", *more], stderr=subprocess.PIPE, text=True)
    assert node.stderr is not None
    if warned:
        assert warned in node.stderr.readline()
    line = node.stderr.readline()
    assert line.startswith("listening on "), line
    return node, "http://" + line.split()[2]


def origin_bytes(url: str) -> int:
    text = urllib.request.urlopen(f"{url}/metrics", timeout=60).read().decode()
    return int(
        next(line for line in text.splitlines() if line.startswith("textnlp_fast_node_origin")).split()[1]
    )


def test_a_node_cache_is_killed_and_goes_on(
    run: Any, models: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, cache = tmp_path / "repository", tmp_path / "cache"
    Repository.open(place, create=True).push(models[0], "m", "1.0.0")
    node, url = start(place, cache)
    monkeypatch.setenv("TEXTNLP_FAST_PEERS", url)
    assert run("pull", "m@1.0.0", tmp_path / "a", "--repo", place).code == 0
    assert origin_bytes(url) > 0
    node.kill()
    node.wait()
    assert run("pull", "m@1.0.0", tmp_path / "b", "--repo", place).code == 0
    node, url = start(place, cache)
    monkeypatch.setenv("TEXTNLP_FAST_PEERS", url)
    assert run("pull", "m@1.0.0", tmp_path / "c", "--repo", place).code == 0
    assert origin_bytes(url) == 0
    node.send_signal(signal.SIGTERM)
    assert node.wait(60) == 0
    for name in "abc":
        for path in models[0].iterdir():
            assert (tmp_path / name / path.name).read_bytes() == path.read_bytes()


def test_what_is_refused(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("TEXTNLP_FAST_PEER"):
            monkeypatch.delenv(name)
    Repository.open(tmp_path / "r", create=True)
    (tmp_path / "empty").mkdir()
    call = ("node-cache", "--repo", tmp_path / "r", "--cache", tmp_path / "c")
    for more, word in (
        (("--listen", "0.0.0.0:0"), "token"),
        (("--listen", "nowhere"), "HOST:PORT"),
        (("--listen", "127.0.0.1:99999"), "no port 99999"),
        (("--cache", "/proc/x"), "/proc/x"),
        (("--peer", "10.0.0.1"), "no address of a node"),
        (("--limit-gib", "nan"), "nan"),
    ):
        refused = run(*call, *more)
        assert refused.code == 2
        assert word in refused.err
        assert "listening" not in refused.err
    for place in ("none", "empty"):
        refused = run("node-cache", "--repo", tmp_path / place, "--cache", tmp_path / "c")
        assert refused.code == 3
        assert "no repository" in refused.err and "hint:" in refused.err
        assert "listening" not in refused.err


def test_a_bucket_that_is_away_keeps_no_node_from_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as nobody:  # bound, and nobody listens
        nobody.bind(("127.0.0.1", 0))
        for name, value in (
            ("TEXTNLP_FAST_ENDPOINT_URL", f"http://127.0.0.1:{nobody.getsockname()[1]}"),
            ("AWS_ACCESS_KEY_ID", "key"),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
            ("AWS_REGION", "us-east-1"),
        ):
            monkeypatch.setenv(name, value)
        node, _ = start("s3://bucket/models", tmp_path / "cache", warned="cannot be reached yet")
        node.send_signal(signal.SIGTERM)
        assert node.wait(60) == 0


@pytest.mark.parametrize("trouble", ["secret", "nobody"])
def test_a_puller_hears_once_of_a_node_that_is_of_no_use(
    models: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    place = tmp_path / "repository"
    Repository.open(place, create=True).push(models[0], "m", "1.0.0")
    monkeypatch.setenv("TEXTNLP_FAST_PEER_TOKEN", "right")
    node, url = start(place, tmp_path / "cache")
    if trouble == "nobody":
        node.kill()
        node.wait()
    monkeypatch.setenv("TEXTNLP_FAST_PEERS", url)
    monkeypatch.setenv("TEXTNLP_FAST_PEER_TOKEN", "wrong")
    command = [sys.executable, "-m", "textnlp_fast.cli", "pull", "m@1.0.0", str(tmp_path / "out")]
    pulled = subprocess.run(
        [*command, "--repo", str(place)], capture_output=True, text=True, timeout=300, check=False
    )
    node.kill()
    node.wait()
    assert pulled.returncode == 0
    told = [line for line in pulled.stderr.splitlines() if url in line]
    assert len(told) == 1, pulled.stderr
    assert ("secret (401)" if trouble == "secret" else "cannot be asked") in told[0]
