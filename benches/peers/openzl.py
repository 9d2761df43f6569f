"""OpenZL on bf16: exponents split off, coded by its Huffman or FSE; sign and fraction stored.

Contexts are reused and its checksums are off, for none of the others writes one. Its API allocates results.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np

from measure import Bytes

from .peer import Peer, PeerUnavailableError

_OFF = 2


class OpenZL(Peer):
    """``coder``: "Huffman", "Fse" or "Entropy" (its own choice), the graph that takes the exponents."""

    def __init__(self, coder: str) -> None:
        try:
            self._zl: Any = import_module("openzl.ext")
        except ImportError as error:
            raise PeerUnavailableError(f"openzl is not installed ({error}): pip install openzl") from error
        zl = self._zl
        self.name = f"openzl {coder}"
        self._compressor = zl.Compressor()
        exponents = getattr(zl.graphs, coder)()(self._compressor)
        split = zl.nodes.BFloat16Deconstruct()
        self._compressor.select_starting_graph(
            split(self._compressor, zl.graphs.Store()(self._compressor), exponents)
        )
        self._encoder, self._decoder = zl.CCtx(), zl.DCtx()
        self._encoder.ref_compressor(self._compressor)
        parameters = {"StickyParameters": 1, "FormatVersion": zl.MAX_FORMAT_VERSION}
        parameters |= {"CompressedChecksum": _OFF, "ContentChecksum": _OFF}
        for name, value in parameters.items():
            self._encoder.set_parameter(getattr(zl.CParam, name), value)

    def encode(self, target: Bytes, base: Bytes | None) -> Bytes:
        numbers = self._zl.Input(self._zl.Type.Numeric, target.view(np.uint16))
        return np.frombuffer(self._encoder.compress([numbers]), dtype=np.uint8)

    def decode(self, payload: Bytes, base: Bytes | None, out: Bytes) -> Bytes:
        # The decoder takes bytes only: a payload that came from bytes is handed back as they were.
        whole = payload.base if isinstance(payload.base, bytes) else payload.tobytes()
        (result,) = self._decoder.decompress(whole)
        decoded: Bytes = result.content.as_nparray().view(np.uint8)
        return decoded
