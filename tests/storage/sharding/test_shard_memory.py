"""Memory of sharding is its windows, whatever the model's size; and a run that is killed leaves nothing behind."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from storage.sharding.shard_models import config_of, files_below, llama, write_model
from textnlp_fast.storage import shard_model

SIZE = 2 << 30
CHILD = """
import re, sys
from pathlib import Path
from textnlp_fast.storage import shard_model
source, out, strategy, ranks = sys.argv[1:]
shard_model(source, out, strategy=strategy, ranks=int(ranks) or None, threads=2)
# Not getrusage: its peak counts the parent's memory, which was this process's until it called exec.
print(re.search("VmHWM:\\\\s*(\\\\d+)", Path("/proc/self/status").read_text()).group(1))
"""
BUDGET = 192 << 20


@pytest.fixture(scope="module")
def sparse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of 2 GiB, almost all of it holes."""
    folder = tmp_path_factory.mktemp("sparse")
    rows = SIZE // 8 // 8192 // 2
    entries: dict[str, object] = {}
    position = 0
    for layer in range(4):
        for name, shape in (("self_attn.o_proj", [rows, 8192]), ("self_attn.q_proj", [8192, rows])):
            size = rows * 8192 * 2
            entries[f"model.layers.{layer}.{name}.weight"] = {
                "dtype": "BF16",
                "shape": shape,
                "data_offsets": [position, position + size],
            }
            position += size
    header = json.dumps(entries).encode()
    with (folder / "model.safetensors").open("wb") as out:
        out.write(len(header).to_bytes(8, "little") + header)
        out.truncate(8 + len(header) + position)
        for at in range(SIZE // 16, position, SIZE // 16):
            out.seek(8 + len(header) + at)
            out.write(random.Random(at).randbytes(100_000))
    (folder / "config.json").write_text(json.dumps(config_of(heads=64, kv_heads=8)))
    return folder


@pytest.mark.parametrize(("strategy", "ranks"), [("layer_based", 0), ("tensor_parallel", 4)])
def test_memory_is_bounded_and_holes_stay_holes(
    sparse: Path, tmp_path: Path, strategy: str, ranks: int
) -> None:
    command = [sys.executable, "-c", CHILD, str(sparse), str(tmp_path / "out"), strategy, str(ranks)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=600)
    assert int(done.stdout) << 10 < BUDGET < SIZE // 8
    files = list((tmp_path / "out").rglob("*.safetensors"))
    assert sum(path.stat().st_size for path in files) > SIZE * 0.99
    assert sum(path.stat().st_blocks for path in files) * 512 < SIZE // 4


KILLED = """
import os, signal, sys
from textnlp_fast.storage import shard_model
source, out, name, left = sys.argv[1:]
left, real = int(left), getattr(os, name)
def counted(*arguments, **options):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*arguments, **options)
setattr(os, name, counted)
shard_model(source, out, strategy="tensor_parallel", ranks=4, max_shard_bytes=9_000, model_id="m", threads=2)
"""
#: Which call of the system is the last one; the run with ten thousand lives.
MOMENTS = [("copy_file_range", 5), ("fsync", 1), ("fsync", 20), ("rename", 1), ("fsync", 10_000)]


@pytest.mark.parametrize(("name", "number"), MOMENTS)
def test_killed_at_any_moment_the_result_is_there_or_not(tmp_path: Path, name: str, number: int) -> None:
    source = write_model(tmp_path / "source", llama(layers=4), files=3)

    def shard(out: str) -> dict[str, bytes]:
        shard_model(
            source, tmp_path / out, strategy="tensor_parallel", ranks=4, max_shard_bytes=9_000, model_id="m"
        )
        return files_below(tmp_path / out)

    wanted = shard("wanted")
    command = [sys.executable, "-c", KILLED, str(source), str(tmp_path / "out"), name, str(number)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    killed = done.returncode == -signal.SIGKILL
    assert killed == (number < 10_000), done.stderr[-2000:]
    assert (tmp_path / "out").exists() == (not killed)
    assert any(path.name.startswith(".out") for path in tmp_path.iterdir()) == killed
    assert shard("out") == wanted
    assert not any(path.name.startswith(".") for path in tmp_path.iterdir())
