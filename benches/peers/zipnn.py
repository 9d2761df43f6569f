"""ZipNN on bf16, alone or on the XOR with a base.

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
# Planes, bit reorder, byte reorder, review, chunk bytes, threshold, percent before giving up, threads: what
# the Python layer (0.5) passes for bf16.
_CORE_ARGUMENTS = (2, 1, 10, 0, 256 * 1024, 0.95, 10, 1)


class ZipNN(Peer):
    """``xor``: code ``target ^ base``; otherwise ``base`` is ignored."""

    def __init__(self, *, xor: bool) -> None:
        try:
            self._core: Any = import_module("zipnn_core")
            package: Any = import_module("zipnn")
        except ImportError as error:
            raise PeerUnavailableError(
                f"zipnn is not installed ({error}): pip install zipnn torch"
            ) from error
        self.name = "XOR zipnn" if xor else "zipnn"
        self._xor = xor
        self._api = package.ZipNN(input_format="byte", bytearray_dtype="bfloat16", threads=1)
        self._input = Scratch()
        self._headers: dict[int, bytes] = {}

    def encode(self, target: Bytes, base: Bytes | None) -> Bytes:
        work = self._input.at_least(target.size)[: target.size]
        if target.size not in self._headers:
            self._learn_header(target)
        if self._xor:
            assert base is not None
            np.bitwise_xor(target.view(np.uint64), base.view(np.uint64), out=work.view(np.uint64))
        else:
            work[:] = target
        header = self._headers[target.size]
        return np.frombuffer(self._core.zipnn_core(header, work.data, *_CORE_ARGUMENTS), dtype=np.uint8)

    def decode(self, payload: Bytes, base: Bytes | None, out: Bytes) -> Bytes:
        decoded = np.frombuffer(self._api.decompress(payload.data), dtype=np.uint8)
        if not self._xor:
            return decoded
        assert base is not None
        np.bitwise_xor(decoded.view(np.uint64), base.view(np.uint64), out=out.view(np.uint64))
        return out

    def _learn_header(self, sample: Bytes) -> None:
        reference: bytes = self._api.compress(sample.tobytes())
        header = reference[:_HEADER_BYTES]
        if self._core.zipnn_core(header, sample.copy().data, *_CORE_ARGUMENTS) != reference:
            raise PeerFailedError(
                "zipnn's core and its Python layer disagree: the arguments of the core have changed"
            )
        self._headers[sample.size] = header
