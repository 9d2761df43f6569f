"""What a push costs that has next to nothing to move: a model of many small tensors, first, again, and one changed.

    python benches/push_overhead.py                 # 10,000 tensors of 8 KiB
    python benches/push_overhead.py --tensors 30000 --profile unchanged

A mixture of experts has tens of thousands of tensors; what a push does for each, however little, is paid that often.
`read` is what reading and hashing the files alone takes, in this process and in the same rounds: nothing that looks at
every byte can be faster.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import pstats
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from textnlp_fast.contents.inventory import take_inventory
from textnlp_fast.contents.working import thread_count
from textnlp_fast.storage import Repository

LIMIT_S = 2.0


def write_model(path: Path, tensors: int, size_bytes: int, *, changed: int = -1) -> Path:
    """bf16 tensors with the names of experts; number `changed` differs by a ULP here and there."""
    path.mkdir(parents=True)
    entries: dict[str, object] = {}
    rng = np.random.default_rng(0)
    with (path / "model.safetensors").open("wb") as out:
        for number in range(tensors):
            layer, rest = divmod(number, 192)
            expert, kind = divmod(rest, 3)
            name = f"model.layers.{layer}.mlp.experts.{expert}.{('gate', 'up', 'down')[kind]}_proj.weight"
            begin = number * size_bytes
            entries[name] = {
                "dtype": "BF16",
                "shape": [64, size_bytes // 128],
                "data_offsets": [begin, begin + size_bytes],
            }
        header = json.dumps(entries).encode()
        header += b" " * (-len(header) % 8)
        out.write(len(header).to_bytes(8, "little") + header)
        for number in range(tensors):
            values = rng.normal(0, 0.02, size_bytes // 2).astype(np.float32)
            bits = (values.view(np.uint32) >> 16).astype(np.uint16)
            if number == changed:
                bits[::50] += 1
            out.write(bits.tobytes())
    (path / "config.json").write_text('{"model_type": "mixtral"}')
    return path


def timed(work: Callable[[], object], profile: bool) -> tuple[float, float]:
    """Seconds of the clock, and of the processor."""
    profiler = cProfile.Profile() if profile else None
    begun, begun_cpu = time.perf_counter(), time.process_time()
    if profiler is None:
        work()
    else:
        profiler.runcall(work)
    took = time.perf_counter() - begun, time.process_time() - begun_cpu
    if profiler is not None:
        pstats.Stats(profiler).sort_stats("tottime").print_stats(40)
    return took


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tensors", type=int, default=10_000)
    parser.add_argument("--size-bytes", type=int, default=8 << 10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--profile", choices=["first", "unchanged", "again", "one"], default="")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        old = write_model(place / "old", arguments.tensors, arguments.size_bytes)
        new = write_model(place / "new", arguments.tensors, arguments.size_bytes, changed=5)
        rows: dict[str, list[tuple[float, float]]] = {
            "read": [],
            "first": [],
            "unchanged": [],
            "again": [],
            "one": [],
        }
        for number in range(arguments.rounds):
            url = place / f"repository-{number}"

            def push(path: Path, version: str, url: Path = url) -> Callable[[], object]:
                # Opened anew each time, as a command does: nothing is remembered from the push before.
                return lambda: Repository.open(url, create=True).push(path, "moe", version)

            rows["read"].append(timed(lambda: take_inventory(old, threads=thread_count(0)), False))
            for what, path, version in (
                ("first", old, "1.0.0"),
                ("again", old, "1.0.0"),
                ("unchanged", old, "1.1.0"),
                ("one", new, "1.2.0"),
            ):
                rows[what].append(timed(push(path, version), arguments.profile == what))
        print(f"{arguments.tensors} tensors of {arguments.size_bytes} bytes: seconds, and of the processor")
        for what, meaning in (
            ("read", "reading and hashing the files"),
            ("first", "first push"),
            ("unchanged", "the same files as a new version"),
            ("again", "the same version again"),
            ("one", "one tensor changed"),
        ):
            wall, cpu = (statistics.median(each) for each in zip(*rows[what], strict=True))
            over = (
                "" if what != "unchanged" else f"   limit {LIMIT_S} {'met' if wall < LIMIT_S else 'MISSED'}"
            )
            print(f"{meaning:34} {wall:6.2f} {cpu:6.2f}{over}")


if __name__ == "__main__":
    main()
