"""Peak memory of pushing and pulling a model of 6 GB, made on the spot.

Two versions of a sharded safetensors model are written: bf16 weights with a normal distribution, and the
same with about one weight in a hundred moved by an ULP, small ones only, as an optimiser would. Then a
process of its own for each: push 1.0.0, push 1.1.0, pull 1.1.0 into an empty directory, pull 1.1.0 where
1.0.0 is at hand. The peak is what the kernel counted (VmHWM: every resident page, file pages and code
included); the rest is sampled. What was pulled is compared byte by byte. Needs about 26 GB of disk for a
few minutes; all of it is removed at the end.

    python benches/memory.py [--json] [--size-gb 6] [--work DIR] [--memory-limit-mb 700]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from formats import to_bf16
from measure import Results, Verdict, machine

_HIDDEN, _MLP, _VOCABULARY, _KEY_VALUE = 4096, 14336, 128256, 1024
_SHARD_BYTES = 2 * 10**9
_CHUNK_WORDS = 4 << 20
_POOL_WORDS = 32 << 20
_CHILD = """
import json, sys
from textnlp_fast.objectstore import open_store
from textnlp_fast.storage import Repository

verb, url, version, path, *have = sys.argv[1:]
repository = Repository(open_store(url))
if verb == "push":
    repository.push(path, "bench", version)
else:
    repository.pull("bench", version, path, have=have)
with open("/proc/self/status") as status:
    peak = next(line for line in status if line.startswith("VmHWM"))
print(json.dumps({"peak_bytes": int(peak.split()[1]) * 1024}))
"""


# --- the model ---


def shapes(size_bytes: int) -> list[tuple[str, tuple[int, ...]]]:
    """Names and shapes of a Llama-like model of at least ``size_bytes`` in bf16, 1 GB of it the embedding."""
    layer = {
        "self_attn.q_proj": (_HIDDEN, _HIDDEN),
        "self_attn.k_proj": (_KEY_VALUE, _HIDDEN),
        "self_attn.v_proj": (_KEY_VALUE, _HIDDEN),
        "self_attn.o_proj": (_HIDDEN, _HIDDEN),
        "mlp.gate_proj": (_MLP, _HIDDEN),
        "mlp.up_proj": (_MLP, _HIDDEN),
        "mlp.down_proj": (_HIDDEN, _MLP),
        "input_layernorm": (_HIDDEN,),
        "post_attention_layernorm": (_HIDDEN,),
    }
    made: list[tuple[str, tuple[int, ...]]] = [("model.embed_tokens.weight", (_VOCABULARY, _HIDDEN))]
    number = 0
    while 2 * sum(int(np.prod(shape)) for _, shape in made) < size_bytes:
        made += [(f"model.layers.{number}.{name}.weight", shape) for name, shape in layer.items()]
        number += 1
    return made


class Weights:
    """Endless bf16 weights: windows at random places of a pool of normal numbers, which makes them fast."""

    def __init__(self, seed: int) -> None:
        random = np.random.Generator(np.random.SFC64(seed))
        normal = random.standard_normal(_POOL_WORDS, dtype=np.float32) * np.float32(0.02)
        self._pool = to_bf16(normal)
        # One ULP up or down where a step of about 1e-6 can reach it; nothing on the larger weights.
        small = np.abs(normal) < 4e-4
        moves = random.choice(np.array([-1, 1], np.int16), _POOL_WORDS)
        reached = random.random(_POOL_WORDS, dtype=np.float32) < 0.6
        self._moves = np.where(small & reached, moves, np.int16(0)).view(np.uint16)
        self._random = random

    def chunks(self, words: int) -> Iterator[tuple[npt.NDArray[np.uint16], npt.NDArray[np.uint16]]]:
        """(before, after) arrays that make up ``words`` weights."""
        while words:
            count = min(words, _CHUNK_WORDS)
            start = int(self._random.integers(0, _POOL_WORDS - count + 1))
            before = self._pool[start : start + count]
            yield before, before + self._moves[start : start + count]
            words -= count


def write_model(directories: tuple[Path, Path], size_bytes: int) -> int:
    """Write both versions side by side; returns the bytes of tensors in each."""
    weights = Weights(11)
    shards: list[list[tuple[str, tuple[int, ...]]]] = [[]]
    filled = 0
    for name, shape in shapes(size_bytes):
        nbytes = 2 * int(np.prod(shape))
        if filled and filled + nbytes > _SHARD_BYTES:
            shards.append([])
            filled = 0
        shards[-1].append((name, shape))
        filled += nbytes
    weight_map: dict[str, str] = {}
    total = 0
    for number, tensors in enumerate(shards, 1):
        file_name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        header: dict[str, object] = {"__metadata__": {"format": "pt"}}
        offset = 0
        for name, shape in tensors:
            end = offset + 2 * int(np.prod(shape))
            header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [offset, end]}
            weight_map[name] = file_name
            offset = end
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        with (directories[0] / file_name).open("wb") as old, (directories[1] / file_name).open("wb") as new:
            for file in (old, new):
                file.write(len(text).to_bytes(8, "little") + text)
            for _, shape in tensors:
                for before, after in weights.chunks(int(np.prod(shape))):
                    old.write(before.data)
                    new.write(after.data)
        total += offset
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    for directory in directories:
        (directory / "model.safetensors.index.json").write_text(json.dumps(index, indent=2), encoding="utf-8")
        (directory / "config.json").write_text(json.dumps({"model_type": "llama"}), encoding="utf-8")
    return total


def same_files(left: Path, right: Path) -> bool:
    """Whether two directories hold the same files with the same bytes; read in pieces."""
    names = {path.relative_to(left) for path in left.rglob("*") if path.is_file()}
    if not all((right / name).is_file() for name in names):
        return False
    for name in names:
        with (left / name).open("rb") as one, (right / name).open("rb") as other:
            while True:
                piece = one.read(16 << 20)
                if piece != other.read(16 << 20):
                    return False
                if not piece:
                    break
    return True


# --- one measured process ---


@dataclass(frozen=True)
class Step:
    """One child process: seconds of wall time, its peak and how much of the peak was anonymous memory."""

    what: str
    seconds: float
    peak_bytes: int
    anonymous_bytes: int


class StepFailedError(Exception):
    """A push or pull ended with an error."""


def _status_bytes(process_id: int, field: str) -> int:
    try:
        for line in Path(f"/proc/{process_id}/status").read_text(encoding="ascii").splitlines():
            if line.startswith(field + ":"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass  # it ended between two samples
    return 0


def measured(what: str, cache: Path, *arguments: str) -> Step:
    """Run the child, sample it every 50 ms, and take the kernel's own high-water mark at its end."""
    start = time.perf_counter()
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        command = [sys.executable, "-c", _CHILD, *arguments]
        environment = os.environ | {"XDG_CACHE_HOME": str(cache)}
        child = subprocess.Popen(command, stdout=output, stderr=errors, env=environment)
        peak = anonymous = 0
        while child.poll() is None:
            peak = max(peak, _status_bytes(child.pid, "VmHWM"))
            anonymous = max(anonymous, _status_bytes(child.pid, "RssAnon"))
            time.sleep(0.05)
        seconds = time.perf_counter() - start
        output.seek(0)
        errors.seek(0)
        if child.returncode != 0:
            raise StepFailedError(f"{what} failed:\n{errors.read().decode(errors='replace')[-4000:]}")
        peak = max(peak, int(json.loads(output.read().splitlines()[-1])["peak_bytes"]))
    return Step(what, seconds, peak, anonymous)


def folder_bytes(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def journey(work: Path, size_bytes: int) -> tuple[int, list[tuple[Step, int]], bool]:
    """Make the model, push, pull; (tensor bytes, steps with repository bytes after each, all bytes equal)."""
    first, second, repository, pulled = (work / name for name in ("v1", "v2", "repository", "pulled"))
    cache = work / "cache"
    first.mkdir()
    second.mkdir()
    total = write_model((first, second), size_bytes)
    url = str(repository)
    steps = []
    for what, arguments in (
        ("push 1.0.0", ("push", url, "1.0.0", str(first))),
        ("push 1.1.0, one weight in a hundred changed", ("push", url, "1.1.0", str(second))),
        ("pull 1.1.0 into an empty directory", ("pull", url, "1.1.0", str(pulled))),
    ):
        steps.append((measured(what, cache, *arguments), folder_bytes(repository)))
    equal = same_files(second, pulled)
    shutil.rmtree(pulled)
    last = measured("pull 1.1.0 with 1.0.0 at hand", cache, "pull", url, "1.1.0", str(pulled), str(first))
    steps.append((last, folder_bytes(repository)))
    return total, steps, equal and same_files(second, pulled)


def _missing(work: Path, size_bytes: int) -> str:
    """Why this cannot run here, or nothing."""
    if not Path("/proc/self/status").exists():
        return "it reads /proc, which this system lacks"
    needed = int(size_bytes * 4.2)
    free = shutil.disk_usage(work).free
    if free < needed:
        return f"it needs {needed / 1e9:.0f} GB of disk in {work}, {free / 1e9:.0f} are free: choose --work"
    probe = "from textnlp_fast.storage import Repository; from textnlp_fast.objectstore import open_store"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=False)
    return (
        "" if done.returncode == 0 else f"no repository to push into: {done.stderr.strip().splitlines()[-1]}"
    )


def run(arguments: argparse.Namespace) -> Results:
    results = Results("memory", machine(["textnlp-fast", "obstore"]))
    size_bytes = int(arguments.size_gb * 1e9)
    limit = arguments.memory_limit_mb
    criterion = f"push and pull of {arguments.size_gb:g} GB under {limit} MB resident"
    parent = Path(arguments.work).resolve()
    reason = _missing(parent, size_bytes)
    if reason:
        results.verdicts.append(Verdict(criterion, None, "–", reason))
        return results
    work = Path(tempfile.mkdtemp(prefix="textnlp-fast-memory-", dir=parent))
    try:
        total, steps, equal = journey(work, size_bytes)
    except StepFailedError as error:
        results.verdicts.append(Verdict(criterion, False, str(error)))
        return results
    finally:
        shutil.rmtree(work)
    rows: list[Sequence[object]] = [
        [
            step.what,
            step.peak_bytes / 1e6,
            step.anonymous_bytes / 1e6,
            step.seconds,
            total / step.seconds / 1e9,
            stored / 1e9,
        ]
        for step, stored in steps
    ]
    results.add_table(
        f"A model of {total / 1e9:.2f} GB, local folder, {os.cpu_count()} cores",
        ["step", "peak MB", "of it anonymous", "seconds", "GB/s", "repository GB"],
        rows,
        note="Peak: VmHWM of the whole process, Python included. Seconds: with its start, disk caches warm.",
    )
    worst = max(step.peak_bytes for step, _ in steps) / 1e6
    results.verdicts = [
        Verdict(criterion, worst < limit, f"peak {worst:.0f} MB"),
        Verdict("pulled files equal the pushed ones, byte for byte", equal, "all files compared"),
    ]
    return results


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size-gb", type=float, default=6.0)
    parser.add_argument(
        "--work", default=tempfile.gettempdir(), help="directory for the model and the repository"
    )
    parser.add_argument("--memory-limit-mb", type=int, default=700)
    parser.add_argument("--json", action="store_true", help="also write benches/out/memory.json")
    arguments = parser.parse_args()
    results = run(arguments)
    results.show()
    if arguments.json:
        results.write()


if __name__ == "__main__":
    main()
