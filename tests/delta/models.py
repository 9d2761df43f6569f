"""Models small enough to be made on the spot, of any dtype and shape, and what another version of one may look like."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from hypothesis import strategies as st

from textnlp_fast.delta import create_patch
from textnlp_fast.tensors import DTYPE_BITS

DTYPES = sorted(name for name, bits in DTYPE_BITS.items() if bits >= 8)
WINDOW = 1 << 12


@dataclass(frozen=True)
class Tensor:
    dtype: str
    shape: tuple[int, ...]
    data: bytes

    @property
    def row_bytes(self) -> int:
        return len(self.data) // self.shape[0]


Model = dict[str, dict[str, Tensor] | bytes]
"""By path: the tensors of a safetensors file, or the bytes of another file."""


def size_of(dtype: str, shape: tuple[int, ...]) -> int:
    size = DTYPE_BITS[dtype] // 8
    for count in shape:
        size *= count
    return size


def safetensors_bytes(tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> bytes:
    header: dict[str, object] = {"__metadata__": metadata} if metadata else {}
    offset = 0
    for name, tensor in tensors.items():
        end = offset + len(tensor.data)
        header[name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + b"".join(tensor.data for tensor in tensors.values())


def files_of(model: Model) -> dict[str, bytes]:
    return {
        path: content if isinstance(content, bytes) else safetensors_bytes(content)
        for path, content in model.items()
    }


def write(model: Model, root: Path) -> Path:
    """Writes a model: as a directory, or as one file if `root` ends like one."""
    files = files_of(model)
    if root.suffix == ".safetensors":
        (content,) = files.values()
        root.parent.mkdir(parents=True, exist_ok=True)
        root.write_bytes(content)
        return root
    for path, content in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
    return root


def tree(root: Path) -> dict[str, bytes]:
    """Every file below a directory."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }


def make(old: Path, new: Path, out: Path) -> Path:
    create_patch(
        old, new, out, source_version="1.0.0", target_version="1.1.0", window_bytes=WINDOW, threads=2
    )
    return out


def weights(seed: int = 0, rows: int = 64) -> Tensor:
    """A bf16 matrix of `rows` by 128: 16 KiB, four windows, by default."""
    source = random.Random(seed)
    return Tensor(
        "BF16", (rows, 128), bytes(b for _ in range(rows * 128) for b in (source.randrange(256), 0x3C))
    )


# --- random models ----------------------------------------------------------------------------------------

shapes = st.one_of(
    st.just(()),
    st.lists(st.integers(0, 5), min_size=1, max_size=3).map(tuple),
    st.tuples(st.integers(1, 90), st.sampled_from([8, 64])),
)


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    dtype, shape = draw(st.sampled_from(DTYPES)), draw(shapes)
    return Tensor(dtype, shape, noise(size_of(dtype, shape), draw(st.integers(0, 99))))


def noise(size: int, seed: int) -> bytes:
    """Bytes of a few values, so that frames of every mode appear."""
    source = random.Random(seed)
    return bytes(source.choices([0, 1, 2, 63, 128], k=size)) if seed % 3 else source.randbytes(size)


def nudged(tensor: Tensor, seed: int) -> Tensor:
    """A few bytes are others."""
    data, source = bytearray(tensor.data), random.Random(seed)
    for _ in range(1 + len(data) // 100):
        if data:
            data[source.randrange(len(data))] ^= 1 << source.randrange(8)
    return replace(tensor, data=bytes(data))


@st.composite
def models(draw: st.DrawFn) -> Model:
    """One to three safetensors files, and others; at least one file."""
    model: Model = {}
    for number in range(draw(st.integers(0, 3))):
        names = draw(st.lists(st.sampled_from(["a", "b", "c", "größe"]), unique=True, max_size=3))
        folder = draw(st.sampled_from(["", "", "part/"]))
        model[f"{folder}model-{number}.safetensors"] = {name: draw(tensors()) for name in names}
    for name in draw(st.lists(st.sampled_from(["config.json", "tok/vocab.txt", "empty"]), unique=True)):
        model[name] = (
            b"" if name == "empty" else noise(draw(st.integers(1, 300_000)), draw(st.integers(0, 99)))
        )
    return model or {"README.md": b"nothing here"}


@st.composite
def successors(draw: st.DrawFn, model: Model) -> Model:
    """Another version: tensors nudged, replaced, dropped, added, moved to other files; other files changed."""
    new: Model = {}
    pool: dict[str, Tensor] = {}
    for path, content in model.items():
        if isinstance(content, bytes):
            if draw(st.integers(0, 4)):
                changed = draw(st.booleans()) and content
                new[path] = content[:-1] + b"!" if changed else content
            continue
        for name, tensor in content.items():
            fate = draw(st.sampled_from(["same", "nudged", "nudged", "new", "dropped", "renamed"]))
            if fate == "new":
                pool[name] = draw(tensors())
            elif fate != "dropped":
                kept = nudged(tensor, draw(st.integers(0, 99))) if fate == "nudged" else tensor
                pool[f"{name}.1" if fate == "renamed" else name] = kept
    names = list(pool)
    for number in range(draw(st.integers(1, 3))):
        share, names = names[: 1 + len(names) // 2], names[1 + len(names) // 2 :]
        new[f"model-{number}.safetensors"] = {name: pool[name] for name in share}
    return new


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Model, Model]:
    old = draw(models())
    return old, draw(st.one_of(successors(old), models()))
