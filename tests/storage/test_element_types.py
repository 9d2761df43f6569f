"""Every element type that safetensors has, in odd shapes, through repositories, patches and differences."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors

from textnlp_fast.delta import apply_patch, codec, create_patch
from textnlp_fast.errors import SafetensorsError
from textnlp_fast.storage import Repository
from textnlp_fast.storage.explain_files import explain_files
from textnlp_fast.tensors import DTYPE_BITS

Makers = Any
# Empty ones, a row, odd numbers, and more than a window. Eight elements of any type fill whole bytes.
SHAPES = ((0,), (3, 0, 8), (8,), (7, 1, 8), (1, 24), (2, 3, 1000), (5000, 8))


def write(path: Path, tensors: dict[str, tuple[str, tuple[int, ...], bytes]]) -> Path:
    header, end = {}, 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [end, end + len(data)]}
        end += len(data)
    text = json.dumps(header).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(t[2] for t in tensors.values()))
    return path


def versions(folder: Path, dtype: str) -> tuple[Path, Path]:
    """Two versions of a model of every shape; of the second some bytes differ."""
    rng = np.random.default_rng(DTYPE_BITS[dtype])
    bits = DTYPE_BITS[dtype]
    old, new = {}, {}
    for number, shape in enumerate((*SHAPES, *([()] if bits % 8 == 0 else []))):
        size = math.prod(shape) * bits // 8
        data = rng.normal(0, 30, size).astype(np.int8).view(np.uint8)
        changed = data + (rng.random(size) < (0.3 if number % 2 else 0.002)).astype(np.uint8)
        old[f"t{number}"] = dtype, shape, data.tobytes()
        new[f"t{number}"] = dtype, shape, changed.tobytes()
    return write(folder / "old" / "m.safetensors", old), write(folder / "new" / "m.safetensors", new)


@pytest.mark.parametrize("dtype", sorted(DTYPE_BITS))
def test_every_type_comes_back(tmp_path: Path, repository: Repository, makers: Makers, dtype: str) -> None:
    old, new = versions(tmp_path, dtype)
    try:
        safetensors.deserialize(old.read_bytes())
    except safetensors.SafetensorError as error:
        pytest.skip(f"not a type of the installed safetensors: {error}")
    repository.push(old, "m", "1.0.0")
    repository.push(new, "m", "1.1.0")
    for version, file in (("1.0.0", old), ("1.1.0", new)):
        repository.pull("m", version, tmp_path / version)
        assert makers.tree(tmp_path / version) == makers.tree(file.parent)
    assert repository.verify().ok
    create_patch(old.parent, new.parent, tmp_path / "p.tnpatch")
    apply_patch(tmp_path / "p.tnpatch", old.parent, tmp_path / "patched")
    assert makers.tree(tmp_path / "patched") == makers.tree(new.parent)
    assert (tmp_path / "p.tnpatch").stat().st_size < new.stat().st_size / 3

    changed = {f"t{number}" for number in range(5, 7)}
    rows = {row.name: row for row in repository.diff("m", "1.0.0", "1.1.0")}
    assert all(rows[name].status == "changed" for name in changed)
    assert all(row.status == "same" for row in rows.values() if row.size == 0)
    explained = explain_files(old, new, with_rank=False)
    assert changed <= {change.side.name for change in explained.changes if change.status == "changed"}


@pytest.mark.parametrize(
    ("dtype", "shape", "size"),
    [
        ("F4", [3], 2),
        ("F4", [1, 1], 1),
        ("F6_E2M3", [3], 3),
        ("F6_E3M2", [2], 1),
        ("F8_E8M0", [2], 1),
        ("F8_E4M3FNUZ", [4], 5),
        ("C64", [1], 4),
        ("F5", [8], 5),
    ],
)
def test_pieces_of_bytes_are_refused(
    tmp_path: Path, repository: Repository, dtype: str, shape: list[int], size: int
) -> None:
    file = write(tmp_path / "m.safetensors", {"t": (dtype, tuple(shape), bytes(size))})
    with pytest.raises(SafetensorsError, match="tensor 't'"):
        repository.push(file, "m", "1.0.0")
    with pytest.raises(SafetensorsError, match="tensor 't'"):
        create_patch(file, file, tmp_path / "p.tnpatch")
    assert not (tmp_path / "p.tnpatch").exists()


@pytest.mark.parametrize(("dtype", "same_fields"), [("F8_E4M3FNUZ", "F8_E4M3"), ("C64", "F32")])
def test_types_are_coded_as_those_with_the_same_fields(
    tmp_path: Path, repository: Repository, dtype: str, same_fields: str
) -> None:
    """As small as under the name that the codec knows, while values are told under their own."""
    rng = np.random.default_rng(1)
    if dtype == "C64":
        old = rng.normal(0, 1, 1 << 15).astype("<f4").view(np.uint32)
        new = old + rng.integers(0, 9, old.size).astype(np.uint32)
    else:
        half = rng.normal(0, 1, 1 << 17).astype("<f2").view(np.uint16)
        old = (half >> 8 & 0x80 | half >> 7 & 0x7F).astype(np.uint8)
        # Low exponents change more often.
        new = old + (rng.random(old.size) < 2.0 ** -((old >> 3 & 15) / 2)).astype(np.uint8)
    shape = (old.nbytes * 8 // DTYPE_BITS[dtype],)
    files = [
        write(tmp_path / f"{version}" / "m.safetensors", {"t": (dtype, shape, words.tobytes())})
        for version, words in enumerate((old, new))
    ]
    repository.push(files[0], "m", "1.0.0")
    report = repository.push(files[1], "m", "1.1.0")

    def size(name: str) -> int:
        return len(codec.encode(new.tobytes(), old.tobytes(), dtype=name, frame_size_bytes=1 << 12))

    assert report.stored_bytes == size(same_fields)
    assert size(same_fields) < 0.95 * size("OPAQUE")
