"""Buffers that end where memory ends: a read or a write past them is a segmentation fault, not luck."""

from __future__ import annotations

import ctypes
import mmap
from typing import Any

import numpy as np
import numpy.typing as npt


class Guarded:
    """Room for ``size`` bytes whose end touches a page that may be neither read nor written."""

    def __init__(self, size: int) -> None:
        page = mmap.PAGESIZE
        self.size = -(-size // page) * page
        self.memory = mmap.mmap(-1, self.size + page)
        self.bytes: npt.NDArray[Any] = np.frombuffer(self.memory, dtype=np.uint8)
        protect = ctypes.CDLL(None, use_errno=True).mprotect
        protect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        if protect(self.bytes.ctypes.data + self.size, page, 0) != 0:
            raise OSError(ctypes.get_errno(), "mprotect")

    def room(self, size: int) -> npt.NDArray[Any]:
        """The last ``size`` bytes, filled with a pattern."""
        view = self.bytes[self.size - size : self.size]
        view[:] = 0xA5
        return view

    def place(self, data: bytes) -> npt.NDArray[Any]:
        """The last bytes, holding ``data``."""
        view = self.bytes[self.size - len(data) : self.size]
        view[:] = np.frombuffer(data, dtype=np.uint8)
        return view
