"""BitX: XOR with the base, split into byte planes, zstd-3 on each plane (the recipe of the ZipLLM paper).

Written without waste: for 16-bit elements, XOR and split are one pass with 512-bit loads into planes that stay
in L2, joining and XOR are one pass back; contexts, planes and output are reused. What is left is zstd's own time.
"""

from __future__ import annotations

from measure import Bytes

from .native import Scratch, ZstdContexts, ZstdLibrary, address, check, kernels, size
from .peer import Peer


class BitX(Peer):
    """``block_words``: elements of ``width`` bytes per group of zstd frames (one frame a plane)."""

    in_place = True

    def __init__(self, library: ZstdLibrary, block_words: int, *, width: int = 2, level: int = 3) -> None:
        self.name = f"BitX zstd-{level}"
        self.variant = f"libzstd {library.name}, planes of {block_words >> 10} KiB"
        self._kernels = kernels()
        self._zstd = ZstdContexts(library, level)
        self._block, self._width = block_words, width
        self._planes, self._payload = Scratch(), Scratch()

    def encode(self, target: Bytes, base: Bytes | None) -> Bytes:
        assert base is not None
        words = target.size // self._width
        block = min(self._block, max(words, 1))
        frames = -(-words // block) * self._width
        out = self._payload.at_least(frames * (self._zstd.bound(block) + 4))
        planes = self._planes.at_least(self._width * block)
        written = self._kernels.bitx_encode(
            self._zstd.reference, address(target), address(base), size(words), size(self._width),
            size(block), address(planes), address(out), size(out.size),
        )  # fmt: skip
        return out[: check(written, self.name)]

    def decode(self, payload: Bytes, base: Bytes | None, out: Bytes) -> Bytes:
        assert base is not None
        words = out.size // self._width
        block = min(self._block, max(words, 1))
        planes = self._planes.at_least(self._width * block)
        read = self._kernels.bitx_decode(
            self._zstd.reference, address(payload), size(payload.size), address(base), size(words),
            size(self._width), size(block), address(planes), address(out),
        )  # fmt: skip
        check(read, self.name, expected=payload.size)
        return out
