"""Killed at random moments: what arrives is the same to the byte, and little is moved twice."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from faults.proxy import FaultProxy
from servers import Authority, believe, tls_front
from textnlp_fast.objectstore import ObjectStore, open_store
from transfers.conftest import BUCKETS, new_bucket
from transfers.killed_transfers import STREAMS, part_bytes

SCRIPT = Path(__file__).with_name("killed_transfers.py")
KILLS = max(3, int(os.environ.get("TEXTNLP_FAST_KILLS", "18")) // 6)  # of each verb and provider


Bucket = tuple[str, ObjectStore, FaultProxy, str]


def run(verb: str, url: str, endpoint: str, folder: Path) -> list[str]:
    seed = random.randrange(1 << 30)
    done = subprocess.run(
        [sys.executable, str(SCRIPT), verb, url, endpoint, str(folder), str(KILLS), str(seed)],
        capture_output=True,
        text=True,
        timeout=600 + 30 * KILLS,
        check=False,
    )
    assert done.returncode == 0, f"seed {seed}\n" + done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout.splitlines()


def resumed_bytes(lines: list[str]) -> int:
    return sum(int(line.split()[1]) for line in lines if line.startswith("resumed "))


def count(lines: list[str]) -> tuple[int, int]:
    """How many copies were made, and how many kills it took."""
    copies = sum(line.startswith("copied") for line in lines)
    kills = sum(line.startswith("kill of ") for line in lines)
    assert kills >= KILLS
    return copies, kills


@pytest.fixture(params=[*BUCKETS, "tls"])
def bucket(
    request: pytest.FixtureRequest, tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Bucket]:
    """A bucket's URL, the bucket, a proxy in front of it that counts, and the endpoint that leads through it."""
    url, endpoint = new_bucket(request.param, request)
    with ExitStack() as open_:
        proxy = open_.enter_context(FaultProxy(endpoint))
        through = f"{proxy.endpoint_url}{urlsplit(endpoint).path}"
        if request.param == "tls":
            believe(authority.path, monkeypatch)
            through = open_.enter_context(tls_front(through, authority, tmp_path / "nginx"))
        yield url, open_store(url, endpoint_url=endpoint), proxy, through


def test_a_killed_download_reads_one_part_a_stream_twice_at_most(bucket: Bucket, tmp_path: Path) -> None:
    url, store, proxy, endpoint = bucket
    size = 3_000_001
    content = random.Random(1).randbytes(size)
    store.put_object("model.bin", content)
    lines = run("download", url, endpoint, tmp_path)
    copies, kills = count(lines)
    for number in range(copies):
        assert (tmp_path / f"copy-{number}.bin").read_bytes() == content
    assert not list(tmp_path.glob("*.part*"))
    asked = sum(
        int(ranges["last"]) - int(ranges["first"]) + 1
        for method, _, headers in proxy.seen
        if method == "GET"
        and (ranges := re.fullmatch(r"bytes=(?P<first>\d+)-(?P<last>\d+)", headers.get("Range", "")))
    )
    assert resumed_bytes(lines) > 0  # some kill came in the middle, else this proves nothing
    assert size * copies <= asked <= size * copies + kills * STREAMS * part_bytes("download", url)


def test_a_killed_upload_sends_one_part_a_stream_twice_at_most(bucket: Bucket, tmp_path: Path) -> None:
    url, store, proxy, endpoint = bucket
    part = part_bytes("upload", url)
    size = 9 * part + 77
    content = random.Random(2).randbytes(size)
    (tmp_path / "model.bin").write_bytes(content)
    lines = run("upload", url, endpoint, tmp_path)
    copies, kills = count(lines)
    for number in range(copies):
        assert store.get(f"copy-{number}.bin") == content
    sent = sum(
        int(headers["Content-Length"])
        for method, path, headers in proxy.seen
        if method == "PUT" and re.search(r"partNumber=|comp=block&|upload_id=", path)
    )
    assert resumed_bytes(lines) > 0
    assert size * copies <= sent <= size * copies + kills * STREAMS * part
