"""The safetensors format, read as a stranger's file: every rule is checked before a byte of a tensor is used.

Layout (https://github.com/huggingface/safetensors, "Format"): eight bytes, the little-endian length N of the
header; N bytes of JSON, an object from tensor name to dtype, shape and data_offsets (begin and end behind the
header), with an optional ``__metadata__`` object of strings, perhaps padded with spaces; then the tensors'
bytes without gaps. Header bytes are kept as they are, so a file can be put together again exactly.
"""

from __future__ import annotations

import json
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from textnlp_fast.errors import InvalidInputError, SafetensorsError

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["DTYPE_BITS", "Header", "SafetensorsFile", "TensorInfo", "parse_header", "read_into"]

MAX_HEADER_BYTES = 100_000_000  # the format's own limit
_LENGTH_BYTES = 8
_MAX_COUNT = 2**64 - 1
# Those of 2**64 - 1. Also keeps Python from parsing huge integers, which takes quadratic time.
_MAX_INTEGER_DIGITS = 20
_ODD_INTEGER = re.compile(rb"-[0-9]|[0-9]{21}")
_READ_BYTES = 1 << 30
_LFS_POINTER = b"version https://git-lfs"

DTYPE_BITS = {
    "BOOL": 8,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "U8": 8,
    "I8": 8,
    "F8_E5M2": 8,
    "F8_E4M3": 8,
    "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "C64": 64,
    "F64": 64,
    "I64": 64,
    "U64": 64,
}
"""Bits of one element by the format's name of the dtype."""


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Where a tensor is: ``begin`` and ``end`` are byte offsets in the file, ``shape`` counts elements."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def size_bytes(self) -> int:
        """Bytes of the tensor's data."""
        return self.end - self.begin


@dataclass(frozen=True, slots=True)
class Header:
    """A header that keeps all the rules. ``tensors`` are in the order of their bytes in the file."""

    tensors: list[TensorInfo]
    metadata: dict[str, str]


@dataclass(frozen=True, slots=True)
class SafetensorsFile:
    """A safetensors file whose header was read and checked; of the data only its place is known.

    ``header_bytes`` are the file's first bytes, the eight of the length included; ``size`` is the file's, in
    bytes. ``path`` is where to read, ``name`` the file's place in its model (relative, with slashes).
    """

    path: Path
    name: str
    size: int
    header_bytes: bytes
    tensors: list[TensorInfo]
    metadata: dict[str, str]

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, name: str | None = None) -> SafetensorsFile:
        """Read and check the header of ``path``. ``SafetensorsError`` says what is wrong with it."""
        place = Path(path)
        try:
            fd = os.open(place, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe must not block the open
        except OSError as error:
            raise InvalidInputError(f"cannot open {place}: {error.strerror}") from error
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise InvalidInputError(f"{place} is not a regular file")
            header_bytes = _read_header(fd, status.st_size)
            header = parse_header(header_bytes, status.st_size)
        except SafetensorsError as error:
            raise SafetensorsError(f"{place}: {error.args[0]}", hint=error.hint) from error
        finally:
            os.close(fd)
        return cls(place, name or place.name, status.st_size, header_bytes, header.tensors, header.metadata)


def parse_header(header: bytes, file_size: int) -> Header:
    """Check a header against the format and the file's size in bytes.

    ``header`` starts with the eight bytes of the length and ends with the JSON. Raises ``SafetensorsError``
    with the tensor's name and the rule it breaks.
    """
    length = _header_length(header[:_LENGTH_BYTES], file_size)
    text = header[_LENGTH_BYTES:]
    if len(text) != length:
        raise SafetensorsError(f"the header has {len(text)} bytes and claims {length}")
    if not text.startswith(b"{"):
        raise SafetensorsError("the header does not start with '{'")
    entries = _parse_json(text)
    metadata = _metadata(entries.pop("__metadata__", None))
    data_begin = _LENGTH_BYTES + length
    tensors = [_tensor(name, entry, data_begin) for name, entry in entries.items()]
    tensors.sort(key=lambda tensor: (tensor.begin, tensor.end))
    position = data_begin
    for tensor in tensors:
        if tensor.begin != position:
            what = "overlaps the tensor before it" if tensor.begin < position else "leaves a hole before it"
            raise SafetensorsError(
                f"tensor {_shown(tensor.name)} {what}: begins at {tensor.begin - data_begin}, "
                f"the data so far ends at {position - data_begin}"
            )
        position = tensor.end
    if position != file_size:
        raise SafetensorsError(f"the tensors end at byte {position}, the file at {file_size}")
    return Header(tensors, metadata)


def read_into(source: int | str | os.PathLike[str], offset: int, buffer: Buffer) -> None:
    """Fill ``buffer`` (writable, contiguous) from byte ``offset`` of a path or an open descriptor.

    Reads with ``pread``, never through a mapping: what stays in memory is the buffer alone. Raises
    ``InvalidInputError`` if the file ends before the buffer is full.
    """
    if not isinstance(source, int):
        try:
            fd = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise InvalidInputError(f"cannot open {os.fspath(source)}: {error.strerror}") from error
        try:
            read_into(fd, offset, buffer)
        finally:
            os.close(fd)
        return
    view = memoryview(buffer)
    if not view.nbytes:
        return  # a view without elements cannot be cast
    view = view.cast("B")
    position = 0
    while position < len(view):
        count = os.preadv(source, [view[position : position + _READ_BYTES]], offset + position)
        if count == 0:
            raise InvalidInputError(
                f"the file ended at byte {offset + position}; {len(view) - position} more were expected",
                hint="It changed while it was read: leave it alone until the command is done, and repeat it.",
            )
        position += count


# --- parts -------------------------------------------------------------------------------------------------


def _read_header(fd: int, file_size: int) -> bytes:
    prefix = bytearray(min(file_size, len(_LFS_POINTER)))
    read_into(fd, 0, prefix)
    if prefix == _LFS_POINTER:
        raise SafetensorsError(
            "this is a Git LFS pointer, not the weights", hint="Run `git lfs pull` in the model's directory."
        )
    header = bytearray(_LENGTH_BYTES + _header_length(bytes(prefix[:_LENGTH_BYTES]), file_size))
    read_into(fd, 0, header)
    return bytes(header)


def _header_length(prefix: bytes, file_size: int) -> int:
    if len(prefix) < _LENGTH_BYTES or file_size < _LENGTH_BYTES:
        raise SafetensorsError(f"a file of {min(file_size, len(prefix))} bytes is too short for a header")
    length = int.from_bytes(prefix, "little")
    if length > MAX_HEADER_BYTES:
        raise SafetensorsError(f"a header of {length} bytes: the format allows {MAX_HEADER_BYTES}")
    if length > file_size - _LENGTH_BYTES:
        raise SafetensorsError(f"a header of {length} bytes in a file of {file_size}")
    return length


def _parse_json(text: bytes) -> dict[str, Any]:
    # Python's own parsing of integers is several times as fast; a text without these has none that it must not see.
    odd = _ODD_INTEGER.search(text) is not None
    try:
        entries = json.loads(
            text.decode("utf-8"),
            object_pairs_hook=_object_without_duplicates,
            parse_int=_integer if odd else None,
            parse_float=_refuse_number,
            parse_constant=_refuse_number,
        )
    except UnicodeDecodeError as error:
        raise SafetensorsError(f"the header is not UTF-8 at byte {error.start}") from error
    except json.JSONDecodeError as error:
        raise SafetensorsError(f"the header is not JSON: {error.msg} at character {error.pos}") from error
    except RecursionError as error:
        raise SafetensorsError("the header is nested too deeply") from error
    if not isinstance(entries, dict):  # cannot be: it starts with '{'
        raise SafetensorsError("the header is not a JSON object")
    return entries


def _object_without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise SafetensorsError(f"the name {_shown(twice)} occurs twice")
    return members


def _integer(digits: str) -> int:
    if len(digits) > _MAX_INTEGER_DIGITS or digits.startswith("-"):
        raise SafetensorsError(f"{_shown(digits)} is no size: whole numbers from 0 to 2^64 - 1 are")
    return int(digits)


def _refuse_number(digits: str) -> NoReturn:
    raise SafetensorsError(f"{_shown(digits)} is not a whole number")


def _metadata(value: Any) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise SafetensorsError("__metadata__ is not an object")
    for key, text in value.items():
        if not isinstance(text, str):
            raise SafetensorsError(f"__metadata__ of {_shown(key)} is not a string")
        _check_unicode(key)
        _check_unicode(text)
    return value


def _tensor(name: str, entry: Any, data_begin: int) -> TensorInfo:
    _check_unicode(name)
    if not isinstance(entry, dict):
        raise SafetensorsError(f"tensor {_shown(name)}: not an object")
    dtype = entry.get("dtype")
    if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
        raise SafetensorsError(f"tensor {_shown(name)}: unknown dtype {_shown(dtype)}")
    shape = _sizes(entry.get("shape"))
    if shape is None:
        raise SafetensorsError(
            f"tensor {_shown(name)}: the shape {_shown(entry.get('shape'))} is no list of sizes"
        )
    offsets = _sizes(entry.get("data_offsets"))
    if offsets is None or len(offsets) != 2:
        shown = _shown(entry.get("data_offsets"))
        raise SafetensorsError(f"tensor {_shown(name)}: data_offsets {shown} are not two offsets")
    begin, end = offsets
    if end < begin:
        raise SafetensorsError(f"tensor {_shown(name)}: ends at {end}, before it begins at {begin}")
    elements = 1
    for size in shape:
        elements *= size
        if elements > _MAX_COUNT:
            raise SafetensorsError(f"tensor {_shown(name)}: the shape {_shown(shape)} overflows 64 bits")
    total_bits = elements * DTYPE_BITS[dtype]
    if total_bits > _MAX_COUNT:
        raise SafetensorsError(f"tensor {_shown(name)}: {elements} elements of {dtype} overflow 64 bits")
    if total_bits % 8:
        raise SafetensorsError(f"tensor {_shown(name)}: {total_bits} bits of {dtype} do not fill whole bytes")
    if end - begin != total_bits // 8:
        raise SafetensorsError(
            f"tensor {_shown(name)}: {dtype} of shape {_shown(shape)} takes {total_bits // 8} bytes, "
            f"its offsets span {end - begin}"
        )
    return TensorInfo(name, dtype, tuple(shape), data_begin + begin, data_begin + end)


def _sizes(value: Any) -> list[int] | None:
    """The value if it is a list of whole numbers below 2^64 (``true`` is none)."""
    if isinstance(value, list) and all(type(size) is int and size <= _MAX_COUNT for size in value):
        return value
    return None


def _check_unicode(text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise SafetensorsError(f"{_shown(text)} has half a surrogate pair") from error


def _shown(value: Any) -> str:
    """A stranger's value, short and printable."""
    text = ascii(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
