"""pcodec on the bits of bf16 as 16-bit integers (it has no bf16): classic mode, no delta."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np

from measure import Bytes

from .peer import Peer, PeerUnavailableError


class PCodec(Peer):
    """``level``: 0 to 12, its own default is 8."""

    def __init__(self, level: int = 8) -> None:
        try:
            package: Any = import_module("pcodec")
        except ImportError as error:
            raise PeerUnavailableError(f"pcodec is not installed ({error}): pip install pcodec") from error
        self.name = f"pcodec {level}"
        self._standalone = package.standalone
        self._config = package.ChunkConfig(
            compression_level=level,
            mode_spec=package.ModeSpec.classic(),
            delta_spec=package.DeltaSpec.no_op(),
        )

    def encode(self, target: Bytes, base: Bytes | None) -> Bytes:
        packed = self._standalone.simple_compress(target.view(np.uint16), self._config)
        return np.frombuffer(packed, dtype=np.uint8)

    def decode(self, payload: Bytes, base: Bytes | None, out: Bytes) -> Bytes:
        whole = payload.base if isinstance(payload.base, bytes) else payload.tobytes()
        self._standalone.simple_decompress_into(whole, out.view(np.uint16))
        return out
