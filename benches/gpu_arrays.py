"""Memory of a CUDA device for the benches, by the package's own means: no framework is needed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from measure import Bytes
from pairs import Pair, family_pairs, real_checkpoints, real_pairs
from textnlp_fast import _native
from textnlp_fast.delta import codec

#: What is measured of each family: which pair stands for it, in the shared data and in the one trained here.
SCENES = {
    "RL step": ("rl_0100 -> rl_0101", "sgd_0099 -> sgd_0100, BF16"),
    "first step": ("base -> rl_0001", "base -> sgd_0001, BF16"),
    "fine-tune": ("base -> sft_0100", "base -> lion_0100, BF16"),
    "pre-training": ("pre_0600 -> pre_0700", None),
}


class Room:
    """Bytes of a device; also an array there, by ``__cuda_array_interface__``."""

    def __init__(self, size_bytes: int, device: int) -> None:
        self._memory = _native.DeviceMemory(size_bytes, device, 0)
        self.address, self.size, self.device = self._memory.address, size_bytes, device

    def fill(self, tile: Bytes) -> None:
        """``tile`` over and over; only once over the bus."""
        done = min(tile.size, self.size)
        _native.cuda_write(self.address, tile[:done], self.device, 0)
        while done < self.size:
            step = min(done, self.size - done)
            _native.cuda_move(self.address + done, self.address, step, self.device, 0)
            done += step

    def write(self, begin: int, data: Bytes) -> None:
        _native.cuda_write(self.address + begin, data, self.device, 0)

    def read(self, begin: int, size: int) -> Bytes:
        data = np.empty(size, np.uint8)
        _native.cuda_read(self.address + begin, data, self.device, 0)
        return data

    def parts(self, size: int) -> list[Part]:
        """Arrays of ``size`` bytes, one after the other."""
        return [Part(self, begin, min(size, self.size - begin)) for begin in range(0, self.size, size)]

    @property
    def whole(self) -> Part:
        return Part(self, 0, self.size)


@dataclass(frozen=True)
class Part:
    """Some of a room, as an array of elements of ``typestr``."""

    room: Room
    begin: int
    size: int
    typestr: str = "|u1"

    @property
    def address(self) -> int:
        return self.room.address + self.begin

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "shape": (self.size // int(self.typestr[2:]),),
            "typestr": self.typestr,
            "data": (self.address, False),
            "version": 3,
        }


@dataclass(frozen=True)
class Scene:
    """A pair of versions laid out as large tensors: ``tile`` bytes of each, and what they are coded to."""

    name: str
    pair: str
    base: Bytes
    target: Bytes
    payload: bytes

    @property
    def share(self) -> float:
        """Payload bytes per byte of weights."""
        return len(self.payload) / self.target.size


def _tile(data: Bytes, size_bytes: int) -> Bytes:
    # Elements stay whole, and repeats do not fall on the borders of frames.
    return np.tile(data, -(-size_bytes // data.size))[: size_bytes // 64 * 64].copy()


def _found() -> dict[str, Pair]:
    real = {pair.name: pair for pair in real_pairs()}
    if real:
        return {scene: real[names[0]] for scene, names in SCENES.items()}
    made = {pair.name: pair for pair in family_pairs(("BF16",))}
    return {scene: made[names[1]] for scene, names in SCENES.items() if names[1] is not None}


def load_scenes(tile_bytes: int, say: Callable[[str], None]) -> tuple[list[Scene], Scene]:
    """The pairs, coded by the core, and a checkpoint by itself."""
    scenes = []
    for name, pair in _found().items():
        target, base = (_tile(side, tile_bytes) for side in pair.joined())
        scenes.append(Scene(name, pair.name, base, target, codec.encode(target, base, dtype="BF16")))
        say(f"{name}: {pair.name}, {scenes[-1].share * 16:.3f} bits a weight")
    alone = scenes[-1].target
    name = "sft_0100" if real_checkpoints() else "of the last pair"
    standalone = Scene("standalone", name, alone[:0], alone, codec.encode(alone, dtype="BF16"))
    say(f"standalone: {standalone.share * 16:.3f} bits a weight")
    return scenes, standalone
