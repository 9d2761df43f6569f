"""`gateway run` as a process: it serves, tells its status, lets streams end on SIGTERM, and says what is wrong."""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from free_ports import free_port
from textnlp_fast.cli.program import group

COMMAND = [sys.executable, "-m", "textnlp_fast.cli", "gateway", "run"]


@pytest.mark.usefixtures("haproxy")
def test_a_gateway_is_run_looked_at_and_ended(engine: Any, tmp_path: Path) -> None:
    one, port = engine("a", token_s=0.1), free_port()
    options = ["--replica", one.address, "--listen", f"127.0.0.1:{port}", "--folder", str(tmp_path / "g")]
    options += ["--agent-port", str(free_port()), "--metrics", f"127.0.0.1:{free_port()}"]
    process = subprocess.Popen([*COMMAND, *options], stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        while "listening on" not in (line := process.stderr.readline()):
            assert line, "it ended"
        said = CliRunner().invoke(group, ["gateway", "status", "--folder", str(tmp_path / "g"), "--json"])
        (row,) = json.loads(said.output)["replicas"]
        assert row["address"] == one.address
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("POST", "/v1/chat/completions", json.dumps({"max_tokens": 20, "stream": True}))
        answer = connection.getresponse()
        assert answer.readline().startswith(b"data: ")
        process.send_signal(signal.SIGTERM)
        assert answer.read().endswith(b"data: [DONE]\n\n")
        connection.close()  # one that idles is waited for, up to a minute
        assert process.wait(120) == 0
    finally:
        process.kill()
        process.wait()


@pytest.mark.usefixtures("haproxy")
def test_a_port_that_is_taken(engine: Any, tmp_path: Path) -> None:
    one = engine("a")
    options = ["--replica", one.address, "--listen", one.address, "--folder", str(tmp_path)]
    options += ["--agent-port", str(free_port()), "--metrics", f"127.0.0.1:{free_port()}"]
    said = subprocess.run([*COMMAND, *options], capture_output=True, text=True, timeout=120, check=False)
    assert said.returncode == 8
    assert "HAProxy ended" in said.stderr


def test_without_haproxy(tmp_path: Path) -> None:
    options = ["--replica", "127.0.0.1:1", "--folder", str(tmp_path), "--haproxy", "no-such-haproxy"]
    said = subprocess.run([*COMMAND, *options], capture_output=True, text=True, timeout=120, check=False)
    assert said.returncode == 1
    assert "apt-get install haproxy" in said.stderr
