"""What this process keeps of the last version's pieces, so that the next save need not read its bases.

One store for the process, by content: writers come and go, a save in another thread finds what the last one left.
Bounded by a budget; what there is no room for is decoded from the repository when it is needed.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

__all__ = ["HELD", "HeldPieces", "default_budget_bytes", "local_ranks"]

Bytes = npt.NDArray[np.uint8]
_MEMORY: Final = Path("/proc/meminfo")
# Where the machine does not say how much memory it has.
_UNKNOWN_BYTES: Final = 4 << 30


def default_budget_bytes(local_ranks: int) -> int:
    """Half of the memory that is free now, divided among the ranks of this machine."""
    try:
        with _MEMORY.open("rb", buffering=0) as file:
            _, _, rest = file.read(4096).partition(b"MemAvailable:")
        free = int(rest.split(None, 1)[0]) << 10
    except (OSError, ValueError, IndexError):
        free = _UNKNOWN_BYTES
    return free // 2 // max(1, local_ranks)


@dataclass(slots=True)
class _Piece:
    """What is held of a piece: its last bytes and, where there is room, those that its chain of deltas begins with."""

    latest: str
    root: str | None
    round: int


class HeldPieces:
    """Bytes by digest. Thread-safe; whoever is given some must not let another save run before it is done with them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._budget_bytes = 0
        self._used = 0
        self._pieces: dict[Hashable, _Piece] = {}
        self._bytes: dict[str, tuple[Bytes, int]] = {}
        self._round = 0

    @property
    def used_bytes(self) -> int:
        return self._used

    def begin(self, budget_bytes: int) -> None:
        """A save begins: what earlier ones did not touch may go, if room is needed."""
        with self._lock:
            self._budget_bytes = budget_bytes
            self._round += 1
            self._make_room(0)

    def get(self, digest: str) -> memoryview | None:
        """The content, if it is held."""
        with self._lock:
            found = self._bytes.get(digest)
        return None if found is None else found[0].data

    def put(self, key: Hashable, digest: str, data: Any, *, is_root: bool) -> None:
        """The piece `key` has become `data`, whose digest is `digest`; `is_root` if it is stored without a base."""
        with self._lock:
            before = self._pieces.pop(key, None)
            if digest in self._bytes:
                self._hold(digest)
                self._leave(before, keep_root=not is_root)
                root = digest if is_root else before.root if before is not None else None
                self._pieces[key] = _Piece(digest, root, self._round)
                if is_root:
                    self._hold(digest)
                return
            spare = self._leave(before, keep_root=not is_root, size=data.nbytes)
            root = None if is_root or before is None else before.root
            room = spare if spare is not None else self._room(data.nbytes)
            if room is None and root is not None:  # the last bytes are worth more than the first ones
                self._release(root)
                root, room = None, self._room(data.nbytes)
            if room is None:
                return
            np.copyto(room, np.frombuffer(data, np.uint8))
            self._used += room.nbytes
            self._bytes[digest] = room, 2 if is_root else 1
            self._pieces[key] = _Piece(digest, digest if is_root else root, self._round)

    def clear(self) -> None:
        """Forgets everything."""
        with self._lock:
            self._pieces.clear()
            self._bytes.clear()
            self._used = 0

    # --- with the lock held -------------------------------------------------------------------------------

    def _hold(self, digest: str) -> None:
        data, users = self._bytes[digest]
        self._bytes[digest] = data, users + 1

    def _release(self, digest: str) -> Bytes | None:
        """One user less; the memory, if that was the last."""
        data, users = self._bytes[digest]
        if users > 1:
            self._bytes[digest] = data, users - 1
            return None
        del self._bytes[digest]
        self._used -= data.nbytes
        return data

    def _leave(self, piece: _Piece | None, *, keep_root: bool, size: int = -1) -> Bytes | None:
        """Lets go of what a piece had; memory of that size, if some came free."""
        if piece is None:
            return None
        freed = [self._release(piece.latest)]
        if piece.root is not None and not keep_root:
            freed.append(self._release(piece.root))
        fits = self._used + size <= self._budget_bytes
        return next((each for each in freed if each is not None and each.nbytes == size and fits), None)

    def _room(self, size: int) -> Bytes | None:
        return np.empty(size, np.uint8) if self._make_room(size) else None

    def _make_room(self, size: int) -> bool:
        """Frees pieces that the last save did not have, then roots: whether `size` bytes fit."""
        if self._used + size <= self._budget_bytes:
            return True
        for key in [key for key, piece in self._pieces.items() if piece.round < self._round - 1]:
            self._leave(self._pieces.pop(key), keep_root=False)
        for piece in self._pieces.values():
            if self._used + size <= self._budget_bytes:
                break
            if piece.root is not None and piece.root != piece.latest:
                self._release(piece.root)
                piece.root = None
        while self._used + size > self._budget_bytes and not size and self._pieces:
            self._leave(self._pieces.pop(next(iter(self._pieces))), keep_root=False)
        return self._used + size <= self._budget_bytes


HELD: Final = HeldPieces()
"""What this process holds."""


def local_ranks(world_size: int) -> int:
    """Ranks on this machine, as far as the launcher says."""
    said = os.environ.get("LOCAL_WORLD_SIZE", "")
    return int(said) if said.isdecimal() and int(said) else world_size
