"""Sixteen writers at once, processes and threads, in a folder and in buckets: nothing lost, nothing half there."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from garbage.writers import OPTIONS, check, make_files, work
from servers.places import Place
from textnlp_fast.storage import Repository

NIGHTLY = "TEXTNLP_FAST_NIGHTLY" in os.environ
WRITERS = 16
SEED = random.SystemRandom().randrange(1 << 20) if NIGHTLY else 11


@pytest.fixture(autouse=True)
def no_audit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its chain of records makes writers wait for each other, which is what this must not be slowed by."""
    monkeypatch.setenv("TEXTNLP_FAST_AUDIT", "off")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_processes_on_a_folder(tmp_path: Path) -> None:
    script = Path(__file__).with_name("writers.py")
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path), str(WRITERS), "8" if NIGHTLY else "2", str(SEED)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, f"seed {SEED}\n{done.stderr[-4000:]}"


def test_threads_on_memory(tmp_path: Path) -> None:
    files, steps = make_files(tmp_path / "files"), 2
    place = f"memory://writers-{os.getpid()}-{tmp_path.name}"
    Repository.open(place, create=True, options=OPTIONS, window_bytes=1 << 12)
    with ThreadPoolExecutor(WRITERS) as pool:
        jobs = [
            pool.submit(work, Repository.open(place), files, each, steps, SEED) for each in range(WRITERS)
        ]
    check(Repository.open(place), files, [job.result() for job in jobs], steps, tmp_path / "out")


# moto lets two writers win one race; radosgw is slow to start, and asked at night.
@pytest.mark.parametrize(
    "place", ["ministack", "azurite", "gcs", *(["radosgw"] if NIGHTLY else [])], indirect=True
)
def test_threads_on_buckets(tmp_path: Path, place: Place) -> None:
    files, steps = make_files(tmp_path / "files"), 3 if NIGHTLY else 1
    first = Repository(place.open(), OPTIONS)
    first._versions.new_window_bytes = 1 << 12
    first._versions.info(create=True)
    with ThreadPoolExecutor(WRITERS) as pool:
        jobs = [
            pool.submit(work, Repository(place.open(), OPTIONS), files, each, steps, SEED)
            for each in range(WRITERS)
        ]
    check(Repository(place.open(), OPTIONS), files, [job.result() for job in jobs], steps, tmp_path / "out")
