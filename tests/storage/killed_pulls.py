"""Pulls that are killed at random points and begun again; run by test_pull_resume.py as a process of its own.

Arguments: folder, number of kills, seed. Forks a child for each pull; this process itself never starts a thread.
"""

from __future__ import annotations

import os
import random
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from faults.children import in_child, say
from storage.killed_pushes import open_repository, write_model
from textnlp_fast.storage import Progress


def push_all(folder: Path) -> None:
    repository = open_repository(folder)
    # The second is made of the first, the third in another layout of the second.
    for number, seed in enumerate((0, 2000, 1000)):
        repository.push(write_model(folder, seed), "m", f"1.{number}.0")


def pull(folder: Path, version: str, out: Path, die_at: int | None) -> None:
    def look(progress: Progress) -> None:
        if die_at is not None and progress.done_bytes >= die_at:
            os.kill(os.getpid(), signal.SIGKILL)

    repository = open_repository(folder)
    fresh = folder / "fresh"
    report = repository.pull("m", version, out, progress=look)
    whole = repository.pull("m", version, fresh)
    for path in fresh.glob("*.safetensors"):
        assert (out / path.name).read_bytes() == path.read_bytes()
        path.unlink()
    (fresh / ".textnlp-fast.json").unlink()
    assert sorted(path.name for path in out.iterdir()) == sorted(
        [
            ".textnlp-fast.json",
            f"model-{dict(zip('012', (0, 2000, 1000), strict=True))[version[2]]}.safetensors",
        ]
    )
    say(f"fetched {report.fetched_bytes} of {whole.fetched_bytes}, {report.raw_bytes} raw")


def _ended(work: Callable[[], None]) -> int:
    return os.waitpid(in_child(work), 0)[1]


def main() -> int:
    folder, kills, moments = Path(sys.argv[1]), int(sys.argv[2]), random.Random(int(sys.argv[3]))
    if _ended(lambda: push_all(folder)):
        return 1
    for number in range(kills):
        version, out = f"1.{number % 3}.0", folder / f"out-{number}"
        points = sorted(moments.randrange(1, 1_000_000) for _ in range(1 + number % 2))
        for point in points:
            status = _ended(lambda v=version, o=out, p=point: pull(folder, v, o, p))  # type: ignore[misc]
            if not os.WIFSIGNALED(status):
                return 1
        say(f"killed {version} at {points[-1]}")
        if _ended(lambda v=version, o=out: pull(folder, v, o, None)):  # type: ignore[misc]
            return 1
    return 0


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    sys.exit(main())
