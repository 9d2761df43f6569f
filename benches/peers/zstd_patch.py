"""``zstd --patch-from``: the base as a prefix that matches may point into, in a window that spans both."""

from __future__ import annotations

from measure import Bytes

from .native import Scratch, ZstdContexts, ZstdLibrary, address, size
from .peer import Peer, PeerFailedError


class ZstdPatch(Peer):
    """The base is given by reference on each call, as the command line tool does; nothing is copied."""

    def __init__(self, library: ZstdLibrary, *, level: int) -> None:
        self.name = f"zstd-{level} --patch-from"
        self.variant = f"libzstd {library.name}"
        self._zstd = ZstdContexts(library, level)
        self._library = library
        self._payload = Scratch()

    def encode(self, target: Bytes, base: Bytes | None) -> Bytes:
        assert base is not None
        self._zstd.use_long_distance_window(max((target.size + base.size).bit_length(), 10))
        out = self._payload.at_least(self._zstd.bound(target.size))
        compressor = self._zstd.compressor
        self._library.call("ZSTD_CCtx_refPrefix", compressor, address(base), size(base.size))
        written = self._library.call(
            "ZSTD_compress2", compressor, address(out), size(out.size), address(target), size(target.size)
        )
        return out[:written]

    def decode(self, payload: Bytes, base: Bytes | None, out: Bytes) -> Bytes:
        assert base is not None
        decompressor = self._zstd.decompressor
        self._library.call("ZSTD_DCtx_refPrefix", decompressor, address(base), size(base.size))
        read = self._library.call(
            "ZSTD_decompressDCtx",
            decompressor,
            address(out),
            size(out.size),
            address(payload),
            size(payload.size),
        )
        if read != out.size:
            raise PeerFailedError(f"{self.name} decoded {read} of {out.size} bytes")
        return out
