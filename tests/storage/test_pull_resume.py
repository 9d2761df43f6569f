"""A pull that was killed is gone on with: what was made is not read again, and what is wrong is."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from textnlp_fast.contents.journal_lines import append_line
from textnlp_fast.errors import StorageUnavailableError
from textnlp_fast.storage import Progress, Repository, TransferOptions

SCRIPT = Path(__file__).with_name("killed_pulls.py")
KILLS = int(os.environ.get("TEXTNLP_FAST_KILLS", "12"))
Makers = Any


def test_killed_pulls_go_on_and_read_nothing_twice(tmp_path: Path) -> None:
    seed = random.randrange(1 << 30)
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(tmp_path), str(KILLS), str(seed)],
        env={**os.environ, "PYTHONPATH": str(SCRIPT.parents[1])},
        capture_output=True,
        text=True,
        timeout=300 + 20 * KILLS,
        check=False,
    )
    assert done.returncode == 0, f"seed {seed}\n" + done.stdout[-2000:] + done.stderr[-4000:]
    found = re.findall(r"killed 1.(\d).0 at (\d+)\nfetched (\d+) of (\d+), (\d+) raw", done.stdout)
    assert len(found) == KILLS
    for version, point, fetched, whole, raw in found:
        assert int(fetched) < int(whole)
        if version == "0":  # nothing is decoded over anything else, so bytes made are bytes read
            made = int(point) / int(raw)
            # Half of it is noise, which no coding makes smaller; a window more or less.
            assert int(fetched) <= int(whole) * (1 - made) * 1.6 + (64 << 10)


def _interrupted(repository: Repository, out: Path, share: float) -> None:
    """A pull that stops as if its store had gone away."""

    def stop(progress: Progress) -> None:
        if progress.done_bytes >= share * progress.total_bytes:
            raise StorageUnavailableError("the network is down")

    with pytest.raises(StorageUnavailableError):
        repository.pull("m", "1.0.0", out, progress=stop)


@pytest.fixture
def pulled_in_part(tmp_path: Path, makers: Makers) -> Callable[[], tuple[Repository, Path, Path, int]]:
    """A repository, a model in it, and a destination that a pull was on the way to; what a whole pull reads."""

    def make() -> tuple[Repository, Path, Path, int]:
        repository = Repository.open(
            tmp_path / "repository",
            create=True,
            window_bytes=1 << 14,
            options=TransferOptions(threads=2),
        )
        source = tmp_path / "source"
        makers.directory(source, makers.tensors(rows=512))
        repository.push(source, "m", "1.0.0")
        whole = repository.pull("m", "1.0.0", tmp_path / "whole").fetched_bytes
        _interrupted(repository, tmp_path / "out", 0.6)
        return repository, source, tmp_path / "out", whole

    return make


PulledInPart = Callable[[], tuple[Repository, Path, Path, int]]


def test_a_pull_cut_off_from_its_store_goes_on(pulled_in_part: PulledInPart, makers: Makers) -> None:
    repository, source, out, whole = pulled_in_part()
    assert not out.exists()
    report = repository.pull("m", "1.0.0", out)
    assert report.fetched_bytes < 0.6 * whole
    assert makers.tree(out) == makers.tree(source)
    assert not list(out.parent.glob(".out*"))


def test_staged_bytes_that_were_harmed_are_read_again(pulled_in_part: PulledInPart, makers: Makers) -> None:
    repository, source, out, _ = pulled_in_part()
    for file in (out.parent / ".out.textnlp-fast-partial" / "files").rglob("*.safetensors"):
        data = bytearray(file.read_bytes())
        for place in range(0, len(data), 5000):
            data[place] ^= 1
        file.write_bytes(data)
    repository.pull("m", "1.0.0", out)
    assert makers.tree(out) == makers.tree(source)


def test_claims_of_what_was_never_written_are_found_out(pulled_in_part: PulledInPart, makers: Makers) -> None:
    repository, source, out, _ = pulled_in_part()
    journal = out.parent / ".out.textnlp-fast-partial" / "progress"
    manifest = repository.manifest("m", "1.0.0")
    descriptor = os.open(journal, os.O_WRONLY | os.O_APPEND)
    append_line(
        descriptor, {"made": [[digest, window] for digest in manifest.contents for window in range(99)]}
    )
    os.close(descriptor)
    repository.pull("m", "1.0.0", out)
    assert makers.tree(out) == makers.tree(source)


@pytest.mark.parametrize("harm", ["torn", "other boot", "gone", "noise", "other version"])
def test_a_journal_that_says_nothing_true_is_not_believed(
    pulled_in_part: PulledInPart, makers: Makers, harm: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    repository, source, out, _ = pulled_in_part()
    journal = out.parent / ".out.textnlp-fast-partial" / "progress"
    if harm == "torn":
        journal.write_bytes(journal.read_bytes()[:-3])
    elif harm == "gone":
        journal.unlink()
    elif harm == "noise":
        journal.write_bytes(random.Random(1).randbytes(5000))
    elif harm == "other boot":
        monkeypatch.setattr("textnlp_fast.storage.pull_progress.boot_id", lambda: "another")
    else:
        other = tmp_path / "other"
        makers.directory(other, makers.tensors(rows=256))
        repository.push(other, "m", "2.0.0")
        repository.pull("m", "2.0.0", out)
        assert makers.tree(out) == makers.tree(other)
        return
    repository.pull("m", "1.0.0", out)
    assert makers.tree(out) == makers.tree(source)


def test_a_staged_file_that_the_destination_has_by_now_is_left_out(
    pulled_in_part: PulledInPart, makers: Makers
) -> None:
    repository, source, out, _ = pulled_in_part()
    out.mkdir()
    other = out.parent / ".out.textnlp-fast-partial"
    other.rename(out / ".textnlp-fast-partial")
    for path in source.rglob("*.safetensors"):
        (out / path.relative_to(source)).parent.mkdir(parents=True, exist_ok=True)
        (out / path.relative_to(source)).write_bytes(path.read_bytes())
    repository.pull("m", "1.0.0", out)
    assert makers.tree(out) == makers.tree(source)
