"""Gaps + values, as sparse updates of RL steps are shipped (PULSE and its kin).

Positions as gaps in bytes, the XOR of the changed words as byte planes, zstd on each of them.
Published variants differ in detail (32-bit gaps, whole new values); this layout is the smallest of those we
tried that does not borrow our own residual. Decoding patches the base in place; into another buffer it
copies the base first.
"""

from __future__ import annotations

import ctypes

from measure import Bytes

from .native import Scratch, ZstdContexts, ZstdLibrary, address, check, kernels, size
from .peer import Peer


class GapsAndValues(Peer):
    """``block_words``: elements of ``width`` (1, 2 or 4) bytes per group of zstd frames."""

    in_place = True

    def __init__(self, library: ZstdLibrary, block_words: int, *, width: int = 2, level: int) -> None:
        self.name = f"gaps+values zstd-{level}"
        self.variant = f"libzstd {library.name}, blocks of {block_words >> 10} Ki words"
        self._kernels = kernels()
        self._zstd = ZstdContexts(library, level)
        self._block, self._width = block_words, width
        self._streams, self._payload = Scratch(), Scratch()

    def encode(self, target: Bytes, base: Bytes | None) -> Bytes:
        assert base is not None
        words = target.size // self._width
        block = min(self._block, max(words, 1))
        bound = 8 + self._zstd.bound(2 * block) + 4 + self._width * (self._zstd.bound(block) + 4)
        out = self._payload.at_least(-(-words // block) * bound)
        streams = self._streams.at_least((2 + self._width) * (block + 64))
        written = self._kernels.gaps_encode(
            self._zstd.reference, address(target), address(base), size(words), size(self._width),
            size(block), address(streams), address(out), size(out.size),
        )  # fmt: skip
        return out[: check(written, self.name)]

    def decode(self, payload: Bytes, base: Bytes | None, out: Bytes) -> Bytes:
        assert base is not None
        if out is not base:
            ctypes.memmove(out.ctypes.data, base.ctypes.data, base.size)
        words = out.size // self._width
        block = min(self._block, max(words, 1))
        streams = self._streams.at_least((2 + self._width) * (block + 64))
        read = self._kernels.gaps_apply(
            self._zstd.reference, address(payload), size(payload.size), size(words), size(self._width),
            size(block), address(streams), address(out),
        )  # fmt: skip
        check(read, self.name, expected=payload.size)
        return out
