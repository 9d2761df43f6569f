"""`upload` and `download` as they are typed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from faults.children import heed_interrupts
from servers import S3Server
from textnlp_fast.cli.program import group


def run(*arguments: str) -> str:
    answer = CliRunner().invoke(group, list(arguments), catch_exceptions=False)
    assert answer.exit_code == 0, answer.output
    return answer.output


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.bin"
    path.write_bytes(os.urandom(3_000_000))
    return path


def test_a_file_goes_to_a_folder_and_back(model: Path, tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    said = run("upload", str(model), f"{tmp_path}/store/")
    assert "uploaded" in said and "model.bin" in said
    (tmp_path / "out").mkdir()
    run("download", f"{tmp_path}/store/model.bin", str(tmp_path / "out"))
    assert (tmp_path / "out" / "model.bin").read_bytes() == model.read_bytes()


def test_a_file_goes_to_a_bucket_and_back(
    model: Path, tmp_path: Path, s3_server: S3Server, s3_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("boto3")
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server.endpoint_url)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    sent = json.loads(run("upload", str(model), f"s3://{s3_bucket}/models/", "--json"))
    assert (sent["size"], sent["moved_bytes"]) == (3_000_000, 3_000_000)
    came = json.loads(run("download", f"s3://{s3_bucket}/models/model.bin", str(tmp_path / "b"), "--json"))
    assert came["digest"] == sent["digest"]
    assert (tmp_path / "b").read_bytes() == model.read_bytes()


def test_an_interrupt_keeps_what_came_and_the_next_run_goes_on(model: Path, tmp_path: Path) -> None:
    model.write_bytes(os.urandom(30_000_000))  # half a minute's work, of which a second is waited for
    (tmp_path / "store").mkdir()
    run("upload", str(model), f"{tmp_path}/store/")
    command = [
        *(sys.executable, "-m", "textnlp_fast.cli", "download"),
        *(f"{tmp_path}/store/model.bin", str(tmp_path / "out"), "--part-mib", "1", "--streams", "1"),
    ]
    slow = subprocess.Popen(
        [*command, "--limit-mb", "1"],
        stderr=subprocess.PIPE,
        preexec_fn=heed_interrupts,  # noqa: PLW1509  it takes no lock that another thread may hold
    )
    journal = tmp_path / "out.part.journal"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (
        journal.exists() and journal.read_bytes().count(b'"blake3"') >= 1
    ):
        time.sleep(0.02)
    slow.send_signal(signal.SIGINT)
    _, said = slow.communicate(timeout=60)
    assert slow.returncode == 130, said
    assert said.endswith(b"interrupted\n")
    done = subprocess.run([*command, "--json"], capture_output=True, timeout=60, check=True)
    assert json.loads(done.stdout)["resumed_bytes"] >= 1 << 20
    assert (tmp_path / "out").read_bytes() == model.read_bytes()
    assert not journal.exists()


@pytest.mark.parametrize("url", ["s3:bucket/x", "s3://bucket", "gopher://x/y", ""])
def test_a_place_that_is_none_is_said_to_be_wrong(model: Path, url: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "textnlp_fast.cli", "upload", str(model), url],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "error:" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["download", "{tmp}/nothing", "{tmp}/out"], 3),
        (["upload", "{model}", "{tmp}/out", "--limit-mb", "nan"], 2),
        (["upload", "{model}", "{tmp}/out", "--deadline", "inf"], 2),
        (["download", "{model}", "{tmp}/out", "--stall", "nan"], 2),
        (["upload", "{model}", "{tmp}/fifo"], 2),
        (["upload", "{tmp}/fifo", "{tmp}/out"], 2),
        (["download", "{tmp}/fifo", "{tmp}/out"], 2),
    ],
)
def test_a_mistake_is_told_by_its_exit_code(
    model: Path, tmp_path: Path, arguments: list[str], code: int
) -> None:
    os.mkfifo(tmp_path / "fifo")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "textnlp_fast.cli",
            *(one.format(tmp=tmp_path, model=model) for one in arguments),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr.startswith("error:")) == (code, True), done.stderr
    assert not (tmp_path / "out").exists()
    assert (tmp_path / "fifo").is_fifo()
