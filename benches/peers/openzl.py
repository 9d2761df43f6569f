"""OpenZL: alone, or on the XOR with a base.

Alone, exponents are split off and coded by its Huffman or FSE; sign and fraction are stored. (fp16: byte planes.)
On the XOR, what is stored alone is worth coding too: either both halves of its float split, or every byte plane of
its transpose, go into one of its coders. Integers and fp8 are one plane. Contexts are reused and its checksums are
off, for none of the others writes one. Its API allocates results.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np

from formats import FORMATS
from measure import Bytes

from .native import Scratch
from .peer import Peer, PeerUnavailableError

_OFF = 2
_SPLITS = {"BF16": "BFloat16Deconstruct", "F16": "Float16Deconstruct", "F32": "Float32Deconstruct"}


class OpenZL(Peer):
    """``coder``: the graph that takes the streams: "Huffman", "Fse", "Entropy" (its own choice) or "Zstd".

    ``layout``: "float", exponents apart from sign and fraction, or "planes", one stream for each byte of an element.
    """

    def __init__(self, coder: str, *, dtype: str = "BF16", xor: bool = False, layout: str = "float") -> None:
        try:
            self._zl: Any = import_module("openzl.ext")
        except ImportError as error:
            raise PeerUnavailableError(f"openzl is not installed ({error}): pip install openzl") from error
        zl = self._zl
        if layout == "float" and dtype not in _SPLITS:
            raise PeerUnavailableError(f"openzl has no float split for {dtype}")
        self.name = f"{'XOR ' if xor else ''}openzl {coder}"
        self.variant = f"{layout}, {coder}"
        self._xor, self._word = xor, FORMATS[dtype].word
        self._work = Scratch()
        self._compressor = zl.Compressor()
        coded = getattr(zl.graphs, coder)()(self._compressor)
        self._compressor.select_starting_graph(self._graph(coded, dtype, layout))
        self._encoder, self._decoder = zl.CCtx(), zl.DCtx()
        self._encoder.ref_compressor(self._compressor)
        parameters = {"StickyParameters": 1, "FormatVersion": zl.MAX_FORMAT_VERSION}
        parameters |= {"CompressedChecksum": _OFF, "ContentChecksum": _OFF}
        for name, value in parameters.items():
            self._encoder.set_parameter(getattr(zl.CParam, name), value)

    def _graph(self, coded: Any, dtype: str, layout: str) -> Any:
        zl, compressor = self._zl, self._compressor
        if layout == "float":
            split = getattr(zl.nodes, _SPLITS[dtype])()
            if not self._xor:
                return split(compressor, zl.graphs.Store()(compressor), coded)
            if dtype != "F32":
                return split(compressor, coded, coded)
            # Three bytes of sign and fraction are no input for an entropy coder: a stream for each.
            return split(compressor, zl.nodes.TransposeSplit()(compressor, coded), coded)
        planes = zl.nodes.TransposeSplit()(compressor, coded)
        return zl.nodes.ConvertNumToStructLE()(compressor, planes)

    def encode(self, target: Bytes, base: Bytes | None) -> Bytes:
        source = target
        if self._xor:
            assert base is not None
            source = np.bitwise_xor(target, base, out=self._work.at_least(target.size)[: target.size])
        numbers = self._zl.Input(self._zl.Type.Numeric, source.view(self._word))
        return np.frombuffer(self._encoder.compress([numbers]), dtype=np.uint8)

    def decode(self, payload: Bytes, base: Bytes | None, out: Bytes) -> Bytes:
        # The decoder takes bytes only: a payload that came from bytes is handed back as they were.
        whole = payload.base if isinstance(payload.base, bytes) else payload.tobytes()
        (result,) = self._decoder.decompress(whole)
        decoded: Bytes = result.content.as_nparray().view(np.uint8)
        if not self._xor:
            return decoded
        assert base is not None
        return np.bitwise_xor(decoded, base, out=out)
