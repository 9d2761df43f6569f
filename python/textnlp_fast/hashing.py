"""BLAKE3, on every core or on a GPU, and the file hash of the Xet protocol.

All functions hash an array on a CUDA device there, in the order of ``stream`` (a ``cudaStream_t`` as an integer, by
default the default stream), and raise ``DeviceError`` where there is none. All other data is anything in host memory
with the buffer protocol or DLPack (``bytes``, ``memoryview``, numpy, torch) that is C-contiguous; its
bytes are hashed where they lie, without a copy and without the GIL. ``threads=0`` means all processors this
process may use; small inputs take fewer. A wrong argument raises ``InvalidInputError``. Objects that take data piece
by piece take host memory only.
"""

from __future__ import annotations

import importlib
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from textnlp_fast.errors import InvalidInputError, naming
from textnlp_fast.tensors.devices import on_device

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = [
    "Blake3",
    "Blake3Piece",
    "blake3",
    "blake3_hex",
    "blake3_join",
    "blake3_many",
    "blake3_spans",
    "derive_key",
    "xet_file_hash",
    "xet_hash",
]

# Read at a time by xet_hash for each thread, which is the memory it takes: some sixty chunks, and still in the
# cache when they are hashed.
_CHUNK_BYTES = 1024
_WINDOW_BYTES = 4 << 20
_MOST_WINDOWS = 16


class _Hasher(Protocol):
    def update(self, data: object, threads: int) -> None: ...
    def digest(self) -> bytes: ...
    def copy(self) -> _Hasher: ...


class _Piece(Protocol):
    def update(self, data: object, threads: int) -> None: ...
    def values(self) -> bytes: ...


class _XetHasher(Protocol):
    def add(self, data: object, ends: object, threads: int) -> None: ...
    def add_hashed(self, hashes: object, ends: object) -> None: ...
    def take(self, data: object, last: bool, threads: int) -> int: ...
    def hexdigest(self) -> str: ...


class _Native(Protocol):
    def blake3(self, data: object, key: object, threads: int) -> bytes: ...
    def blake3_spans(
        self, data: object, ends: object, key: object, threads: int
    ) -> npt.NDArray[np.uint8]: ...
    def cuda_blake3(self, arrays: list[object], key: bytes | None, stream: int) -> list[bytes]: ...
    def cuda_blake3_spans(
        self, data: object, ends: object, key: bytes | None, stream: int
    ) -> npt.NDArray[np.uint8]: ...
    def cuda_chunk_boundaries(self, arrays: list[object], stream: int) -> list[npt.NDArray[np.uint64]]: ...

    xet_chunk_key: bytes

    def Blake3Hasher(self, key: object, context: str | None) -> _Hasher: ...
    def Blake3Piece(self, first_chunk: int) -> _Piece: ...
    def blake3_join(self, values: bytes, size_bytes: int, piece_bytes: int) -> bytes: ...
    def XetHasher(self) -> _XetHasher: ...
    def default_threads(self) -> int: ...


_native = cast(_Native, importlib.import_module("textnlp_fast._native"))


def blake3(data: object, *, key: bytes | None = None, threads: int = 0, stream: int | None = None) -> bytes:
    """The 32-byte BLAKE3 digest of ``data``; the keyed hash (a MAC) with a ``key`` of 32 bytes.

    Source: O'Connor, Aumasson, Neves, Wilcox-O'Hearn, "BLAKE3: one function, fast everywhere" (2020).
    """
    if on_device(data):
        return _native.cuda_blake3([data], key, stream or 0)[0]
    return _native.blake3(data, key, _checked(threads))


def blake3_hex(data: object, *, key: bytes | None = None, threads: int = 0, stream: int | None = None) -> str:
    """The digest of ``blake3`` as 64 hexadecimal digits."""
    return blake3(data, key=key, threads=threads, stream=stream).hex()


def blake3_many(
    arrays: Sequence[object],
    *,
    threads: int = 0,
    stream: int | None = None,
    names: Sequence[str] | None = None,
) -> list[bytes]:
    """The digest of each of many buffers: for arrays on a device in one launch, however small they are.

    ``names``: of the buffers, for messages of errors; an error about one of them has its place as ``job``.
    """
    with naming(names, len(arrays)):
        if any(on_device(array) for array in arrays):
            return _native.cuda_blake3(list(arrays), None, stream or 0)
        return [_native.blake3(array, None, _checked(threads)) for array in arrays]


def blake3_spans(
    data: object,
    ends: object,
    *,
    key: bytes | None = None,
    threads: int = 0,
    stream: int | None = None,
) -> npt.NDArray[np.uint8]:
    """The digests of consecutive spans of ``data``: a uint8 array of shape (spans, 32).

    ``ends``: numpy uint64 array of shape (spans,), the offset behind each span in bytes, never falling and
    within the data; a span may be empty, and bytes behind the last end are not hashed. Row ``i`` is
    ``blake3(data[ends[i - 1] : ends[i]], key=key)``. Many small spans go at the speed of one large hash, for
    neighbours share the vectors; a span of a megabyte or more takes all the threads by itself.
    """
    if on_device(data):
        return _native.cuda_blake3_spans(data, _as_ends(ends), key, stream or 0)
    return _native.blake3_spans(data, _as_ends(ends), key, _checked(threads))


def derive_key(context: str, material: object, *, threads: int = 0) -> bytes:
    """A 32-byte key from secret ``material``. ``context``: a constant of the application, never a secret."""
    hasher = _native.Blake3Hasher(None, context)
    hasher.update(material, _checked(threads))
    return hasher.digest()


class Blake3:
    """BLAKE3 over data that comes in pieces. Large pieces go at the speed of the one-shot call.

    Safe to share between threads: calls take their turn.
    """

    __slots__ = ("_hasher",)
    name = "blake3"
    digest_size = 32
    block_size = 64

    def __init__(self, *, key: bytes | None = None) -> None:
        self._hasher = _native.Blake3Hasher(key, None)

    def update(self, data: object, *, threads: int = 0) -> None:
        """Feed the bytes of ``data``."""
        self._hasher.update(data, _checked(threads))

    def digest(self) -> bytes:
        """The digest (32 bytes) of all that was fed so far; more may follow."""
        return self._hasher.digest()

    def hexdigest(self) -> str:
        """The digest as 64 hexadecimal digits."""
        return self._hasher.digest().hex()

    def copy(self) -> Blake3:
        """An independent hash that has been fed the same bytes."""
        clone = Blake3.__new__(Blake3)
        clone._hasher = self._hasher.copy()
        return clone


class Blake3Piece:
    """A piece of an input, hashed by itself: out of order, on another thread, in another process.

    It starts at byte ``offset`` of the input, a multiple of 1024. What it leaves, :func:`blake3_join` makes the digest
    of. Safe to share between threads: calls take their turn.
    """

    __slots__ = ("_piece",)

    def __init__(self, offset: int) -> None:
        if offset < 0 or offset % _CHUNK_BYTES:
            raise InvalidInputError(
                f"offset: a piece starts at a multiple of {_CHUNK_BYTES}, not at {offset}"
            )
        self._piece = _native.Blake3Piece(offset // _CHUNK_BYTES)

    def update(self, data: object, *, threads: int = 1) -> None:
        """Feed the bytes of ``data``."""
        self._piece.update(data, _checked(threads))

    def values(self) -> bytes:
        """The roots of the subtrees that all that was fed so far consists of, 32 bytes each, in order.

        One where a piece has 1024 times a power of two bytes and starts at a multiple of its size, a few else.
        """
        return self._piece.values()


def blake3_join(values: bytes, *, size_bytes: int, piece_bytes: int) -> bytes:
    """The digest of an input of ``size_bytes`` that was hashed in pieces of ``piece_bytes``, the last one shorter.

    ``values``: what all pieces left, in order. ``piece_bytes`` is a multiple of 1024, and there are two pieces at
    least. Raises ``InvalidInputError`` where these are not as many values as such pieces leave.
    """
    return _native.blake3_join(values, size_bytes, piece_bytes)


def xet_file_hash(data: object, ends: object, *, threads: int = 0, stream: int | None = None) -> str:
    """The Xet hash of ``data``, cut into chunks at ``ends``: 64 digits, as the Hugging Face hub shows it.

    ``ends``: numpy uint64 array of shape (chunks,), the offset behind each chunk in bytes, rising strictly;
    the last is the length of the data, and an empty file has none.
    """
    hasher = _native.XetHasher()
    offsets = _as_ends(ends)
    if on_device(data):
        hasher.add_hashed(
            _native.cuda_blake3_spans(data, offsets, _native.xet_chunk_key, stream or 0), offsets
        )
        return hasher.hexdigest()
    size_bytes = memoryview(data).nbytes if isinstance(data, bytes | bytearray | memoryview) else None
    if size_bytes is not None and size_bytes != (offsets[-1] if len(offsets) else 0):
        raise InvalidInputError(f"ends: the last must be the length of the data, {size_bytes} bytes")
    hasher.add(data, offsets, _checked(threads))
    return hasher.hexdigest()


def xet_hash(source: str | os.PathLike[str] | object, *, threads: int = 0, stream: int | None = None) -> str:
    """The Xet hash of a file (``str`` or ``os.PathLike``) or of a buffer, as the Hugging Face hub shows it.

    A file is read once, in windows of 4 MiB for each thread, at most 64 MiB. Raises ``OSError`` when it cannot be read.
    An array on a device is cut and its chunks are hashed there; the tree over them is made here.
    """
    _checked(threads)
    hasher = _native.XetHasher()
    if isinstance(source, str | os.PathLike):
        with Path(source).open("rb", buffering=0) as file:
            _take_stream(hasher, file, threads)
    elif on_device(source):
        return xet_file_hash(source, _native.cuda_chunk_boundaries([source], stream or 0)[0], stream=stream)
    else:
        hasher.take(source, True, threads)
    return hasher.hexdigest()


def _take_stream(hasher: _XetHasher, file: io.RawIOBase, threads: int) -> None:
    """Chunks depend on no byte before their start, so each window starts where the last sure chunk ended."""
    size_bytes = _WINDOW_BYTES * min(threads or _native.default_threads(), _MOST_WINDOWS)
    window = memoryview(bytearray(size_bytes))
    filled = 0
    at_end = False
    while not at_end:
        while filled < size_bytes and not at_end:
            count = file.readinto(window[filled:])
            filled += count or 0
            at_end = not count
        used = hasher.take(window[:filled], at_end, threads)
        window[: filled - used] = window[used:filled]
        filled -= used


def _as_ends(ends: object) -> memoryview[int]:
    """A view as unsigned 64-bit integers; other element types are refused rather than converted."""
    view = cast("memoryview[int]", memoryview(ends))  # type: ignore[arg-type]
    if view.ndim != 1 or view.itemsize != 8 or view.format not in {"Q", "L", "<Q", "<L", "=Q"}:
        raise InvalidInputError("ends: must be a one-dimensional numpy.uint64 array; use chunking.boundaries")
    return view


def _checked(threads: int) -> int:
    if threads < 0:
        raise InvalidInputError(f"threads: must be 0 (all processors) or more, not {threads}")
    return threads
