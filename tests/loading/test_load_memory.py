"""Memory of a load: the tensors, or the parts of them, and the budget."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import textnlp_fast
from textnlp_fast.loading.streaming import _LEAST_BUDGET_BYTES

SIZE = 384 << 20
DEGREE = 8
CHILD = """
import re, sys
from pathlib import Path
import textnlp_fast
words = sys.argv[1:]
where = {"source": words[0]} if len(words) == 4 else {"source": "m", "repository": words[0]}
slices = {"q": (int(words[2]), 1, 8)} if words[2] != "whole" else {}
loaded = textnlp_fast.load(**where, slices=slices, memory_budget_bytes=int(words[1]), threads=2,
    check_slices=words[3] == "checked")
assert loaded["q"].any() and loaded["q"].nbytes * (8 if slices else 1) == 384 << 20
# Not getrusage: its peak counts the parent's memory, which was this process's until it called exec.
print(re.search("VmHWM:\\\\s*(\\\\d+)", Path("/proc/self/status").read_text()).group(1))
"""


def peak_bytes(*words: object) -> int:
    command = [sys.executable, "-c", CHILD, *map(str, words)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout) << 10


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One tensor larger than the memory it is loaded with: mostly zeros, which take no room."""
    path = tmp_path_factory.mktemp("memory") / "m.safetensors"
    entry = {"q": {"dtype": "F32", "shape": [4096, SIZE // 4096 // 4], "data_offsets": [0, SIZE]}}
    header = json.dumps(entry).encode()
    with path.open("wb") as out:
        out.write(len(header).to_bytes(8, "little") + header)
        out.truncate(8 + len(header) + SIZE)
        for at in range(SIZE // 16, SIZE, SIZE // 64):
            out.seek(8 + len(header) + at)
            out.write(b"\x3f" * (64 << 10))
    return path


@pytest.mark.slow
@pytest.mark.parametrize("dim", [0, 1])
def test_a_part_of_a_file(file: Path, dim: int) -> None:
    interpreter = 64 << 20
    limit = interpreter + _LEAST_BUDGET_BYTES + SIZE // DEGREE
    assert peak_bytes(file, _LEAST_BUDGET_BYTES, dim, "checked") < limit < SIZE


@pytest.mark.slow
def test_a_version_and_parts_of_it(file: Path, tmp_path: Path) -> None:
    textnlp_fast.push(file, tmp_path / "r", name="m", version="1.0.0")
    interpreter = 96 << 20
    budget = 96 << 20
    place = tmp_path / "r"
    limit = interpreter + budget + SIZE // DEGREE
    for dim in (0, 1):
        for how in ("checked", "frames"):
            assert peak_bytes(place, budget, dim, how, "repository") < limit < SIZE, (dim, how)
    assert peak_bytes(place, budget, "whole", "checked", "repository") < interpreter + budget + SIZE
