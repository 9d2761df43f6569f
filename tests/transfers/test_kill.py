"""Killed at random moments: what arrives is the same to the byte, and little is moved twice."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

from faults.proxy import FaultProxy
from servers import S3Server
from textnlp_fast.objectstore import open_store

SCRIPT = Path(__file__).with_name("killed_transfers.py")
KILLS = int(os.environ.get("TEXTNLP_FAST_KILLS", "12"))
STREAMS = 2
DOWNLOAD_PART, UPLOAD_PART = 256 << 10, 5 << 20


def run(verb: str, url: str, proxy: FaultProxy, folder: Path, kills: int) -> list[str]:
    seed = random.randrange(1 << 30)
    done = subprocess.run(
        [sys.executable, str(SCRIPT), verb, url, proxy.endpoint_url, str(folder), str(kills), str(seed)],
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, f"seed {seed}\n" + done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout.splitlines()


def resumed_bytes(lines: list[str]) -> int:
    return sum(int(line.split()[1]) for line in lines if line.startswith("resumed "))


def kills_by_copy(lines: list[str]) -> dict[str, int]:
    kills: dict[str, int] = {}
    for line in lines:
        if match := re.fullmatch(r"kill of (\d+): .*", line):
            kills[match[1]] = kills.get(match[1], 0) + 1
    return kills


def test_a_killed_download_reads_one_part_a_stream_twice_at_most(
    s3_bucket: str, s3_server: S3Server, fault_proxy: FaultProxy, tmp_path: Path
) -> None:
    size = 6_000_001
    content = random.Random(1).randbytes(size)
    open_store(f"s3://{s3_bucket}", endpoint_url=s3_server.endpoint_url).put_object("model.bin", content)
    lines = run("download", f"s3://{s3_bucket}", fault_proxy, tmp_path, KILLS)
    copies = sum(line.startswith("copied") for line in lines)
    kills = kills_by_copy(lines)
    assert sum(kills.values()) >= KILLS
    for number in range(copies):
        assert (tmp_path / f"copy-{number}.bin").read_bytes() == content
    assert not list(tmp_path.glob("*.part*"))
    asked = sum(
        int(ranges["last"]) - int(ranges["first"]) + 1
        for method, _, headers in fault_proxy.seen
        if method == "GET"
        and (ranges := re.fullmatch(r"bytes=(?P<first>\d+)-(?P<last>\d+)", headers.get("Range", "")))
    )
    assert resumed_bytes(lines) > 0  # some kill came in the middle, else this proves nothing
    assert asked <= size * copies + sum(kills.values()) * STREAMS * DOWNLOAD_PART


def test_a_killed_upload_sends_one_part_a_stream_twice_at_most(
    s3_bucket: str, s3_server: S3Server, fault_proxy: FaultProxy, tmp_path: Path
) -> None:
    pytest.importorskip("boto3")
    size = (40 << 20) + 77
    content = random.Random(2).randbytes(size)
    (tmp_path / "model.bin").write_bytes(content)
    lines = run("upload", f"s3://{s3_bucket}", fault_proxy, tmp_path, max(3, KILLS // 3))
    copies = sum(line.startswith("copied") for line in lines)
    kills = kills_by_copy(lines)
    store = open_store(f"s3://{s3_bucket}", endpoint_url=s3_server.endpoint_url)
    for number in range(copies):
        assert store.get(f"copy-{number}.bin") == content
    assert s3_server.open_uploads(s3_bucket) <= sum(kills.values())
    assert resumed_bytes(lines) > 0
    sent = sum(
        int(headers["Content-Length"])
        for method, path, headers in fault_proxy.seen
        if method == "PUT" and "partNumber=" in path
    )
    assert size * copies <= sent <= size * copies + sum(kills.values()) * STREAMS * UPLOAD_PART
