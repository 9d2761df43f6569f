"""Byte planes + zstd, without a base: what a general compressor makes of bf16 with its bytes sorted."""

from __future__ import annotations

from measure import Bytes

from .native import Scratch, ZstdContexts, ZstdLibrary, address, check, kernels, size
from .peer import Peer


class BytePlanes(Peer):
    """``block_words``: 16-bit elements per pair of zstd frames. ``base`` is ignored."""

    def __init__(self, library: ZstdLibrary, block_words: int, *, level: int = 1) -> None:
        self.name = f"planes zstd-{level}"
        self.variant = f"libzstd {library.name}, planes of {block_words >> 10} KiB"
        self._kernels = kernels()
        self._zstd = ZstdContexts(library, level)
        self._block = block_words
        self._planes, self._payload = Scratch(), Scratch()

    def encode(self, target: Bytes, base: Bytes | None) -> Bytes:
        words = target.size // 2
        block = min(self._block, max(words, 1))
        out = self._payload.at_least(-(-words // block) * 2 * (self._zstd.bound(block) + 4))
        planes = self._planes.at_least(2 * block)
        written = self._kernels.planes_encode(
            self._zstd.reference, address(target), size(words), size(block), address(planes),
            address(out), size(out.size),
        )  # fmt: skip
        return out[: check(written, self.name)]

    def decode(self, payload: Bytes, base: Bytes | None, out: Bytes) -> Bytes:
        words = out.size // 2
        block = min(self._block, max(words, 1))
        planes = self._planes.at_least(2 * block)
        read = self._kernels.planes_decode(
            self._zstd.reference, address(payload), size(payload.size), size(words), size(block),
            address(planes), address(out),
        )  # fmt: skip
        check(read, self.name, expected=payload.size)
        return out
