"""Models small enough to be made on the spot, and repositories to put them into."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from textnlp_fast.storage import Repository, TransferOptions

Tensors = dict[str, npt.NDArray[np.uint16]]

_NAMES = {"uint8": "U8", "uint16": "BF16", "uint32": "F32", "float32": "F32", "float16": "F16"}


def write_safetensors(
    path: Path, tensors: Mapping[str, npt.NDArray[np.generic]], metadata: dict[str, str] | None = None
) -> Path:
    """Writes a safetensors file, uint16 arrays as bf16."""
    header: dict[str, object] = {"__metadata__": metadata} if metadata else {}
    offset = 0
    for name, array in tensors.items():
        header[name] = {
            "dtype": _NAMES[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [offset, offset + array.nbytes],
        }
        offset += array.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.parent.mkdir(parents=True, exist_ok=True)
    body = b"".join(array.tobytes() for array in tensors.values())
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)
    return path


def make_tensors(seed: int = 0, *, rows: int = 64, layers: int = 3) -> Tensors:
    """bf16 weights that look like trained ones: normal, of different scale by layer."""
    rng = np.random.default_rng(seed)
    tensors: Tensors = {}
    for layer in range(layers):
        for kind in ("q_proj", "up_proj"):
            values = rng.normal(0, 0.02 * (layer + 1), (rows, 128)).astype(np.float32)
            tensors[f"layers.{layer}.{kind}.weight"] = (values.view(np.uint32) >> 16).astype(np.uint16)
    tensors["norm.weight"] = np.full(128, 0x3F80, np.uint16)
    return tensors


def nudge(tensors: Tensors, seed: int, share: float = 0.05) -> Tensors:
    """The next version: a share of the weights moves by one ULP."""
    rng = np.random.default_rng(seed)
    moved: Tensors = {}
    for name, array in tensors.items():
        change = (rng.random(array.shape) < share).astype(np.uint16)
        moved[name] = array + change
    return moved


def read_tree(directory: Path) -> dict[str, bytes]:
    """Every file of a directory by relative path, this package's own records left out."""
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and not path.name.startswith(".textnlp-fast")
    }


class Makers:
    """What the tests make models with."""

    write = staticmethod(write_safetensors)
    tensors = staticmethod(make_tensors)
    nudge = staticmethod(nudge)
    tree = staticmethod(read_tree)

    @staticmethod
    def directory(path: Path, tensors: Tensors) -> Path:
        """A Hugging Face directory: two shards, their index, a config, a tokenizer in a folder."""
        names = list(tensors)
        half = len(names) // 2
        shards = {
            "model-00001-of-00002.safetensors": names[:half],
            "model-00002-of-00002.safetensors": names[half:],
        }
        for shard, held in shards.items():
            write_safetensors(path / shard, {name: tensors[name] for name in held}, {"format": "pt"})
        weight_map = {name: shard for shard, held in shards.items() for name in held}
        index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
        (path / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))
        (path / "config.json").write_text('{"model_type": "llama"}')
        (path / "tokenizer").mkdir()
        rng = np.random.default_rng(7)
        (path / "tokenizer" / "vocab.json").write_bytes(rng.integers(97, 123, 300_000, np.uint8).tobytes())
        (path / "empty.txt").write_bytes(b"")
        return path


@pytest.fixture
def makers() -> type[Makers]:
    return Makers


@pytest.fixture
def options() -> TransferOptions:
    return TransferOptions(shard_bytes=1 << 16, threads=2)


OpenRepository = Callable[..., Repository]


@pytest.fixture
def repository(tmp_path: Path, options: TransferOptions) -> Repository:
    """A local repository with windows and shards so small that every tensor has several."""
    return Repository.open(tmp_path / "repository", create=True, options=options, window_bytes=1 << 12)
