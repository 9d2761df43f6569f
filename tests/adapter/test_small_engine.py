"""The engine of the walk-through answers by its weights, and tells rollouts which they are."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import numpy as np
import pytest

from adapter.test_machine import PATIENCE_S, get
from free_ports import free_port
from textnlp_fast.storage import Repository

ENGINE = Path(__file__).parents[2] / "examples" / "deploy" / "small_engine.py"


def post(url: str, body: dict[str, Any]) -> Any:
    data = json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    with urlopen(Request(url, data=data, headers=headers), timeout=PATIENCE_S) as answer:
        return json.load(answer)


def until(what: Callable[[], Any]) -> Any:
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        try:
            if found := what():
                return found
        except OSError:
            pass
        time.sleep(0.1)
    raise AssertionError("it did not happen")


def test_it_answers_by_its_weights_and_has_an_agent(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.numpy", reason="needs safetensors")
    repository = Repository.open(tmp_path / "repo", create=True)
    weights = {"w": np.arange(4096, dtype=np.float32)}
    for version in ("1.0.0", "1.1.0"):
        folder = tmp_path / version
        folder.mkdir()
        safetensors.save_file(weights, folder / "model.safetensors")
        repository.push(folder, "tiny", version)
        weights["w"] = weights["w"] + 1
    port, agent = free_port(), free_port()
    words = [
        sys.executable,
        str(ENGINE),
        "--repo",
        str(tmp_path / "repo"),
        "--model",
        "tiny",
        "--version",
        "1.0.0",
    ]
    words += ["--port", str(port), "--agent-port", str(agent), "--folder", str(tmp_path / "replica")]
    engine = subprocess.Popen(words, start_new_session=True)
    try:
        until(lambda: get(port, "/health") == {})
        ask = f"http://127.0.0.1:{port}/v1/completions"
        before = post(ask, {"prompt": "hello"})
        assert before["model"] == "tiny@1.0.0" and before == post(ask, {"prompt": "hello"})
        with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as metrics:
            assert b'vllm:num_requests_waiting{model_name="tiny"} 0' in metrics.read()
        state = get(agent, "/v1/state")
        assert state["serving"] == "1.0.0"
    finally:
        os.killpg(engine.pid, signal.SIGKILL)
        engine.wait(timeout=PATIENCE_S)
