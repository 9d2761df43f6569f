"""bsdiff4: suffix sorting, the smallest of the general binary differs, at a few MB/s. For size only."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np

from measure import Bytes

from .peer import Peer, PeerUnavailableError


class Bsdiff(Peer):
    name = "bsdiff4"

    def __init__(self) -> None:
        try:
            self._package: Any = import_module("bsdiff4")
        except ImportError as error:
            raise PeerUnavailableError(f"bsdiff4 is not installed ({error}): pip install bsdiff4") from error

    def encode(self, target: Bytes, base: Bytes | None) -> Bytes:
        assert base is not None
        return np.frombuffer(self._package.diff(base.tobytes(), target.tobytes()), dtype=np.uint8)

    def decode(self, payload: Bytes, base: Bytes | None, out: Bytes) -> Bytes:
        assert base is not None
        return np.frombuffer(self._package.patch(base.tobytes(), payload.tobytes()), dtype=np.uint8)
