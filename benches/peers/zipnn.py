"""ZipNN, alone or on the XOR with a base.

Its core reorders the bits of its input in place, so that the caller's weights are destroyed unless they are
copied first; its Python layer makes such a copy in fresh memory on each call and does not use it. Here the
core is called directly on a copy in memory that stays touched (the XOR needs such memory anyway), and its
output is checked once against the Python layer's.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np

from measure import Bytes

from .native import Scratch
from .peer import Peer, PeerFailedError, PeerUnavailableError

_HEADER_BYTES = 32
# By dtype: its name there, then planes, bit reorder, byte reorder and chunk bytes that its Python layer (0.5) passes.
_DTYPES = {
    "BF16": ("bfloat16", 2, 1, 10, 256 * 1024),
    "F16": ("float16", 2, 0, 10, 256 * 1024),
    "F32": ("float32", 4, 1, 220, 256 * 1024),
    "F8_E4M3": ("float8_e4m3fn", 1, 1, 10, 128 * 1024),
    "F8_E5M2": ("float8_e5m2", 1, 1, 10, 128 * 1024),
}
# Threshold, percent before giving up, threads.
_CORE_LIMITS = (0.95, 10, 1)


class ZipNN(Peer):
    """``xor``: code ``target ^ base``; otherwise ``base`` is ignored."""

    def __init__(self, *, xor: bool, dtype: str = "BF16") -> None:
        try:
            self._core: Any = import_module("zipnn_core")
            package: Any = import_module("zipnn")
        except ImportError as error:
            raise PeerUnavailableError(
                f"zipnn is not installed ({error}): pip install zipnn torch"
            ) from error
        if dtype not in _DTYPES:
            raise PeerUnavailableError(f"zipnn codes no {dtype}: it has no figure there.")
        name, planes, bits, order, chunk = _DTYPES[dtype]
        self.name = "XOR zipnn" if xor else "zipnn"
        self._xor = xor
        self._arguments = (planes, bits, order, 0, chunk, *_CORE_LIMITS)
        self._api = package.ZipNN(input_format="byte", bytearray_dtype=name, threads=1)
        self._input = Scratch()
        self._headers: dict[int, bytes] = {}

    def encode(self, target: Bytes, base: Bytes | None) -> Bytes:
        work = self._input.at_least(target.size)[: target.size]
        if target.size not in self._headers:
            self._learn_header(target)
        if self._xor:
            assert base is not None
            np.bitwise_xor(target, base, out=work)
        else:
            work[:] = target
        header = self._headers[target.size]
        return np.frombuffer(self._core.zipnn_core(header, work.data, *self._arguments), dtype=np.uint8)

    def decode(self, payload: Bytes, base: Bytes | None, out: Bytes) -> Bytes:
        decoded = np.frombuffer(self._api.decompress(payload.data), dtype=np.uint8)
        if not self._xor:
            return decoded
        assert base is not None
        return np.bitwise_xor(decoded, base, out=out)

    def _learn_header(self, sample: Bytes) -> None:
        reference: bytes = self._api.compress(sample.tobytes())
        header = reference[:_HEADER_BYTES]
        if self._core.zipnn_core(header, sample.copy().data, *self._arguments) != reference:
            raise PeerFailedError(
                "zipnn's core and its Python layer disagree: the arguments of the core have changed"
            )
        self._headers[sample.size] = header
