"""The compiled half of the peers: ``kernels.cpp``, and libzstd without the Python layer on top.

zstd is called through its C API with contexts that live as long as the peer and write into memory of the
bench, for the Python packages allocate a fresh result on every call. Two builds of libzstd are at hand on
most machines, the system's and the one inside the ``zstandard`` wheel; they differ by up to 20 %, so the
benches try both and let the peer have the faster.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import importlib.util
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from measure import OUT_DIRECTORY, Bytes, buffer

from .peer import PeerFailedError, PeerUnavailableError

_SOURCE = Path(__file__).parent / "kernels.cpp"
_FAILED = ctypes.c_size_t(-1).value
_LEVEL, _WINDOW_LOG, _LONG_DISTANCE, _D_WINDOW_LOG_MAX = 100, 101, 160, 100


class _ZstdFunctions(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_void_p)
        for name in ("compress", "decompress", "is_error", "compressor", "decompressor")
    ]


@functools.cache
def kernels() -> ctypes.CDLL:
    """Compile ``kernels.cpp`` for this machine (once per source) and load it."""
    compiler = os.environ.get("CXX", "c++")
    command = [compiler, "-O3", "-march=native", "-std=c++17", "-shared", "-fPIC"]
    key = hashlib.sha256(_SOURCE.read_bytes() + " ".join(command).encode()).hexdigest()[:16]
    library = OUT_DIRECTORY / f"peers-{key}.so"
    if not library.exists():
        library.parent.mkdir(parents=True, exist_ok=True)
        partial = library.with_suffix(f".{os.getpid()}.tmp")
        try:
            subprocess.run(
                [*command, "-o", str(partial), str(_SOURCE)], check=True, capture_output=True, text=True
            )
        except FileNotFoundError as error:
            raise PeerUnavailableError(
                f"no C++ compiler called {compiler}: install one or set CXX"
            ) from error
        except subprocess.CalledProcessError as error:
            raise PeerUnavailableError(
                f"{compiler} did not compile {_SOURCE.name}: {error.stderr}"
            ) from error
        partial.replace(library)
    loaded = ctypes.CDLL(str(library))
    for name in (
        *("bitx_encode", "bitx_decode", "planes_encode", "planes_decode"),
        *("gaps_encode", "gaps_apply", "pass_compare", "pass_exponents"),
    ):
        getattr(loaded, name).restype = ctypes.c_size_t
    return loaded


@dataclass(frozen=True)
class ZstdLibrary:
    """One build of libzstd, loaded."""

    name: str
    handle: ctypes.CDLL

    def call(self, function: str, *arguments: object, pointer: bool = False) -> int:
        entry = getattr(self.handle, function)
        entry.restype = ctypes.c_void_p if pointer else ctypes.c_size_t
        result = entry(*arguments)
        if not pointer and self.handle.ZSTD_isError(ctypes.c_size_t(result)):
            self.handle.ZSTD_getErrorName.restype = ctypes.c_char_p
            raise PeerFailedError(
                f"{function}: {self.handle.ZSTD_getErrorName(ctypes.c_size_t(result)).decode()}"
            )
        return int(result or 0)


@functools.cache
def zstd_libraries() -> tuple[ZstdLibrary, ...]:
    """Every libzstd found here whose C API can be called."""
    candidates = ["libzstd.so.1", "libzstd.1.dylib"]
    package = importlib.util.find_spec("zstandard")
    if package is not None and package.origin is not None:
        candidates += [str(path) for path in sorted(Path(package.origin).parent.glob("*.so"))]
    found: list[ZstdLibrary] = []
    for candidate in candidates:
        try:
            handle = ctypes.CDLL(candidate)
            number = handle.ZSTD_versionNumber()
            handle.ZSTD_compress2, handle.ZSTD_decompressDCtx, handle.ZSTD_CCtx_refPrefix  # noqa: B018
        except (OSError, AttributeError):
            continue  # not there, or a build that hides the API
        version = f"{number // 10000}.{number // 100 % 100}.{number % 100}"
        origin = "system" if candidate.startswith("libzstd") else "wheel"
        found.append(ZstdLibrary(f"{version} ({origin})", handle))
    if not found:
        raise PeerUnavailableError("no libzstd to call: install libzstd (libzstd1) or the zstandard wheel")
    return tuple(found)


class ZstdContexts:
    """A compression and a decompression context of one libzstd, as ``kernels.cpp`` takes them; reused."""

    def __init__(self, library: ZstdLibrary, level: int) -> None:
        self.library = library
        self.compressor = ctypes.c_void_p(library.call("ZSTD_createCCtx", pointer=True))
        self.decompressor = ctypes.c_void_p(library.call("ZSTD_createDCtx", pointer=True))
        self.set_parameter(_LEVEL, level)
        handle = library.handle
        functions = (handle.ZSTD_compress2, handle.ZSTD_decompressDCtx, handle.ZSTD_isError)
        addresses = [ctypes.cast(function, ctypes.c_void_p) for function in functions]
        self._functions = _ZstdFunctions(*addresses, self.compressor, self.decompressor)
        self.reference = ctypes.byref(self._functions)

    def set_parameter(self, parameter: int, value: int) -> None:
        self.library.call(
            "ZSTD_CCtx_setParameter", self.compressor, ctypes.c_int(parameter), ctypes.c_int(value)
        )

    def use_long_distance_window(self, window_log: int) -> None:
        """Let matches reach ``2**window_log`` bytes back, as ``zstd --long --patch-from`` does."""
        self.set_parameter(_WINDOW_LOG, window_log)
        self.set_parameter(_LONG_DISTANCE, 1)
        self.library.call(
            "ZSTD_DCtx_setParameter",
            self.decompressor,
            ctypes.c_int(_D_WINDOW_LOG_MAX),
            ctypes.c_int(window_log),
        )

    def bound(self, size_bytes: int) -> int:
        return self.library.call("ZSTD_compressBound", ctypes.c_size_t(size_bytes))


class Scratch:
    """Memory that grows to the largest size asked for and stays touched."""

    def __init__(self) -> None:
        self._memory = buffer(0)

    def at_least(self, size_bytes: int) -> Bytes:
        if self._memory.size < size_bytes:
            self._memory = buffer(size_bytes)
        return self._memory


def address(array: Bytes) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def size(count: int) -> ctypes.c_size_t:
    return ctypes.c_size_t(count)


def check(result: int, peer: str, *, expected: int | None = None) -> int:
    """Raise unless a kernel succeeded (and, where ``expected`` is given, consumed just that many bytes)."""
    if result == _FAILED or (expected is not None and result != expected):
        raise PeerFailedError(f"{peer}: the kernel returned {result}, expected {expected}")
    return result
