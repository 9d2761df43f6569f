"""The target of a patch, tensor by tensor and row by row, without making its files."""

from __future__ import annotations

import os
from dataclasses import dataclass
from math import prod
from threading import Lock

from textnlp_fast.contents.inventory import READ_BYTES, digest_of_range
from textnlp_fast.contents.windows import BufferPool, OpenFiles
from textnlp_fast.contents.working import thread_count
from textnlp_fast.delta.making import Maker
from textnlp_fast.delta.patch_file import PatchFile
from textnlp_fast.delta.source import held_places
from textnlp_fast.errors import CorruptDataError, DigestMismatchError, InvalidInputError, SafetensorsError
from textnlp_fast.hashing import blake3_hex
from textnlp_fast.tensors import DTYPE_BITS, parse_header

__all__ = ["PatchedModel", "TensorBytes"]

# More than the format allows a header to have.
_MAX_HEADER_BYTES = 128 << 20


@dataclass(frozen=True, slots=True)
class TensorBytes:
    """A tensor or some rows of one: `data` are its bytes, C-contiguous, of the safetensors `dtype` and `shape`."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    data: bytearray


@dataclass(frozen=True, slots=True)
class _Tensor:
    digest: str
    dtype: str
    shape: tuple[int, ...]


class PatchedModel:
    """The target of `patch_file` on top of the model at `source`. Thread-safe; made by `PatchFile.open`.

    Raises WrongBaseError if the source's files are not there in their sizes; their bytes are checked when they are
    first needed.
    """

    def __init__(
        self, patch_file: PatchFile, source: str | os.PathLike[str], *, check: bool, threads: int
    ) -> None:
        self._patch = patch_file.patch
        self._unchecked = set(self._patch.held) if check else set()
        self._held = held_places(self._patch, source)
        self._files = OpenFiles()
        self._threads = thread_count(threads)
        self._maker = Maker(patch_file, self._files, dict(self._held), threads=self._threads, bounded=True)
        self._buffers = BufferPool(READ_BYTES)
        self._lock = Lock()
        self._headers: dict[str, dict[str, _Tensor]] = {}
        if check:
            patch_file.check_payload(self._files)

    def __enter__(self) -> PatchedModel:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the files."""
        self._files.__exit__(None, None, None)

    @property
    def names(self) -> list[str]:
        """The tensors of the target, in the order of its files."""
        return [name for entry in self._patch.target.files for name in entry.names]

    def kind(self, name: str, *, file: str | None = None) -> tuple[str, tuple[int, ...]]:
        """A tensor's safetensors dtype and its shape. Raises InvalidInputError if there is none."""
        tensor = self._find(name, file)
        return tensor.dtype, tensor.shape

    def tensor(self, name: str, *, file: str | None = None) -> TensorBytes:
        """A whole tensor, checked against its digest. `file` says which, where several files have the name.

        Raises InvalidInputError if there is none, DigestMismatchError if it does not come out as it should.
        """
        tensor = self._find(name, file)
        return TensorBytes(name, tensor.dtype, tensor.shape, self._whole(tensor.digest))

    def rows(self, name: str, begin: int, end: int, *, file: str | None = None) -> TensorBytes:
        """Rows [begin, end) of a tensor: what its first dimension counts. Decodes the frames that cover them.

        A part cannot be held against the digest of the whole; with `check` (see `PatchFile.open`) the bytes that
        it is made of are. All rows are checked as `tensor` checks them.
        """
        tensor = self._find(name, file)
        if not tensor.shape or not 0 <= begin <= end <= tensor.shape[0]:
            raise InvalidInputError(
                f"tensor {name!r} of shape {list(tensor.shape)} has no rows {begin} to {end}",
                hint="Rows are counted from 0 along the first dimension; the end is not included.",
            )
        if end - begin == tensor.shape[0]:
            return TensorBytes(name, tensor.dtype, tensor.shape, self._whole(tensor.digest))
        row_bits = prod(tensor.shape[1:]) * DTYPE_BITS[tensor.dtype]
        if begin * row_bits % 8 or end * row_bits % 8:
            raise InvalidInputError(f"rows {begin} to {end} of tensor {name!r} do not fill whole bytes")
        self._check_needed(tensor.digest)
        data = bytearray((end - begin) * row_bits // 8)
        with memoryview(data) as view:
            self._maker.read_into(tensor.digest, begin * row_bits // 8, view)
        return TensorBytes(name, tensor.dtype, (end - begin, *tensor.shape[1:]), data)

    # --- parts --------------------------------------------------------------------------------------------

    def _find(self, name: str, file: str | None) -> _Tensor:
        for entry in self._patch.target.files:
            if name in entry.names and file in {None, entry.path}:
                return self._tensors(entry.path)[name]
        where = f"file {file!r} of the target" if file else "the target"
        raise InvalidInputError(f"{where} has no tensor {name!r}", hint="`names` lists those that it has.")

    def _tensors(self, path: str) -> dict[str, _Tensor]:
        """The tensors of a file, by what its header says of them."""
        with self._lock:
            if path in self._headers:
                return self._headers[path]
        entry = next(entry for entry in self._patch.target.files if entry.path == path)
        if self._patch.size_of(entry.parts[0]) > _MAX_HEADER_BYTES:
            raise CorruptDataError(f"the first content of {path!r} is no header: it is too large")
        try:
            header = parse_header(bytes(self._whole(entry.parts[0])), entry.size)
        except SafetensorsError as error:
            raise CorruptDataError(f"the header of {path!r}: {error.args[0]}") from error
        digests = dict(zip(entry.names, entry.parts[1:], strict=True))
        found = {
            tensor.name: _Tensor(digests.get(tensor.name, ""), tensor.dtype, tensor.shape)
            for tensor in header.tensors
        }
        sizes = {tensor.name: tensor.size_bytes for tensor in header.tensors}
        if sizes != {name: self._patch.size_of(digest) for name, digest in digests.items()}:
            raise CorruptDataError(f"the header of {path!r} names other tensors than the patch")
        with self._lock:
            return self._headers.setdefault(path, found)

    def _whole(self, digest: str) -> bytearray:
        data = bytearray(self._patch.size_of(digest))
        try:
            with memoryview(data) as view:
                self._maker.read_into(digest, 0, view)
        except CorruptDataError:
            # On another model frames decode to nothing: that one is to be named.
            self._check_needed(digest, again=True)
            raise
        actual = blake3_hex(data, threads=self._threads)
        if actual != digest:
            self._check_needed(digest, again=True)
            raise DigestMismatchError(
                f"the bytes of content {digest} make the digest {actual}",
                hint="The patch or its source was damaged: apply the patch to find out which.",
            )
        return data

    def _check_needed(self, digest: str, *, again: bool = False) -> None:
        """Checks the contents of the source that `digest` is made of, each once, or `again`."""
        waiting, seen = [digest], set[str]()
        while waiting:
            name = waiting.pop()
            if name in seen:
                continue
            seen.add(name)
            stored = self._patch.contents.get(name)
            if stored is not None:
                waiting += stored.base.source_sizes() if stored.base is not None else ()
                continue
            with self._lock:
                unchecked = name in self._unchecked
            if unchecked or again:
                self._check_held(name)
                with self._lock:
                    self._unchecked.discard(name)

    def _check_held(self, digest: str) -> None:
        place, size = self._held[digest], self._patch.held[digest].size
        actual = digest_of_range(self._files, place.location, place.offset, size, self._buffers)
        if actual != digest:
            raise DigestMismatchError(
                f"bytes of {place.location} changed: content {digest} makes the digest {actual}",
                hint="Get the model that the patch starts from; `textnlp-fast delta inspect` names it.",
            )
