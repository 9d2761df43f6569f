"""Who runs in which bench, and in which variants."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .bitx import BitX
from .native import PeerUnavailableError, zstd_libraries
from .peer import Peer

# Elements per zstd frame: planes of 64 KiB fit L2 twice over, 4 Mi hold a whole test tensor.
BLOCKS = (1 << 16, 1 << 17, 1 << 19, 1 << 22)


def _available(build: Callable[[], Sequence[Peer]], missing: list[str]) -> Sequence[Peer]:
    try:
        return build()
    except PeerUnavailableError as error:
        if str(error) not in missing:
            missing.append(str(error))
        return []


def delta_rivals(missing: list[str]) -> dict[str, Sequence[Peer]]:
    """Peers of the speed bench that code against a base, each with the variants it may choose from.

    What cannot run here is left out and named in ``missing``.
    """
    rivals: dict[str, Callable[[], Sequence[Peer]]] = {
        "BitX": lambda: [BitX(library, block) for library in zstd_libraries() for block in BLOCKS],
    }
    built = {name: _available(build, missing) for name, build in rivals.items()}
    return {name: peers for name, peers in built.items() if peers}


def standalone_rivals(missing: list[str]) -> dict[str, Sequence[Peer]]:
    """Peers of the speed bench that code one tensor by itself."""
    rivals: dict[str, Callable[[], Sequence[Peer]]] = {}
    built = {name: _available(build, missing) for name, build in rivals.items()}
    return {name: peers for name, peers in built.items() if peers}
