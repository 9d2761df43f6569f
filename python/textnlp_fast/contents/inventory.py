"""What is in a local directory, by digest: the contents of every file, hashed without loading any of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from textnlp_fast.chunking import Chunker
from textnlp_fast.contents.entries import DTYPE_OPAQUE, RESERVED_PREFIX, FileEntry, check_path, file_digest
from textnlp_fast.contents.windows import BufferPool, OpenFiles, Progress, ProgressCallback
from textnlp_fast.errors import InvalidInputError
from textnlp_fast.hashing import Blake3, blake3_hex, blake3_spans
from textnlp_fast.tensors import DTYPES, ModelFiles, OtherFile, SafetensorsFile, TensorInfo

__all__ = [
    "READ_BYTES",
    "Held",
    "LocalFile",
    "LocalPart",
    "check_unchanged",
    "coding_dtype",
    "digest_of_range",
    "file_entry",
    "layout_dtype",
    "scan_model",
    "take_file",
    "take_inventory",
]

# Small enough to be hashed out of the cache that the read has just filled.
READ_BYTES: Final = 1 << 20

# Types that the codec does not know, and those with the same fields; two numbers to an element of C64.
_LAYOUTS: Final = {"F8_E4M3FNUZ": "F8_E4M3", "F8_E5M2FNUZ": "F8_E5M2", "C64": "F32"}


@dataclass(frozen=True, slots=True)
class LocalPart:
    """A content inside a local file: a tensor, a header (`name` is empty) or a chunk.

    `dtype` is what the codec knows of its elements, `coded_as` the element type that its frames take: these may know
    the bits of a type whose values they do not know. `shape` is the tensor's, () for the others.
    """

    digest: str
    dtype: str
    offset: int
    size: int
    name: str = ""
    shape: tuple[int, ...] = ()
    layout: str | None = None

    @property
    def coded_as(self) -> str:
        return self.dtype if self.layout is None else self.layout


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A local file cut into contents that follow each other without gaps. `location` is where to open it."""

    path: str
    location: str
    size: int
    mtime_ns: int
    kind: Literal["safetensors", "blob"]
    parts: tuple[LocalPart, ...]


@dataclass(frozen=True, slots=True)
class Held:
    """Bytes of a content in a local file."""

    location: str
    offset: int


def file_entry(file: LocalFile) -> FileEntry:
    """The manifest's entry for a local file."""
    parts = tuple(part.digest for part in file.parts)
    names = tuple(part.name for part in file.parts[1:]) if file.kind == "safetensors" else ()
    return FileEntry(file.path, file.size, file.kind, file_digest(parts), parts, names)


def coding_dtype(dtype: str) -> str:
    """The codec's name for a safetensors dtype; bytes without a meaning where it knows none."""
    return dtype if dtype in DTYPES else DTYPE_OPAQUE


def layout_dtype(dtype: str) -> str:
    """The element type that frames of a safetensors dtype take: one whose bits lie in the same way."""
    return _LAYOUTS.get(dtype, coding_dtype(dtype))


def scan_model(path: str | os.PathLike[str]) -> ModelFiles:
    """The files at `path`, without this package's own records."""
    return ModelFiles.scan(path, exclude=[f"{RESERVED_PREFIX}*"])


def digest_of_range(files: OpenFiles, location: str, offset: int, size: int, buffers: BufferPool) -> str:
    """BLAKE3 of `size` bytes of a local file, read through one small reused buffer."""
    hasher = Blake3()
    with buffers.borrow() as buffer:
        for done in range(0, size, READ_BYTES):
            view = buffer[: min(READ_BYTES, size - done)]
            files.read(location, view, offset + done)
            hasher.update(view, threads=1)
    return hasher.hexdigest()


def take_inventory(
    path: str | os.PathLike[str],
    *,
    threads: int,
    sizes: frozenset[int] | None = None,
    progress: ProgressCallback | None = None,
) -> list[LocalFile]:
    """Hashes the files of a model, in the order of their paths.

    `sizes`, where given, are the tensor sizes in bytes that matter: other tensors and all other files are
    left out, and the files returned may then have gaps. Raises what `ModelFiles.scan` raises.
    """
    model = scan_model(path)
    jobs = _Jobs(threads, progress)
    found: list[tuple[str, Callable[[], LocalFile]]] = []
    with OpenFiles() as files:
        jobs.files = files
        for file in model.safetensors:
            found.append((file.name, jobs.safetensors(file, sizes)))
        if sizes is None:
            for other in model.others:
                found.append((other.name, jobs.blob(other)))
        jobs.run()
        return [collect() for _, collect in sorted(found, key=lambda pair: pair[0])]


def take_file(
    path: str | os.PathLike[str], *, threads: int, progress: ProgressCallback | None = None
) -> LocalFile:
    """Hashes one file of a model, of any kind. Raises what `ModelFiles.scan` raises of a file."""
    place = Path(path)
    jobs = _Jobs(threads, progress)
    with OpenFiles() as files:
        jobs.files = files
        if place.suffix.lower() == ".safetensors":
            collect = jobs.safetensors(SafetensorsFile.open(place), None)
        else:
            collect = jobs.blob(ModelFiles.other(place))
        jobs.run()
        return collect()


def check_unchanged(files: Iterable[LocalFile]) -> None:
    """Raises InvalidInputError if a file was written to since its inventory was taken."""
    for file in files:
        try:
            status = Path(file.location).stat()
            same = (status.st_size, status.st_mtime_ns) == (file.size, file.mtime_ns)
        except OSError:
            same = False
        if not same:
            raise InvalidInputError(
                f"{file.location} changed while it was read; nothing was published",
                hint="Run the command again when nothing writes to it.",
            )


def _neighbours(tensors: Sequence[TensorInfo]) -> Iterator[tuple[int, int]]:
    """Runs [first, last) of tensors that are read and hashed together: small ones that touch each other in the file."""
    first = 0
    for number, tensor in enumerate(tensors):
        begun = tensors[first]
        if number > first and (
            tensor.begin != tensors[number - 1].end or tensor.end - begun.begin > READ_BYTES
        ):
            yield first, number
            first = number
    if tensors:
        yield first, len(tensors)


class _Jobs:
    """Hashing of many ranges by a few threads, the largest ranges first."""

    def __init__(self, threads: int, progress: ProgressCallback | None) -> None:
        self.files = OpenFiles()
        self._threads = threads
        self._progress = progress
        self._jobs: list[tuple[int, Callable[[], None]]] = []
        self._buffers = BufferPool(READ_BYTES)
        self._lock = Lock()
        self._done = 0

    def safetensors(self, file: SafetensorsFile, sizes: frozenset[int] | None) -> Callable[[], LocalFile]:
        """Queues the tensors of a file; the returned call makes its entry once they are hashed."""
        check_path(file.name)
        location = str(file.path)
        status = Path(location).stat()
        if status.st_size != file.size:
            raise InvalidInputError(f"{location} changed while it was read")
        tensors = [tensor for tensor in file.tensors if sizes is None or tensor.size_bytes in sizes]
        digests = [""] * len(tensors)

        def hash_tensors(first: int, last: int) -> None:
            begin, size = tensors[first].begin, tensors[last - 1].end - tensors[first].begin
            if last == first + 1:
                digests[first] = digest_of_range(self.files, location, begin, size, self._buffers)
                return
            with self._buffers.borrow() as buffer:
                self.files.read(location, buffer[:size], begin)
                ends = np.array([tensor.end - begin for tensor in tensors[first:last]], np.uint64)
                found = blake3_spans(buffer[:size], ends, threads=1)
            digests[first:last] = [digest.tobytes().hex() for digest in found]

        for first, last in _neighbours(tensors):
            size = sum(tensor.size_bytes for tensor in tensors[first:last])
            self._jobs.append((size, lambda first=first, last=last: hash_tensors(first, last)))  # type: ignore[misc]
        header = LocalPart(blake3_hex(file.header_bytes), DTYPE_OPAQUE, 0, len(file.header_bytes))

        def collect() -> LocalFile:
            parts = (
                LocalPart(
                    digest,
                    coding_dtype(tensor.dtype),
                    tensor.begin,
                    tensor.size_bytes,
                    tensor.name,
                    tensor.shape,
                    layout_dtype(tensor.dtype),
                )
                for digest, tensor in zip(digests, tensors, strict=True)
            )
            return LocalFile(
                file.name, location, file.size, status.st_mtime_ns, "safetensors", (header, *parts)
            )

        return collect

    def blob(self, file: OtherFile) -> Callable[[], LocalFile]:
        """Queues the cutting and hashing of a file that is not safetensors."""
        check_path(file.name)
        location = str(file.path)
        status = Path(location).stat()
        parts: list[LocalPart] = []
        self._jobs.append((status.st_size, lambda: parts.extend(self._chunks(location, status.st_size))))
        return lambda: LocalFile(
            file.name, location, status.st_size, status.st_mtime_ns, "blob", tuple(parts)
        )

    def _chunks(self, location: str, size: int) -> list[LocalPart]:
        chunker = Chunker()
        parts: list[LocalPart] = []
        pending = bytearray()  # from `begin` on: at most a chunk and what was read last

        def close(ends: npt.NDArray[np.uint64]) -> None:
            begin = first = parts[-1].offset + parts[-1].size if parts else 0
            with memoryview(pending) as view:
                digests = blake3_spans(view, ends - np.uint64(first), threads=1)
            for digest, end in zip(digests, map(int, ends), strict=True):
                parts.append(LocalPart(digest.tobytes().hex(), DTYPE_OPAQUE, begin, end - begin))
                begin = end
            del pending[: begin - first]

        with self._buffers.borrow() as buffer:
            for done in range(0, size, READ_BYTES):
                view = buffer[: min(READ_BYTES, size - done)]
                self.files.read(location, view, done)
                pending += view
                close(chunker.feed(view, threads=1))
        close(chunker.finish())
        return parts

    def run(self) -> None:
        """Does the queued work; raises the first error."""
        total = sum(size for size, _ in self._jobs)

        def work(job: tuple[int, Callable[[], None]]) -> None:
            job[1]()
            with self._lock:
                self._done += job[0]
                if self._progress is not None:
                    self._progress(Progress("hash", self._done, total))

        ordered = sorted(self._jobs, key=lambda job: -job[0])
        with ThreadPoolExecutor(max(1, self._threads), thread_name_prefix="textnlp-fast-hash") as pool:
            for _ in pool.map(work, ordered):
                pass
