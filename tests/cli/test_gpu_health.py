"""`gpu health`: one command, one exit code, a table in words; and what it does with what is wrong."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from fakes.loopback_http import Said, loopback
from servers.s3 import S3Server

EXPORTED = (
    'DCGM_FI_DEV_GPU_TEMP{{gpu="0",UUID="GPU-a"}} 40\nDCGM_FI_DEV_XID_ERRORS{{gpu="0",UUID="GPU-a"}} {xid}\n'
)


def health(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "textnlp_fast.cli", "gpu", "health", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **environment},
        check=False,
    )


def exporter(xid: int) -> Any:
    return loopback(lambda _: Said(200, EXPORTED.format(xid=xid).encode()))


def test_a_good_fleet_is_0_and_another_is_1() -> None:
    with exporter(0) as good, exporter(79) as bad:
        done = health("--dcgm", f"node-1={good.url}")
        assert (done.returncode, done.stderr) == (0, "")
        assert "node-1" in done.stdout and "1 machine: good" in done.stdout
        done = health("--dcgm", f"node-1={good.url}", "--dcgm", f"node-2={bad.url}")
        assert done.returncode == 1
        assert (
            "reboot the machine" in done.stdout
            and "[xid-79]" in done.stdout
            and "2 machines: BAD" in done.stdout
        )
        # The worst comes first.
        assert done.stdout.index("node-2") < done.stdout.index("node-1")


@pytest.mark.parametrize(("temperature", "xid"), [("NaN", "NaN"), ("40", "-1"), ("-40", "-40")])
def test_telemetry_that_says_nothing_is_not_good(temperature: str, xid: str) -> None:
    text = EXPORTED.format(xid=xid).replace(" 40\n", f" {temperature}\n")
    with loopback(lambda _: Said(200, text.encode())) as server:
        done = health("--dcgm", f"n1={server.url}")
    assert done.returncode == 1
    assert "1 machine: DEGRADED" in done.stdout and "telemetry-unusable" in done.stdout
    assert "nothing to do" not in done.stdout and "check the machine" in done.stdout


def test_json_and_rules_of_ones_own(tmp_path: Path) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text("xids: {79: {severity: info, action: none}}\n")
    with exporter(79) as server:
        done = health("--dcgm", server.url, "--json", "--rules", str(rules))
    document = json.loads(done.stdout)
    assert done.returncode == 0 and document["verdict"] == "good"
    (finding,) = document["machines"][0]["findings"]
    assert (finding["rule"], finding["severity"], document["machines"][0]["machine"]) == (
        "xid-79",
        "info",
        server.url,
    )


def test_a_machine_that_does_not_answer_is_bad() -> None:
    done = health("--agent", "http://127.0.0.1:9", "--timeout", "5")
    assert done.returncode == 1 and "agent-unreachable" in done.stdout


def test_a_slow_exporter_is_bad_for_a_reason() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:  # it takes the connection, and says nothing
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/slow"
        done = health("--dcgm", f"n1={url}", "--timeout", "1", "--json")
    (machine,) = json.loads(done.stdout)["machines"]
    assert (done.returncode, machine["verdict"], machine["action"]) == (1, "bad", "check")
    (finding,) = machine["findings"]
    assert finding["rule"] == "agent-unreachable"
    assert finding["evidence"] == f"dcgm {url}: no answer within 1 s"


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (Said(404), "answered 404"),
        (Said(500), "answered 500"),
        (Said(302, b"", {"Location": "http://127.0.0.1:1/"}), "answered 302"),
        (Said(200, b"<html>"), "line 1 is no sample: '<html>' is no name"),
        (Said(200, b"up 1\n"), "(Is it a dcgm-exporter, and does it see GPUs?)"),
    ],
)
def test_what_is_no_exporter_is_said_in_a_line_with_something_to_do(said: Said, why: str) -> None:
    with loopback(lambda _: said) as server:
        done = health("--dcgm", f"n1={server.url}", "--json")
        shown = health("--dcgm", f"n1={server.url}").stdout
    (machine,) = json.loads(done.stdout)["machines"]
    (finding,) = machine["findings"]
    assert (done.returncode, machine["verdict"], machine["action"]) == (1, "bad", "check")
    assert finding["evidence"].endswith(why) and "\n" not in finding["evidence"]
    assert "nothing to do" not in shown and "BAD" in shown and "check the machine and its agent" in shown
    # What to do after an order, or with a broken object, is not about health.
    assert "ordered" not in shown and "restore" not in shown


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--agent", "nonsense"], "no URL"),
        (["--agent", "a=http://x", "--agent", "a=http://y"], "twice"),
        (["--webhook", "https://x", "--dcgm", "http://x"], "--watch"),
        (["--look", "nan", "--dcgm", "http://x"], "no finite number"),
        (["--dcgm", "http://x", "--rules", "/dev/null/none"], "rules"),
    ],
)
def test_a_wrong_call_is_2(arguments: list[str], said: str) -> None:
    done = health(*arguments)
    assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr


def test_the_schema() -> None:
    assert "polled" in json.loads(health("--schema").stdout)["properties"]


def test_without_a_driver_it_says_what_to_do() -> None:
    done = health(TEXTNLP_FAST_NVML="/no/such/library.so.1")
    assert (done.returncode, done.stdout) == (11, "")
    assert "driver" in done.stderr and "hint" in done.stderr and "--agent" in done.stderr


@pytest.mark.parametrize("more", [(), ("--watch",)])
def test_without_a_driver_scripts_get_a_document(more: tuple[str, ...]) -> None:
    done = health("--json", *more, TEXTNLP_FAST_NVML="/no/such/library.so.1")
    document = json.loads(done.stdout)
    assert (done.returncode, document["verdict"], document["machines"]) == (11, None, [])
    assert "/no/such/library.so.1" in document["error"] and "driver" in document["hint"]
    assert document["error"] in done.stderr and "Traceback" not in done.stderr


def test_hints_name_options_of_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    done = health("--aws", "i-0123456789abcdef0", AWS_CONFIG_FILE="/dev/null")
    assert done.returncode == 2 and "--region" in done.stderr and "region=" not in done.stderr
    with loopback(lambda _: Said(401)) as server:
        done = health("--agent", server.url)
    assert done.returncode == 9 and "TEXTNLP_FAST_AGENT_TOKEN" in done.stderr
    done = health("--dcgm", "http://me:secret@127.0.0.1:9")
    assert done.returncode == 2 and "TEXTNLP_FAST_AGENT_TOKEN" in done.stderr and "headers" not in done.stderr
    done = health("--watch", "--webhook", "http://other.example/", "--dcgm", "http://127.0.0.1:9")
    assert done.returncode == 2 and "allow_http" not in done.stderr


def test_a_machine_that_only_its_cloud_tells_of_is_noted_with_options(moto: S3Server) -> None:
    keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_EC2_METADATA_DISABLED": "true"}
    where = ("--region", "us-east-1", "--endpoint-url", moto.endpoint_url)
    done = health("--aws", "i-0123456789abcdef0", *where, **keys)
    assert "(--agent)" in done.stdout and "(--dcgm)" in done.stdout and "agents=" not in done.stdout


def test_watching_prints_what_changes_and_remembers(tmp_path: Path) -> None:
    xid = 0
    with loopback(lambda _: Said(200, EXPORTED.format(xid=xid).encode())) as server:
        process = subprocess.Popen(
            [sys.executable, "-m", "textnlp_fast.cli", "gpu", "health", "--dcgm", f"n={server.url}", "--watch",
             "--state", str(tmp_path / "state"), "--json"],
            stdout=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        deadline = time.monotonic() + 60
        while not server.asked and time.monotonic() < deadline:
            time.sleep(0.05)
        xid = 95
        assert process.stdout is not None
        line = json.loads(process.stdout.readline())  # the exporter is asked every 15 s
        assert (line["rule"], line["machine"]) == ("xid-95", "n")
        process.send_signal(signal.SIGTERM)
        assert json.loads(process.stdout.readline())["verdict"] == "bad"
        assert process.wait(60) == 1
        process.stdout.close()
        # The next look knows it without being told again.
        xid = 0
        done = health("--dcgm", f"n={server.url}", "--state", str(tmp_path / "state"))
        assert done.returncode == 1 and "xid-95" in done.stdout
