"""BLAKE3 of this package beside the `blake3` package (Rust and assembly): same bytes, interleaved runs.

    python benches/hash.py [--sizes 1024 65536 ...] [--threads 1 2] [--seconds 0.5] [--json out.json]

Prints, for each size and number of threads, the median speed of both and the ratio of the medians (above 1:
we are faster). Every digest is compared before anything is timed.
"""

from __future__ import annotations

import argparse
import json
import mmap
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import blake3 as peer
import numpy as np

from textnlp_fast import _native, hashing

KIB, MIB = 1 << 10, 1 << 20
SIZES = (KIB, 64 * KIB, MIB, 64 * MIB)
WINDOW_BYTES = 4 * MIB
FEWEST_ROUNDS = 9
# A round of small inputs repeats the call until the clock's own cost and resolution do not matter.
ROUND_SECONDS = 0.002


@dataclass(frozen=True)
class Row:
    """One contest. Speeds: medians over the rounds in 10^9 bytes/s; best_ratio: of the fastest rounds."""

    what: str
    size_bytes: int
    threads: int
    rounds: int
    ours_gb_s: float
    peer_gb_s: float
    ratio: float
    best_ratio: float


def resident(size_bytes: int) -> mmap.mmap:
    """Random bytes in a mapping of their own, every page touched."""
    mapping = mmap.mmap(-1, size_bytes)
    np.frombuffer(mapping, dtype=np.uint8)[:] = np.random.default_rng(7).integers(
        0, 256, size_bytes, dtype=np.uint8
    )
    return mapping


def streamed(make: Callable[[], peer.blake3 | hashing.Blake3], data: memoryview, threads: int) -> bytes:
    """The digest of ``data`` fed in windows."""
    hasher = make()
    for at in range(0, len(data), WINDOW_BYTES):
        window = data[at : at + WINDOW_BYTES]
        if isinstance(hasher, hashing.Blake3):
            hasher.update(window, threads=threads)
        else:
            hasher.update(window)
    return hasher.digest()


def race(
    ours: Callable[[], bytes], theirs: Callable[[], bytes], seconds: float
) -> tuple[list[float], list[float]]:
    """Seconds a call of both, a round of one after a round of the other and the order swapped each time."""
    start = time.perf_counter()
    if ours() != theirs():
        raise SystemExit("the digests differ: nothing was timed")
    repeats = max(1, round(2 * ROUND_SECONDS / (time.perf_counter() - start)))
    taken: tuple[list[float], list[float]] = ([], [])
    contenders = list(zip((ours, theirs), taken, strict=True))
    deadline = time.perf_counter() + seconds
    while len(taken[0]) < FEWEST_ROUNDS or time.perf_counter() < deadline:
        for call, times in contenders:
            before = time.perf_counter()
            for _ in range(repeats):
                call()
            times.append((time.perf_counter() - before) / repeats)
        contenders.reverse()
    return taken


def contest(data: memoryview, threads: int, seconds: float, *, stream: bool) -> Row:
    """Time one size on one number of threads."""
    if stream:
        ours, theirs = race(
            lambda: streamed(hashing.Blake3, data, threads),
            lambda: streamed(lambda: peer.blake3(max_threads=threads), data, threads),
            seconds,
        )
    else:
        ours, theirs = race(
            lambda: hashing.blake3(data, threads=threads),
            lambda: peer.blake3(data, max_threads=threads).digest(),
            seconds,
        )
    speed = [len(data) / statistics.median(times) / 1e9 for times in (ours, theirs)]
    return Row(
        what="stream" if stream else "one-shot",
        size_bytes=len(data),
        threads=threads,
        rounds=len(ours),
        ours_gb_s=round(speed[0], 3),
        peer_gb_s=round(speed[1], 3),
        ratio=round(speed[0] / speed[1], 3),
        best_ratio=round(min(theirs) / min(ours), 3),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="BLAKE3 beside the blake3 package")
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), help="bytes")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seconds", type=float, default=0.5, help="for each contest")
    parser.add_argument("--json", type=Path, help="write the figures there as well")
    options = parser.parse_args()

    data = memoryview(resident(max(options.sizes)))
    write = sys.stdout.write
    processors = _native.default_threads()
    write(f"instruction set {_native.isa_name()}, {processors} processors, blake3 {peer.__version__}\n")
    write(f"{'':9}{'bytes':>10} {'threads':>7} {'ours GB/s':>10} {'blake3 GB/s':>12} {'ratio':>6} rounds\n")
    rows = []
    for stream in (False, True):
        for size in sorted(options.sizes):
            if stream and size <= WINDOW_BYTES:
                continue
            for threads in options.threads:
                row = contest(data[:size], threads, options.seconds, stream=stream)
                rows.append(row)
                write(
                    f"{row.what:9}{size:>10} {threads:>7} {row.ours_gb_s:>10.2f} {row.peer_gb_s:>12.2f} "
                    f"{row.ratio:>6.2f} {row.rounds:>6}\n"
                )
    if options.json is not None:
        report = {
            "bench": "hash",
            "isa": _native.isa_name(),
            "processors": _native.default_threads(),
            "machine": platform.processor() or platform.machine(),
            "peer": f"blake3 {peer.__version__}",
            "rows": [asdict(row) for row in rows],
        }
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
