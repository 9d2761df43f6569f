"""Memory stays small, whatever the file's size. `TEXTNLP_FAST_SPARSE_GB=20` makes it 20 GB, which takes minutes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import fakes.part_server

pytest.importorskip("boto3")

SIZE = int(float(os.environ.get("TEXTNLP_FAST_SPARSE_GB", "0.5")) * 1e9)
MOST_BYTES = 600_000_000
PROGRAM = """
import re, sys
from pathlib import Path
from textnlp_fast.objectstore import open_store
from textnlp_fast.objectstore.transfers import TransferSettings, download, upload
verb, endpoint, place, state = sys.argv[1:]
store = open_store("s3://bucket", endpoint_url=endpoint)
settings = TransferSettings(state_folder=state, streams=16)
report = upload(place, store, "sent", settings) if verb == "up" else download(store, "zeros", place, settings)
# Not getrusage: its peak counts the parent's memory, which was this process's until it called exec.
most = int(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text()).group(1)) * 1024
print(report.size, report.moved_bytes, most, report.seconds)
"""


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["up", "down"])
def test_a_transfer_takes_less_than_600_mb(verb: str, tmp_path: Path, aws_environment: None) -> None:
    if shutil.disk_usage(tmp_path).free < 4 << 30:
        pytest.skip("too little room on the disk")
    (tmp_path / "bucket").mkdir()
    sparse = tmp_path / "bucket" / "zeros"
    with sparse.open("wb") as file:
        file.truncate(SIZE)
    server = subprocess.Popen(
        [sys.executable, fakes.part_server.__file__, str(tmp_path), "discard"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout is not None
        endpoint = f"http://127.0.0.1:{int(server.stdout.readline())}"
        place = sparse if verb == "up" else tmp_path / "out"
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, verb, endpoint, str(place), str(tmp_path / "state")],
            capture_output=True,
            text=True,
            timeout=1800,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        size, moved, most, seconds = done.stdout.split()
        sys.stdout.write(
            f"{verb}: {int(size) / 1e9:g} GB in {float(seconds):.0f} s, {int(most) / 1e6:.0f} MB at most\n"
        )
        assert int(size) == int(moved) == SIZE
        assert int(most) < MOST_BYTES
        if verb == "down":
            assert place.stat().st_size == SIZE
            assert place.stat().st_blocks * 512 < 1 << 20  # sparse, as it was
    finally:
        server.communicate()
