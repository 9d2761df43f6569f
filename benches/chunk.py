"""Chunking beside its peers: pyfastcdc, fastcdc and hf-xet on the same bytes, one run, outputs checked.

    python benches/chunk.py [--size-mb 64] [--rounds 7] [--threads 1] [--json out.json]

Peers that are not installed are left out. Rounds are interleaved; a row gives the best of them: the processor time
of the whole process with one thread, and the time on the clock with more. pyfastcdc and fastcdc cut by another hash, at
the same target size (64 KiB). hf-xet reads a file, cuts it, hashes each chunk, then the tree: it is compared with our
xet_hash of that file, with the same of a buffer, and with chunking + BLAKE3 of each chunk. Its file hash checks ours.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from textnlp_fast import _native, chunking, hashing

CHECKPOINTS = Path(__file__).parents[2] / "shared/data/checkpoints"
MEGABYTE = 1 << 20


def optional(name: str) -> ModuleType | None:
    try:
        return __import__(name, fromlist=["_"])
    except ImportError:
        return None


def data_sets(size_bytes: int) -> dict[str, bytes]:
    """Name -> bytes, each of about the size asked for."""
    generator = np.random.default_rng(1)
    files = sorted(CHECKPOINTS.glob("*.safetensors")) if CHECKPOINTS.is_dir() else []
    if files:
        weights = b"".join(path.read_bytes() for path in files)
        name = "checkpoints"
    else:
        # bf16 of normal weights, the upper half of each float32.
        floats = generator.standard_normal(16 * MEGABYTE, np.float32) * np.float32(0.02)
        weights = (floats.view(np.uint32) >> 16).astype(np.uint16).tobytes()
        name = "bf16 normal"
    words = [
        bytes(generator.integers(97, 123, length, np.uint8)) for length in generator.integers(2, 11, 4000)
    ]
    picks = generator.zipf(1.3, size_bytes // 6) % len(words)
    text = b" ".join(words[pick] for pick in picks)
    return {
        "random": generator.bytes(size_bytes),
        name: (weights * (size_bytes // len(weights) + 1))[:size_bytes],
        "text": (text * (size_bytes // len(text) + 1))[:size_bytes],
    }


def ours(data: bytes, threads: int) -> int:
    return len(chunking.boundaries(data, threads=threads))


def chunks_with_hashes(data: bytes, threads: int) -> int:
    """Boundaries, then BLAKE3 of each chunk."""
    ends = chunking.boundaries(data, threads=threads)
    return len(hashing.blake3_spans(data, ends, threads=threads))


def contenders(data: bytes, path: Path, threads: int) -> dict[str, Callable[[], Any]]:
    found: dict[str, Callable[[], Any]] = {"textnlp-fast": lambda: ours(data, threads)}
    pyfastcdc, fastcdc, hf_xet = optional("pyfastcdc"), optional("fastcdc"), optional("hf_xet")
    if pyfastcdc is not None:
        cutter = pyfastcdc.FastCDC(chunking.TARGET_CHUNK_BYTES)
        found["pyfastcdc"] = lambda: sum(1 for _ in cutter.cut_buf(data))
        same_limits = pyfastcdc.FastCDC(
            chunking.TARGET_CHUNK_BYTES,
            min_size=chunking.MIN_CHUNK_BYTES,
            max_size=chunking.MAX_CHUNK_BYTES,
        )
        found["pyfastcdc, our limits"] = lambda: sum(1 for _ in same_limits.cut_buf(data))
    if fastcdc is not None:
        cut = fastcdc.fastcdc
        found["fastcdc"] = lambda: sum(1 for _ in cut(data, avg_size=chunking.TARGET_CHUNK_BYTES))
    found["textnlp-fast + BLAKE3"] = lambda: chunks_with_hashes(data, threads)
    found["xet_hash, buffer"] = lambda: hashing.xet_hash(data, threads=threads)
    found["xet_hash, file"] = lambda: hashing.xet_hash(path, threads=threads)
    if hf_xet is not None:
        found["hf_xet.hash_files"] = lambda: hf_xet.hash_files([str(path)])
    return found


def check(data: bytes, path: Path) -> list[str]:
    """What was verified of our boundaries on this data; raises if anything disagrees."""
    ends = chunking.boundaries(data)
    sizes = np.diff(ends, prepend=np.uint64(0))
    assert int(ends[-1]) == len(data)
    assert (sizes[:-1] >= chunking.MIN_CHUNK_BYTES).all()
    assert (sizes <= chunking.MAX_CHUNK_BYTES).all()
    before = _native.isa_name()
    for isa in _native.available_isas():
        _native.force_isa(isa)
        assert np.array_equal(chunking.boundaries(data, threads=2), ends), isa
    _native.force_isa(before)
    done = ["sizes", "every ISA agrees"]
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests/reference"))
    reference = optional("chunking")
    sys.path.pop(0)
    if reference is not None:
        sample = data[: 2 * MEGABYTE]
        assert reference.boundaries(sample) == chunking.boundaries(sample).tolist()
        done.append("2 MiB equal the definition")
    hf_xet = optional("hf_xet")
    if hf_xet is not None:
        assert hashing.xet_hash(data) == hashing.xet_hash(path) == hf_xet.hash_files([str(path)])[0].hash
        done.append("file hash equals hf-xet's")
    return done


def measure(runs: dict[str, Callable[[], Any]], rounds: int, threads: int) -> dict[str, list[float]]:
    clock = time.process_time if threads == 1 else time.perf_counter
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            begin = clock()
            run()
            seconds[name].append(clock() - begin)
    return seconds


COMPARED = {
    "textnlp-fast": ["pyfastcdc", "pyfastcdc, our limits", "fastcdc"],
    "textnlp-fast + BLAKE3": ["hf_xet.hash_files"],
    "xet_hash, buffer": ["hf_xet.hash_files"],
    "xet_hash, file": ["hf_xet.hash_files"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size-mb", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    # Before the first import of hf-xet: its own pool takes the same number of threads.
    os.environ["TOKIO_WORKER_THREADS"] = str(options.threads)
    os.environ["RAYON_NUM_THREADS"] = str(options.threads)
    if options.threads == 1:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    rows: list[dict[str, Any]] = []
    folder = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        path = Path(temporary) / "data.bin"
        for name, data in data_sets(options.size_mb * MEGABYTE).items():
            path.write_bytes(data)
            checked = check(data, path)
            runs = contenders(data, path, options.threads)
            speeds = {
                who: len(data) / min(times) / 1e9
                for who, times in measure(runs, options.rounds, options.threads).items()
            }
            chunks = ours(data, 1)
            ratios = {
                f"{us} / {peer}": speeds[us] / speeds[peer]
                for us, peers in COMPARED.items()
                for peer in peers
                if us in speeds and peer in speeds
            }
            rows.append(
                {"data": name, "chunks": chunks, "checked": checked, "gb_per_s": speeds, "ratios": ratios}
            )
            mean = len(data) / chunks
            print(f"{name}: {len(data) // MEGABYTE} MiB, {chunks} chunks, {mean:.0f} bytes each")
            print(f"  checked: {', '.join(checked)}")
            for who, speed in speeds.items():
                print(f"  {who:24} {speed:6.2f} GB/s")
            for what, ratio in ratios.items():
                print(f"  {what:48} {ratio:5.2f}x")
    result = {"isa": _native.isa_name(), "threads": options.threads, "rounds": options.rounds, "rows": rows}
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
