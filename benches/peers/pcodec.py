"""pcodec on the bits of the elements as unsigned integers (it has no bf16): classic mode, no delta of its own.

With a base it gets either the XOR or the difference in ULPs. The second is our own residual and not a thing that
its users have at hand; it shows what is left when a good general coder is given it.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np

from formats import FORMATS
from measure import Bytes

from .peer import Peer, PeerUnavailableError


class PCodec(Peer):
    """``level``: 0 to 12, its own default is 8. ``residual``: what a base is used for, "" for nothing."""

    def __init__(self, level: int = 8, *, dtype: str = "BF16", residual: str = "") -> None:
        try:
            package: Any = import_module("pcodec")
        except ImportError as error:
            raise PeerUnavailableError(f"pcodec is not installed ({error}): pip install pcodec") from error
        self.name = f"{residual} pcodec {level}".strip()
        self._format, self._residual = FORMATS[dtype], residual
        self._standalone = package.standalone
        self._config = package.ChunkConfig(
            compression_level=level,
            mode_spec=package.ModeSpec.classic(),
            delta_spec=package.DeltaSpec.no_op(),
            enable_8_bit=True,
        )

    def encode(self, target: Bytes, base: Bytes | None) -> Bytes:
        numbers = self._format.words(target)
        if self._residual == "XOR":
            assert base is not None
            numbers = numbers ^ self._format.words(base)
        elif self._residual == "ULP":
            assert base is not None
            numbers = self._format.ulps(target, base)
        return np.frombuffer(self._standalone.simple_compress(numbers, self._config), dtype=np.uint8)

    def decode(self, payload: Bytes, base: Bytes | None, out: Bytes) -> Bytes:
        whole = payload.base if isinstance(payload.base, bytes) else payload.tobytes()
        words = self._format.words(out)
        if self._residual == "ULP":
            assert base is not None
            ulps = np.empty(words.size, f"<i{self._format.width}")
            self._standalone.simple_decompress_into(whole, ulps)
            words[:] = self._format.moved(base, ulps)
            return out
        self._standalone.simple_decompress_into(whole, words)
        if self._residual:
            assert base is not None
            words ^= self._format.words(base)
        return out
