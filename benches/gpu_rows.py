"""What the bench of a CUDA device measures: each function prepares, times by the device's clock, and checks outputs."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from gpu_arrays import Room, Scene
from peers.nvcomp import NvcompAns
from peers.peer import PeerFailedError, PeerUnavailableError
from textnlp_fast import _native, chunking, hashing
from textnlp_fast.delta import codec
from textnlp_fast.tensors.element_types import DTYPES

_BF16 = DTYPES["BF16"]
_NO_FRAME = b"\xff" * 4


@dataclass(frozen=True)
class Row:
    """One figure. ``weights_bytes`` went through in a round, ``moved_bytes`` were read or written for that."""

    name: str
    kind: str  # which goal it is held against
    weights_bytes: int
    moved_bytes: int
    seconds: tuple[float, ...]
    share: float | None = None  # of the weights' bytes, that coded ones take

    @property
    def median_s(self) -> float:
        return statistics.median(self.seconds)

    @property
    def weights_rate(self) -> float:
        """GB/s of weights."""
        return self.weights_bytes / self.median_s / 1e9

    @property
    def moved_rate(self) -> float:
        return self.moved_bytes / self.median_s / 1e9


class WrongOutputError(Exception):
    """A device gave other bytes than the core."""


def check(right: bool, what: str) -> None:
    if not right:
        raise WrongOutputError(f"{what}: the device's output is wrong")


@dataclass
class Bench:
    """Two rooms of equal size on a device, and how often to time."""

    device: int
    rounds: int
    base: Room
    out: Room

    def equal(self, what: str) -> None:
        """Checks that both rooms hold the same."""
        stats = codec.diff(self.base.whole, self.out.whole, dtype="U8")
        check(stats.changed == 0, what)

    def timed(self, work: _native.CudaWork, restore: _native.CudaWork | None = None) -> tuple[float, ...]:
        # The first round loads the kernels.
        return tuple(work.seconds(self.rounds + 1, restore)[1:])


def copy_row(bench: Bench, scene: Scene) -> Row:
    size = bench.base.size
    bench.base.fill(scene.base)
    work = _native.cuda_work_copy(bench.out.address, bench.base.address, size, bench.device)
    row = Row("copy on the device", "copy", size, 2 * size, bench.timed(work))
    bench.equal("copy")
    return row


def diff_row(bench: Bench, scene: Scene) -> Row:
    size = bench.base.size
    bench.base.fill(scene.base)
    bench.out.fill(scene.target)
    work = _native.cuda_work_diff([(bench.base.address, bench.out.address, size, _BF16)], bench.device)
    row = Row(f"statistics of a change, {scene.name}", "diff", size, 2 * size, bench.timed(work))
    copies, left = divmod(size, scene.base.size)
    whole = codec.diff(scene.base, scene.target, dtype="BF16").changed
    rest = codec.diff(scene.base[:left], scene.target[:left], dtype="BF16").changed if left else 0
    changed = int.from_bytes(work.result()[:8], "little")
    check(changed == copies * whole + rest, "diff")
    return row


def decode_row(bench: Bench, scene: Scene, *, in_place: bool) -> Row:
    """Every tensor of a tile's size; in place the old version is put back before each round, which is not timed."""
    tile, size = scene.target.size, bench.base.size // scene.target.size * scene.target.size
    has_base = scene.base.size != 0
    outs = [bench.out.address + at for at in range(0, size, tile)]
    bases = [0] * len(outs)
    restore = None
    if has_base:
        bench.base.fill(scene.base)
        bases = outs if in_place else [bench.base.address + at for at in range(0, size, tile)]
        restore = _native.cuda_work_copy(bench.out.address, bench.base.address, size, bench.device)
    payloads: list[object] = [scene.payload] * len(outs)
    work = _native.cuda_work_decode(payloads, bases, outs, [tile] * len(outs), bench.device)
    seconds = bench.timed(work, restore if in_place else None)
    check(work.result() == _NO_FRAME, f"decode {scene.name}")
    for begin in {0, size - tile}:
        check(np.array_equal(bench.out.read(begin, tile), scene.target), f"decode {scene.name}")
    name = f"decode, {scene.name}{', in place' if in_place else ''}"
    kind = "decode sparse" if scene.name in ("RL step", "first step") else "decode dense"
    moved = size + (size if has_base else 0) + len(scene.payload) * len(outs)
    return Row(name, kind, size, moved, seconds, scene.share)


def hash_row(bench: Bench, scene: Scene) -> Row:
    bench.base.fill(scene.target)
    parts = bench.base.parts(scene.target.size)
    work = _native.cuda_work_blake3([(part.address, part.size) for part in parts], bench.device)
    row = Row("BLAKE3", "hash", bench.base.size, bench.base.size, bench.timed(work))
    check(work.result()[:32] == hashing.blake3(scene.target[: parts[0].size]), "BLAKE3")
    return row


def chunk_rows(bench: Bench, scene: Scene) -> Iterator[Row]:
    """Cuts, and the keyed hashes of the chunks, which are many small spans."""
    bench.base.fill(scene.target)
    parts = bench.base.parts(scene.target.size)
    spans = [(part.address, part.size) for part in parts]
    size = bench.base.size
    work = _native.cuda_work_chunk(spans, bench.device)
    yield Row(f"chunks of {len(parts)} tensors", "chunk", size, size, bench.timed(work))
    found = np.frombuffer(work.result(), np.uint64)
    expected = chunking.boundaries(scene.target[: parts[0].size])
    counts, ends = found[: len(parts)], found[len(parts) :]
    check(np.array_equal(ends[: int(counts[0])], expected), "chunks")
    if len(parts) > 1:
        single = _native.cuda_work_chunk([(bench.base.address, size)], bench.device)
        yield Row("chunks of one tensor", "chunk", size, size, bench.timed(single))
        check(int(np.frombuffer(single.result()[:8], np.uint64)[0]) > 0, "chunks")
    pieces = [
        (address + int(begin), int(end - begin))
        for address, _ in spans
        for begin, end in zip([0, *expected[:-1].tolist()], expected.tolist(), strict=True)
        if address + int(end) <= bench.base.address + size
    ]
    hashes = _native.cuda_work_blake3(pieces, bench.device)
    total = sum(length for _, length in pieces)
    yield Row(f"BLAKE3 of {len(pieces)} chunks", "hash", total, total, bench.timed(hashes))
    check(hashes.result()[:32] == hashing.blake3(scene.target[: int(expected[0])]), "BLAKE3 of chunks")


def nvcomp_rows(bench: Bench, scene: Scene, *, xor: bool) -> Iterator[Row]:
    """nvCOMP's ANS on the target, or on its XOR with the base. Its calls allocate; that is timed with them."""
    peer = NvcompAns(bench.device)
    size = bench.base.size // 2 * 2
    bench.base.fill(scene.target)
    if xor:
        bench.out.fill(scene.base)
        _native.cuda_xor(bench.base.address, bench.out.address, bench.base.address, size, 0)
    whole = bench.base.whole
    source = peer.source(type(whole)(bench.base, 0, size, "<f2"))
    watch = _native.CudaWatch(bench.device)
    encoding, decoding = [], []
    for _ in range(bench.rounds + 1):
        watch.start()
        encoded = peer.encode(source)
        encoding.append(watch.stop())
        plan = peer.plan(encoded)
        watch.start()
        decoded = peer.decode(encoded, plan)
        decoding.append(watch.stop())
    if codec.diff(decoded, whole, dtype="U8").changed:
        raise PeerFailedError(f"{peer.name} gave back other bytes")
    share = peer.size_bytes(encoded) / size
    what = f"{scene.name}{', XOR' if xor else ''}"
    moved = int(size * (1 + share))
    yield Row(f"{peer.name} decode, {what}", "peer", size, moved, tuple(decoding[1:]), share)
    yield Row(f"{peer.name} encode, {what}", "peer", size, moved, tuple(encoding[1:]), share)


__all__ = [
    "Bench",
    "PeerFailedError",
    "PeerUnavailableError",
    "Row",
    "WrongOutputError",
    "chunk_rows",
    "copy_row",
    "decode_row",
    "diff_row",
    "hash_row",
    "nvcomp_rows",
]
