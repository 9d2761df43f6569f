"""Whole calls of the package on a CUDA device, in wall time: encoding, swapping, loading; what a build has of them."""

from __future__ import annotations

import json
import struct
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import textnlp_fast
from gpu_arrays import Part, Room, Scene
from gpu_rows import Bench, Row, check
from measure import Bytes
from textnlp_fast import _native, hashing, loading
from textnlp_fast.delta import codec
from textnlp_fast.delta.create import create_patch
from textnlp_fast.errors import TextnlpFastError


class NotInThisBuildError(Exception):
    """A call that is to be measured is not there, or not for arrays on a device; the message says why."""


@dataclass(frozen=True)
class CallFigure:
    """A call that makes weights on a device; what it reads lies in host memory, or in its page cache.

    ``kind``: "swap", which has goals, or "load".
    """

    kind: str

    name: str
    resident_bytes: int
    seconds: tuple[float, ...]
    extra_bytes: int | None  # of device memory, at its peak; None where the device does not tell


def encode_rows(bench: Bench, scene: Scene, standalone: Scene) -> Iterator[Row]:
    """`encode_into` of one large tensor, to a payload that stays on the device; by the device's clock."""
    if not hasattr(codec, "encode_many"):
        raise NotInThisBuildError("this build does not encode on a device")
    size, tile = bench.out.size, scene.target.size
    # Tiles then are whole frames, and those of the first make the payload that the core makes of it.
    frame = min(tile, codec.DEFAULT_FRAME_SIZE_BYTES)
    payload = Room(codec.encode_bound(size, frame_size_bytes=frame), bench.device)
    watch = _native.CudaWatch(bench.device)
    for coded, base in ((scene, bench.base.whole), (standalone, None)):
        bench.base.fill(scene.base)
        bench.out.fill(coded.target)
        seconds = []
        for _ in range(bench.rounds + 1):
            watch.start()
            written = codec.encode_into(
                bench.out.whole, payload.whole, base, dtype="BF16", frame_size_bytes=frame
            )
            seconds.append(watch.stop())
        name = f"encode, {coded.name}"
        check(payload.read(0, len(coded.payload)).tobytes() == coded.payload, name)
        moved = size * (1 if base is None else 2) + written
        yield Row(name, "encode", size, moved, tuple(seconds[1:]), written / size)


def decode_call(scene: Scene, size_bytes: int, device: int, rounds: int) -> CallFigure:
    """What a swap does at its heart: one `decode_many` over all weights, in place, from payloads in host memory."""
    tile = scene.target.size
    resident = Room(max(1, size_bytes // tile) * tile, device)
    parts = resident.parts(tile)
    payloads = [scene.payload] * len(parts)
    before = _native.cuda_pool_peak(device, True)
    before = _native.cuda_pool_peak(device, False)
    seconds = []
    for _ in range(rounds + 1):
        resident.fill(scene.base)
        started = time.perf_counter()
        codec.decode_many(payloads, parts, parts)
        seconds.append(time.perf_counter() - started)
    extra = _native.cuda_pool_peak(device, False) - before
    for part in (parts[0], parts[-1]):
        check(np.array_equal(resident.read(part.begin, part.size), scene.target), "decode_many")
    name = f"decode_many in place, {scene.name}"
    return CallFigure("swap", name, resident.size, tuple(seconds[1:]), extra if before else None)


def _turned(data: Bytes, number: int) -> Bytes:
    """Another tensor of the same statistics: equal ones would be stored, and loaded, once."""
    return np.roll(data, 4096 * number)


def _write_model(path: Path, data: Bytes, names: list[str]) -> None:
    """A safetensors file of equal tensors of bf16."""
    header = {
        name: {
            "dtype": "BF16",
            "shape": [data.size // 2],
            "data_offsets": [n * data.size, (n + 1) * data.size],
        }
        for n, name in enumerate(names)
    }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for n in range(len(names)):
            _turned(data, n).tofile(file)


def load_call(scene: Scene, size_bytes: int, device: int, rounds: int) -> CallFigure:
    """`load` of a version that was pushed as a change of another: read, verified, decoded."""
    load = getattr(loading, "load", None)
    if load is None:
        raise NotInThisBuildError("this build does not load into a device")
    tile = scene.target.size
    names = [f"layer.{n}.weight" for n in range(max(1, size_bytes // tile))]
    with tempfile.TemporaryDirectory() as folder:
        for version, data in (("1.0.0", scene.base), ("1.0.1", scene.target)):
            model = Path(folder) / version
            model.mkdir()
            _write_model(model / "model.safetensors", data, names)
            textnlp_fast.push(model, f"{folder}/repository", name="model", version=version)
        seconds = []
        _native.cuda_pool_peak(device, True)
        before = _native.cuda_pool_peak(device, False)
        for _ in range(rounds + 1):
            started = time.perf_counter()
            tensors = load("model", "1.0.1", repository=f"{folder}/repository", device=f"cuda:{device}")
            seconds.append(time.perf_counter() - started)
            digests = hashing.blake3_many([tensors[names[0]], tensors[names[-1]]])
            del tensors
        extra = _native.cuda_pool_peak(device, False) - before - len(names) * tile
    expected = [hashing.blake3(_turned(scene.target, n)) for n in (0, len(names) - 1)]
    check(digests == expected, "load")
    name = f"load of a version, {scene.name}"
    return CallFigure("load", name, len(names) * tile, tuple(seconds[1:]), extra if before else None)


def swap_call(scene: Scene, size_bytes: int, device: int, rounds: int) -> CallFigure:
    """`textnlp_fast.swap` with a patch file; digests are checked, and the way back is kept, as in a server."""
    tile = scene.target.size
    names = [f"layer.{n}.weight" for n in range(max(1, size_bytes // tile))]
    resident = Room(len(names) * tile, device)
    model = {name: Part(resident, n * tile, tile, "<u2") for n, name in enumerate(names)}
    with tempfile.TemporaryDirectory() as folder:
        old, new, patch = (Path(folder) / name for name in ("old.safetensors", "new.safetensors", "patch"))
        _write_model(old, scene.base, names)
        _write_model(new, scene.target, names)
        create_patch(old, new, patch, strategy="dense")
        seconds = []
        _native.cuda_pool_peak(device, True)
        before = _native.cuda_pool_peak(device, False)
        for _ in range(rounds + 1):
            for part, n in zip(model.values(), range(len(names)), strict=True):
                resident.write(part.begin, _turned(scene.base, n))
            started = time.perf_counter()
            try:
                textnlp_fast.swap(model, patch)
            except TextnlpFastError as error:
                raise NotInThisBuildError(f"swap refused the arrays: {error.args[0]}") from error
            seconds.append(time.perf_counter() - started)
        extra = _native.cuda_pool_peak(device, False) - before
    last = len(names) - 1
    for n in (0, last):
        check(np.array_equal(resident.read(n * tile, tile), _turned(scene.target, n)), "swap")
    return CallFigure(
        "swap", f"swap, {scene.name}", resident.size, tuple(seconds[1:]), extra if before else None
    )
