"""Small models and repositories for transfers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from textnlp_fast.storage import Repository, TransferOptions

WriteModel = Callable[..., Path]


def write_model(folder: Path, seed: int, *, tensors: int = 4, rows: int = 64) -> Path:
    """A folder with one safetensors file of bf16 and a config; half of its tensors are the same for every seed."""
    folder.mkdir(parents=True, exist_ok=True)
    steady, moved = np.random.default_rng(1), np.random.default_rng(seed + 1000)
    header: dict[str, object] = {}
    body = b""
    for number in range(tensors):
        rng = moved if number % 2 else steady
        array = rng.integers(0x3C00, 0x3D00, (rows, 256), np.uint16)
        header[f"t{number:03d}.weight"] = {
            "dtype": "BF16",
            "shape": [rows, 256],
            "data_offsets": [len(body), len(body) + array.nbytes],
        }
        body += array.tobytes()
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    (folder / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + body)
    (folder / "config.json").write_text(json.dumps({"seed": seed}))
    return folder


def tree(folder: Path) -> dict[str, bytes]:
    """Every file of a model by relative path, without this package's own notes."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.relative_to(folder).parts[0].startswith(".textnlp-fast")
    }


@pytest.fixture(name="write_model")
def write_model_fixture() -> WriteModel:
    return write_model


@pytest.fixture(name="tree")
def tree_fixture() -> Callable[[Path], dict[str, bytes]]:
    return tree


@pytest.fixture
def options() -> TransferOptions:
    return TransferOptions(shard_bytes=1 << 16, threads=2)


@pytest.fixture
def repository(tmp_path: Path, options: TransferOptions) -> Repository:
    """A repository in a folder, with small windows, so that every model has many."""
    return Repository.open(tmp_path / "repository", create=True, options=options, window_bytes=1 << 14)


Serve = Callable[..., str]


@pytest.fixture(scope="module")
def serve() -> Iterator[Serve]:
    """Starts services, each a process of its own: what is returned is the address. They end with the module."""
    processes: list[subprocess.Popen[str]] = []

    def started(**fields: Any) -> str:
        script = Path(__file__).with_name("live_service.py")
        process = subprocess.Popen(
            [sys.executable, str(script), json.dumps(fields, default=str)], stdout=subprocess.PIPE, text=True
        )
        processes.append(process)
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert address.startswith("http://"), "the service did not start"
        return address

    yield started
    for process in processes:
        process.terminate()
    for process in processes:
        assert process.wait(120) == 0
        assert process.stdout is not None
        process.stdout.close()
