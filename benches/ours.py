"""This package as one more contender, through its public Python call."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from measure import Bytes
from peers.native import Scratch
from peers.peer import Peer, PeerUnavailableError


def instruction_set() -> str:
    """The kernels that the core chose here (``TEXTNLP_FAST_ISA`` forces others)."""
    try:
        return str(import_module("textnlp_fast._native").isa_name())
    except ImportError:
        return "absent"


class Ours(Peer):
    """``textnlp_fast.delta.codec`` on one tensor; all tables and headers are in the payload."""

    name = "textnlp-fast"
    in_place = True

    def __init__(self, *, dtype: str = "BF16", threads: int = 1) -> None:
        try:
            self._codec: Any = import_module("textnlp_fast.delta.codec")
        except ImportError as error:
            raise PeerUnavailableError(f"textnlp-fast is not installed here: {error}") from error
        self._dtype, self._threads = dtype, threads
        self._payload = Scratch()

    def encode(self, target: Bytes, base: Bytes | None) -> Bytes:
        out = self._payload.at_least(self._codec.encode_bound(target.size))
        written = self._codec.encode_into(target, out, base, dtype=self._dtype, threads=self._threads)
        return out[:written]

    def decode(self, payload: Bytes, base: Bytes | None, out: Bytes) -> Bytes:
        self._codec.decode_into(payload, out, base, threads=self._threads)
        return out
