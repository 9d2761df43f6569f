"""Who runs in which bench, and in which variants."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from formats import FORMATS

from .bitx import BitX
from .bsdiff import Bsdiff
from .gaps import GapsAndValues
from .native import zstd_libraries
from .openzl import OpenZL
from .pcodec import PCodec
from .peer import Peer, PeerUnavailableError
from .planes import BytePlanes
from .xdelta import XDelta
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


def _gaps(level: int, width: int = 2) -> Sequence[Peer]:
    blocks = (1 << 17, 1 << 19, 1 << 22)
    return [
        GapsAndValues(library, block, width=width, level=level)
        for library in zstd_libraries()
        for block in blocks
    ]


def _bitx(width: int = 2) -> Sequence[Peer]:
    return [BitX(library, block, width=width) for library in zstd_libraries() for block in BLOCKS]


def _planes() -> Sequence[Peer]:
    return [BytePlanes(library, block) for library in zstd_libraries() for block in BLOCKS]


def _openzl(dtype: str, coders: Sequence[str], *, xor: bool) -> Sequence[Peer]:
    """Each coder in each layout that suits; fp8 and integers are one plane."""
    layouts = ["planes"]
    if dtype in ("BF16", "F32"):
        layouts = ["float", "planes"] if xor else ["float"]
    elif (
        dtype == "F16"
    ):  # its float split keeps sign and fraction, 11 bits, in 16: no use where those are stored
        layouts = ["float", "planes"] if xor else ["planes"]
    return [OpenZL(coder, dtype=dtype, xor=xor, layout=layout) for layout in layouts for coder in coders]


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
            "openzl Huffman": lambda: _openzl("BF16", ("Huffman", "Entropy"), xor=False),
            "openzl FSE": lambda: _openzl("BF16", ("Fse",), xor=False),
            "planes zstd-1": _planes,
        },
        missing,
    )


# Published ways to store or move a version as a difference. The others of ``delta_size`` are general coders of
# numbers, to which this bench hands an XOR or a difference in a layout that suits them.
RECIPES = (
    "BitX",
    "gaps+values zstd-3",
    "gaps+values zstd-1",
    "XOR zipnn",
    "zstd-3 --patch-from",
    "xdelta3 -9",
    "bsdiff4",
)


def delta_size(missing: list[str], dtype: str = "BF16") -> Roster:
    """Peers of the size table that code against a base."""
    width = FORMATS[dtype].width
    return _roster(
        {
            "BitX": lambda: _bitx(width),
            "gaps+values zstd-3": lambda: _gaps(3, width),
            "gaps+values zstd-1": lambda: _gaps(1, width),
            "XOR zipnn": lambda: [ZipNN(xor=True, dtype=dtype)],
            "zstd-3 --patch-from": lambda: [ZstdPatch(zstd_libraries()[0], level=3)],
            "xdelta3 -9": lambda: [XDelta("djw"), XDelta("lzma")],
            "bsdiff4": lambda: [Bsdiff()],
            "XOR openzl": lambda: _openzl(dtype, ("Fse", "Entropy", "Zstd"), xor=True),
            "XOR pcodec": lambda: [PCodec(8, dtype=dtype, residual="XOR")],
            "ULP pcodec": lambda: [PCodec(8, dtype=dtype, residual="ULP")],
        },
        missing,
    )


def standalone_size(missing: list[str], dtype: str = "BF16") -> Roster:
    """Peers of the size table that code one tensor by itself."""
    builders: dict[str, Callable[[], Sequence[Peer]]] = {
        "zipnn": lambda: [ZipNN(xor=False, dtype=dtype)],
        "openzl Huffman": lambda: _openzl(dtype, ("Huffman", "Entropy"), xor=False),
        "openzl FSE": lambda: _openzl(dtype, ("Fse",), xor=False),
        "pcodec 8": lambda: [PCodec(8, dtype=dtype)],
    }
    if FORMATS[dtype].width == 2:
        builders["planes zstd-1"] = _planes
    return _roster(builders, missing)
