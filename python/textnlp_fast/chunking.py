"""Content-defined chunking: cut bytes where their content says so; an edit moves only the cuts beside it.

The Gear hash with the parameters of the public Xet protocol: a chunk ends behind the byte at which the hash
of the last 64 bytes has its top 16 bits zero, once the chunk has 8 KiB; at the latest at 128 KiB. The target
is 64 KiB. The same bytes give the same chunks for any number of threads, any processor and any cutting of a
stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from textnlp_fast import _native
from textnlp_fast.errors import naming
from textnlp_fast.tensors.devices import on_device

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = [
    "MAX_CHUNK_BYTES",
    "MIN_CHUNK_BYTES",
    "TARGET_CHUNK_BYTES",
    "Chunker",
    "boundaries",
    "boundaries_many",
]

MIN_CHUNK_BYTES: int = _native.min_chunk_bytes
MAX_CHUNK_BYTES: int = _native.max_chunk_bytes
TARGET_CHUNK_BYTES: int = 65536


def boundaries(data: Any, *, threads: int = 0, stream: int | None = None) -> npt.NDArray[np.uint64]:
    """Returns the end offsets (exclusive) of the chunks of ``data``: ascending, the last one is its length.

    ``data`` is anything with the buffer protocol or a CPU tensor (DLPack), C-contiguous; it is read in place
    with the GIL released, on up to ``threads`` threads (0: all). An array on a CUDA device is cut there, in the
    order of ``stream`` (a ``cudaStream_t`` as an integer, by default the default stream). Empty data has no chunks.

    Raises:
        InvalidInputError: ``data`` is no such buffer.
        DeviceError: there is no device, or it failed.
    """
    if on_device(data):
        return _native.cuda_chunk_boundaries([data], stream or 0)[0]
    return _native.chunk_boundaries(data, threads)


def boundaries_many(
    arrays: Sequence[Any],
    *,
    threads: int = 0,
    stream: int | None = None,
    names: Sequence[str] | None = None,
) -> list[npt.NDArray[np.uint64]]:
    """``boundaries`` of each of many buffers: for arrays on a device in one go, however small they are.

    ``names``: of the buffers, for messages of errors; an error about one of them has its place as ``job``.
    """
    with naming(names, len(arrays)):
        if any(on_device(array) for array in arrays):
            return _native.cuda_chunk_boundaries(list(arrays), stream or 0)
        return [_native.chunk_boundaries(array, threads) for array in arrays]


class Chunker:
    """Chunks of data that comes in pieces: the same as ``boundaries`` of the whole, however it is cut."""

    __slots__ = ("_chunker",)

    def __init__(self) -> None:
        self._chunker = _native.Chunker()

    @property
    def bytes_fed(self) -> int:
        """Bytes taken since the start or the last ``finish``."""
        fed: int = self._chunker.bytes_fed
        return fed

    def feed(self, data: Any, *, threads: int = 0) -> npt.NDArray[np.uint64]:
        """Takes the next bytes, in host memory; returns the ends, from the first byte fed, of the chunks now complete.

        A feed of some megabytes runs at full speed; what it ends with, less than 128 KiB, stays open. Feed
        one chunker from one thread at a time.

        Raises:
            InvalidInputError: ``data`` is not a C-contiguous buffer; nothing was taken.
        """
        ends: npt.NDArray[np.uint64] = self._chunker.feed(data, threads)
        return ends

    def finish(self) -> npt.NDArray[np.uint64]:
        """Ends the data: returns the last chunk's end, or nothing if it is complete. Starts anew."""
        ends: npt.NDArray[np.uint64] = self._chunker.finish()
        return ends
