"""Loading a safetensors file and a version of a repository into host memory, beside the loaders people use.

A file of bf16 weights is made on the spot (1 GiB by default) and pushed to a local repository, then a second version of
it with one weight in a hundred moved. Every contender gives all tensors in memory of their own; what comes out is
compared with what was written. Warm: the file is in the page cache; cold: it was dropped before each round
(POSIX_FADV_DONTNEED), which leaves whatever the machine below caches. A second table reads the same file in the ways
that were considered: buffered or O_DIRECT, with so many threads, into fresh memory or touched one.

    python benches/load.py [--json] [--size-mb 1024] [--rounds 5] [--work DIR]
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

import textnlp_fast
from formats import to_bf16
from measure import Bytes, Results, Timing, Verdict, machine, race
from textnlp_fast.loading.ring import host_memory
from textnlp_fast.tensors import SafetensorsFile

_BLOCK = 8 << 20
_ROWS, _COLUMNS = 2048, 2048
_MAPPED = "safetensors (torch, mapped)"
_INTO = "textnlp_fast.load, into arrays"
_ARRAYS: dict[str, Any] = {}
Load = Callable[[], Mapping[str, Any]]


def make_model(path: Path, size_bytes: int, *, moved: bool) -> None:
    """bf16 matrices of 8 MiB, and a norm beside each; the same with one weight in a hundred an ULP further."""
    rng = np.random.default_rng(0)
    count = max(1, size_bytes // (_ROWS * _COLUMNS * 2))
    header: dict[str, Any] = {}
    at = 0
    for number in range(count):
        for name, shape in (
            (f"layers.{number}.weight", (_ROWS, _COLUMNS)),
            (f"layers.{number}.norm", (_COLUMNS,)),
        ):
            size = int(np.prod(shape)) * 2
            header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + size]}
            at += size
    text = json.dumps(header).encode()
    pool = to_bf16(rng.normal(0, 0.02, 8 << 20).astype(np.float32))
    other = np.random.default_rng(1)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for entry in header.values():
            words = (entry["data_offsets"][1] - entry["data_offsets"][0]) // 2
            start = int(rng.integers(0, pool.size - words + 1))
            data = pool[start : start + words].copy()
            if moved:
                data[other.integers(0, words, words // 100)] += 1
            file.write(data.tobytes())
        os.fsync(file.fileno())


def drop(path: Path) -> None:
    """Takes a file, or all of a folder, out of the page cache."""
    for each in [path] if path.is_file() else [found for found in path.rglob("*") if found.is_file()]:
        descriptor = os.open(each, os.O_RDONLY)
        try:
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def as_bytes(tensor: Any) -> Bytes:
    if isinstance(tensor, np.ndarray):
        return np.ascontiguousarray(tensor).reshape(-1).view(np.uint8)
    import torch  # noqa: PLC0415

    return np.asarray(tensor.contiguous().reshape(-1).view(torch.uint8).numpy())


def check(name: str, loaded: Mapping[str, Any], path: Path) -> None:
    """Stops unless the tensors are those of the file."""
    infos = SafetensorsFile.open(path).tensors
    assert loaded.keys() == {info.name for info in infos}, name
    with path.open("rb") as file:
        for info in infos:
            file.seek(info.begin)
            if as_bytes(loaded[info.name]).tobytes() != file.read(info.size_bytes):
                raise SystemExit(f"{name}: tensor {info.name} came out wrong")


# --- contenders -----------------------------------------------------------------------------------------------------


def peers(path: Path) -> dict[str, Load]:
    """Loaders that are installed."""
    found: dict[str, Load] = {}
    try:
        import safetensors.numpy  # noqa: PLC0415
        import safetensors.torch  # noqa: PLC0415

        def mapped() -> Mapping[str, Any]:
            # It maps the file: a byte of each page is read, for the tensors to be in memory.
            loaded = safetensors.torch.load_file(path)
            for tensor in loaded.values():
                as_bytes(tensor)[::4096].sum()
            return loaded

        found[_MAPPED] = mapped
        found["safetensors (torch, copied)"] = lambda: {
            name: tensor.clone() for name, tensor in safetensors.torch.load_file(path).items()
        }
    except ImportError:
        print("absent: safetensors with torch")
    try:
        from runai_model_streamer import SafetensorsStreamer  # noqa: PLC0415

        def streamed() -> Mapping[str, Any]:
            with SafetensorsStreamer() as streamer:
                streamer.stream_file(str(path))
                # Its buffers are used again: whoever keeps a tensor copies it.
                return {name: tensor.clone() for name, tensor in streamer.get_tensors()}

        found["runai-model-streamer"] = streamed
    except (ImportError, OSError) as error:
        print(f"absent: runai-model-streamer ({error})")
    try:
        from fastsafetensors import fastsafe_open  # noqa: PLC0415

        def fast() -> Mapping[str, Any]:
            with fastsafe_open(filenames=[str(path)], nogds=True, device="cpu") as opened:
                return {name: opened.get_tensor(name).clone() for name in opened.keys()}  # noqa: SIM118

        fast()
        found["fastsafetensors (nogds)"] = fast
    except Exception as error:  # noqa: BLE001  (it raises whatever it likes where there is no GPU)
        print(f"absent: fastsafetensors ({type(error).__name__}: {error})")
    return found


def ours(path: Path) -> dict[str, Load]:
    def into() -> Mapping[str, Any]:
        return textnlp_fast.load(path, into=_ARRAYS)

    return {"textnlp_fast.load": lambda: textnlp_fast.load(path), _INTO: into}


def child(name: str, path: Path, cold: bool) -> None:
    """Times one load in this process, in which nothing was loaded before: freed memory would be fast memory."""
    if name == _INTO:
        _ARRAYS.update(textnlp_fast.load(path))
    load = (ours(path) | peers(path))[name]
    if cold:
        drop(path)
    start = time.perf_counter()
    loaded = load()
    seconds = time.perf_counter() - start
    check(name, loaded, path)
    print(json.dumps(seconds))


def race_processes(names: Sequence[str], path: Path, rounds: int) -> dict[str, tuple[Timing, Timing]]:
    """Every contender in a process of its own each time, in a new random order each round, warm and cold."""
    taken: dict[tuple[str, bool], list[float]] = {
        (name, cold): [] for name in names for cold in (False, True)
    }
    order = list(taken)
    shuffle = random.Random(0)
    for _ in range(rounds):
        shuffle.shuffle(order)
        for name, cold in order:
            if not cold:
                path.read_bytes()
            words = [sys.executable, __file__, "--child", name, "--path", str(path), *["--cold"] * cold]
            done = subprocess.run(words, check=True, capture_output=True, text=True)
            taken[name, cold].append(float(done.stdout.splitlines()[-1]))
    return {
        name: (Timing(name, tuple(taken[name, False])), Timing(name, tuple(taken[name, True])))
        for name in names
    }


def race_both(
    contenders: Mapping[str, Callable[[], Any]], dropped: Path, rounds: int
) -> dict[str, tuple[Timing, Timing]]:
    warm = race(contenders, rounds=rounds)
    cold = race(contenders, rounds=rounds, warmup=0, before=lambda: drop(dropped))
    return {name: (warm[name], cold[name]) for name in contenders}


def rows(timings: Mapping[str, tuple[Timing, Timing]], size: int) -> list[list[Any]]:
    return [
        [name, warm.gigabytes_per_second(size), cold.gigabytes_per_second(size)]
        for name, (warm, cold) in timings.items()
    ]


# --- ways to read -----------------------------------------------------------------------------------------------------


def ways(path: Path) -> dict[str, Callable[[], Any]]:
    """The file into memory, in blocks of 8 MiB, by so many threads."""
    size = path.stat().st_size
    touched = np.frombuffer(host_memory(size + _BLOCK), np.uint8)
    touched.fill(0)
    blocks = range(0, size, _BLOCK)

    def read(threads: int, *, direct: bool, fresh: str | None) -> Callable[[], Any]:
        def run() -> None:
            if fresh == "small pages":
                private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
                out = np.frombuffer(mmap.mmap(-1, size + _BLOCK, flags=private), np.uint8)
            else:
                out = touched if fresh is None else np.frombuffer(host_memory(size + _BLOCK), np.uint8)
            view = memoryview(out)
            descriptor = os.open(path, os.O_RDONLY | (os.O_DIRECT if direct else 0))
            try:
                with ThreadPoolExecutor(threads) as pool:
                    done = sum(
                        pool.map(lambda at: os.preadv(descriptor, [view[at : at + _BLOCK]], at), blocks)
                    )
            finally:
                os.close(descriptor)
            assert done == size, (done, size)

        return run

    found: dict[str, Callable[[], Any]] = {}
    for threads in (1, 2, 4, 8):
        found[f"buffered, {threads} threads, huge pages"] = read(threads, direct=False, fresh="huge pages")
    found["buffered, 2 threads, small pages"] = read(2, direct=False, fresh="small pages")
    found["buffered, 2 threads, touched memory"] = read(2, direct=False, fresh=None)
    for threads in (2, 8):
        found[f"O_DIRECT, {threads} threads, huge pages"] = read(threads, direct=True, fresh="huge pages")
        found[f"O_DIRECT, {threads} threads, touched memory"] = read(threads, direct=True, fresh=None)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="also write benches/out/load.json")
    parser.add_argument("--size-mb", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--work", type=Path, help="a folder on the disk to measure")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--path", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--cold", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.child, arguments.path, arguments.cold)
        return
    work = Path(tempfile.mkdtemp(prefix="load-", dir=arguments.work))
    try:
        results = measure(work, arguments.size_mb << 20, arguments.rounds)
    finally:
        shutil.rmtree(work)
    results.show()
    if arguments.json:
        results.write()


def measure(work: Path, size_bytes: int, rounds: int) -> Results:
    path, second = work / "model.safetensors", work / "second" / "model.safetensors"
    second.parent.mkdir()
    make_model(path, size_bytes, moved=False)
    make_model(second, size_bytes, moved=True)
    size = path.stat().st_size
    results = Results(
        "load",
        machine(["textnlp-fast", "safetensors", "torch", "runai-model-streamer", "fastsafetensors"]),
        {"rounds": rounds, "threads": "all", "size_gb": size / 1e9},
    )
    contenders = [*ours(path), *peers(path)]
    timings = race_processes(contenders, path, rounds)
    columns = ["", "warm GB/s", "cold GB/s"]
    note = "Each in a process of its own. Mapped tensors are the page cache itself: nothing is copied, nor may be lost."
    results.add_table("A safetensors file", columns, rows(timings, size), note=note)
    others = [name for name in contenders if not name.startswith("textnlp_fast") and name != _MAPPED]
    for number, state in enumerate(("warm", "cold")):
        if others:
            best = min(others, key=lambda name: timings[name][number].median)
            ratio = timings[best][number].median / timings["textnlp_fast.load"][number].median
            words = f"a {state} file is in memory of its own as soon as with the fastest peer"
            results.verdicts.append(Verdict(words, ratio >= 1, f"{ratio:.2f} times as fast as {best}"))
    results.add_table("Ways to read the file", columns, rows(race_both(ways(path), path, rounds), size))
    results.add_table(
        "A version, from a local repository", columns, from_repository(work, path, second, rounds, size)
    )
    return results


def from_repository(work: Path, path: Path, second: Path, rounds: int, size: int) -> list[list[Any]]:
    repository = work / "repository"
    textnlp_fast.push(path, repository, name="m", version="1.0.0")
    textnlp_fast.push(second, repository, name="m", version="1.1.0", parent="1.0.0")
    cache = work / "cache"
    contenders: dict[str, Load] = {
        "1.0.0": lambda: textnlp_fast.load("m", "1.0.0", repository=repository),
        "1.1.0, a delta to it": lambda: textnlp_fast.load("m", "1.1.0", repository=repository),
        "1.1.0 out of the local cache": lambda: textnlp_fast.load(
            "m", "1.1.0", repository=repository, cache=cache
        ),
    }
    for name, load in contenders.items():
        check(name, load(), path if name == "1.0.0" else second)
    return rows(race_both(contenders, work, rounds), size)


if __name__ == "__main__":
    main()
