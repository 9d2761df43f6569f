"""Zstandard, from Python 3.14's own module or the `zstandard` package: streams that give no more than is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, Final, Protocol, cast

from textnlp_fast.errors import CorruptDataError, MissingPackageError

__all__ = ["MAX_WINDOW_BYTES", "Packer", "Reader", "Unpacked", "packer"]

# What zstd itself accepts unless told otherwise: a frame that asks for a larger window is refused.
_MAX_WINDOW_LOG: Final = 27
MAX_WINDOW_BYTES: Final = 1 << _MAX_WINDOW_LOG
_READ_BYTES: Final = 1 << 17


class Reader(Protocol):
    """A source of bytes."""

    def read(self, size: int = -1, /) -> bytes:
        """Up to `size` bytes; empty at the end."""
        ...


class Packer(Protocol):
    """A frame in the making."""

    def compress(self, data: object, /) -> bytes:
        """Takes bytes; gives what is ready of the frame."""
        ...

    def flush(self) -> bytes:
        """Ends the frame: the rest of it."""
        ...


class Unpacked:
    """One zstd frame, read in parts. `what` names it in errors.

    Raises CorruptDataError if the bytes are no frame, MissingPackageError if nothing here reads zstd.
    """

    def __init__(self, compressed: Reader, what: str) -> None:
        self._what = what
        self._read, self._errors = _opened(compressed)

    def read(self, size_bytes: int) -> bytes:
        """Exactly `size_bytes`. CorruptDataError if the frame ends before."""
        parts = bytearray()
        while len(parts) < size_bytes:
            part = self._some(size_bytes - len(parts))
            if not part:
                raise CorruptDataError(
                    f"{self._what} is cut short: {size_bytes - len(parts)} bytes are missing"
                )
            parts += part
        return bytes(parts)

    def skip(self, size_bytes: int) -> None:
        """Passes over `size_bytes`, with little memory."""
        while size_bytes:
            part = min(size_bytes, _READ_BYTES)
            self.read(part)
            size_bytes -= part

    def check_end(self) -> None:
        """Raises CorruptDataError if there is more."""
        if self._some(1):
            raise CorruptDataError(f"{self._what} unpacks to more bytes than it may have")

    def _some(self, size_bytes: int) -> bytes:
        try:
            return self._read(size_bytes)
        except self._errors as error:
            raise CorruptDataError(f"{self._what} is no zstd frame: {error}") from error


def packer(level: int, size_bytes: int) -> Packer:
    """A frame whose head says that `size_bytes` are in it. Raises MissingPackageError."""
    module, builtin = _zstd()
    if builtin:
        made = module.ZstdCompressor(level=level)
        made.set_pledged_input_size(size_bytes)
        return cast(Packer, made)
    return cast(Packer, module.ZstdCompressor(level=level).compressobj(size=size_bytes))


def _opened(compressed: Reader) -> tuple[Callable[[int], bytes], type[Exception]]:
    module, builtin = _zstd()
    if not builtin:
        unpacker = module.ZstdDecompressor(max_window_size=MAX_WINDOW_BYTES)
        stream = unpacker.stream_reader(compressed, read_size=_READ_BYTES)
        return stream.read, module.ZstdError
    window = {module.DecompressionParameter.window_log_max: _MAX_WINDOW_LOG}
    unpacker = module.ZstdDecompressor(options=window)

    def read(size_bytes: int) -> bytes:
        while not unpacker.eof:
            more = compressed.read(_READ_BYTES) if unpacker.needs_input else b""
            if unpacker.needs_input and not more:
                break
            part = unpacker.decompress(more, max_length=size_bytes)
            if part:
                return cast(bytes, part)
        return b""

    return read, module.ZstdError


def _zstd() -> tuple[Any, bool]:
    """The module, and whether it is Python's own."""
    for name in ("compression.zstd", "zstandard"):
        try:
            return importlib.import_module(name), name != "zstandard"
        except ImportError:
            continue
    raise MissingPackageError(
        "this layout needs zstd, which comes with Python 3.14 or as a package",
        hint="pip install 'textnlp-fast[interop]'",
    )
