"""Who runs in which bench, and in which variants."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from .bitx import BitX
from .bsdiff import Bsdiff
from .gaps import GapsAndValues
from .native import zstd_libraries
from .openzl import OpenZL
from .pcodec import PCodec
from .peer import Peer, PeerUnavailableError
from .planes import BytePlanes
from .zipnn import ZipNN
from .zstd_patch import ZstdPatch

# Elements per zstd frame: planes of 64 KiB fit L2 many times over, 4 Mi hold a whole test tensor.
BLOCKS = (1 << 16, 1 << 17, 1 << 19, 1 << 22)

# A peer's name, and every variant of it that it may choose from: the fastest, or the smallest, speaks for it.
Roster: TypeAlias = dict[str, Sequence[Peer]]


def _roster(builders: dict[str, Callable[[], Sequence[Peer]]], missing: list[str]) -> Roster:
    built: Roster = {}
    for name, build in builders.items():
        try:
            built[name] = build()
        except PeerUnavailableError as error:
            if str(error) not in missing:
                missing.append(str(error))
    return built


def _gaps(level: int) -> Sequence[Peer]:
    blocks = (1 << 17, 1 << 19, 1 << 22)
    return [GapsAndValues(library, block, level=level) for library in zstd_libraries() for block in blocks]


def _bitx() -> Sequence[Peer]:
    return [BitX(library, block) for library in zstd_libraries() for block in BLOCKS]


def delta_speed(missing: list[str]) -> Roster:
    """Peers of the speed bench that code against a base; ``missing`` gets what cannot run here, and why."""
    return _roster(
        {
            "BitX": _bitx,
            "gaps+values zstd-3": lambda: _gaps(3),
            "gaps+values zstd-1": lambda: _gaps(1),
        },
        missing,
    )


def standalone_speed(missing: list[str]) -> Roster:
    """Peers of the speed bench that code one tensor by itself."""
    return _roster(
        {
            "zipnn": lambda: [ZipNN(xor=False)],
            "openzl Huffman": lambda: [OpenZL("Huffman"), OpenZL("Entropy")],
            "openzl FSE": lambda: [OpenZL("Fse")],
            "planes zstd-1": lambda: [
                BytePlanes(library, block) for library in zstd_libraries() for block in BLOCKS
            ],
        },
        missing,
    )


def delta_size(missing: list[str]) -> Roster:
    """Peers of the size table that code against a base."""
    return _roster(
        {
            "BitX": _bitx,
            "gaps+values zstd-3": lambda: _gaps(3),
            "gaps+values zstd-1": lambda: _gaps(1),
            "XOR zipnn": lambda: [ZipNN(xor=True)],
            "zstd-3 --patch-from": lambda: [ZstdPatch(zstd_libraries()[0], level=3)],
            "bsdiff4": lambda: [Bsdiff()],
        },
        missing,
    )


def standalone_size(missing: list[str]) -> Roster:
    """Peers of the size table that code one tensor by itself."""
    return _roster(
        {
            "zipnn": lambda: [ZipNN(xor=False)],
            "openzl Huffman": lambda: [OpenZL("Huffman"), OpenZL("Entropy")],
            "openzl FSE": lambda: [OpenZL("Fse")],
            "pcodec 8": lambda: [PCodec(8)],
            "planes zstd-1": lambda: [
                BytePlanes(library, block) for library in zstd_libraries() for block in BLOCKS
            ],
        },
        missing,
    )
