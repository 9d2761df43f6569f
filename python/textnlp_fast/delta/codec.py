"""The codec's thin face: buffers in, frames out, and back, bit-exactly.

A tensor is coded in independent frames of ``frame_size_bytes`` decoded bytes (docs/format.md). A long tensor may pass
in windows of a multiple of that size, the last one shorter: the windows' payloads, one after the other, are the
tensor's payload.

Buffers are anything with the buffer protocol or DLPack on the CPU (bytes, mmap, numpy, torch with bfloat16); nothing is
copied on the way in, and the GIL is released while the core works.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from textnlp_fast import _native
from textnlp_fast.errors import InvalidInputError, TextnlpFastError, naming
from textnlp_fast.tensors.devices import on_device
from textnlp_fast.tensors.element_types import DTYPES

__all__ = [
    "DEFAULT_FRAME_SIZE_BYTES",
    "DTYPES",
    "MODES",
    "DiffStats",
    "Frame",
    "FrameScan",
    "decode_into",
    "decode_many",
    "diff",
    "encode",
    "encode_bound",
    "encode_into",
    "encode_many",
    "frames",
    "scan",
]

DEFAULT_FRAME_SIZE_BYTES: Final = 1 << 20

_NAMES: Final = {number: name for name, number in DTYPES.items()}
#: What a frame can be, by its number in the format.
MODES: Final = ("same", "raw", "planes", "delta", "sparse", "difference", "learned")


def _needs_base(mode: str) -> bool:
    return mode in ("same", "delta", "sparse", "difference", "learned")


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame's header. Sizes in bytes; ``mode`` is one of :data:`MODES`."""

    mode: str
    dtype: str
    encoded_bytes: int
    decoded_bytes: int

    @property
    def needs_base(self) -> bool:
        return _needs_base(self.mode)


@dataclass(frozen=True, slots=True)
class FrameScan:
    """The whole frames that a payload starts with."""

    encoded_bytes: int
    decoded_bytes: int
    frames: int
    needs_base: bool


@dataclass(frozen=True, slots=True)
class DiffStats:
    """How two tensors of one dtype differ. ULPs are steps between neighbouring representable values."""

    elements: int
    changed: int
    max_ulp: int
    mean_abs_ulp: float

    @property
    def changed_fraction(self) -> float:
        return self.changed / self.elements if self.elements else 0.0


def _number(dtype: str) -> int:
    try:
        return DTYPES[dtype]
    except KeyError:
        known = ", ".join(DTYPES)
        raise InvalidInputError(
            f"unknown dtype {dtype!r}", hint=f"Known: {known}. Pass anything else as 'OPAQUE'."
        ) from None


def encode_bound(size_bytes: int, *, frame_size_bytes: int = DEFAULT_FRAME_SIZE_BYTES) -> int:
    """The most bytes that coding ``size_bytes`` can take."""
    return _native.encode_bound(size_bytes, frame_size_bytes)


def encode_into(
    target: Any,
    out: Any,
    base: Any = None,
    *,
    dtype: str,
    frame_size_bytes: int = DEFAULT_FRAME_SIZE_BYTES,
    threads: int = 0,
    stream: int | None = None,
) -> int:
    """Encode into ``out``, a writable buffer of at least :func:`encode_bound` bytes; return the bytes written.

    ``target`` and ``base`` may be arrays on a CUDA device: then the device encodes, in the order of ``stream`` (as in
    :func:`decode_into`), ``out`` may lie there or in host memory, and the call returns when the payload is in it. The
    bytes are the same.
    """
    if on_device(target):
        return _native.cuda_encode_payloads(
            [target], [base], [_number(dtype)], [out], frame_size_bytes, stream or 0
        )[0]
    return _native.encode_into(target, base, _number(dtype), frame_size_bytes, threads, out)


def encode(
    target: Any,
    base: Any = None,
    *,
    dtype: str,
    frame_size_bytes: int = DEFAULT_FRAME_SIZE_BYTES,
    threads: int = 0,
    stream: int | None = None,
) -> bytes:
    """Encode a tensor's bytes, against ``base`` (as many bytes, same dtype) where given.

    Each frame takes the smallest of: same as base, delta, standalone, raw. ``threads=0`` uses every processor. Arrays
    on a CUDA device are encoded there (:func:`encode_into`). Raises :class:`InvalidInputError` if sizes do not match
    or the dtype is unknown, :class:`DeviceError` where there is no device.
    """
    out = bytearray(encode_bound(_nbytes(target), frame_size_bytes=frame_size_bytes))
    written = encode_into(
        target, out, base, dtype=dtype, frame_size_bytes=frame_size_bytes, threads=threads, stream=stream
    )
    return bytes(memoryview(out)[:written])


def encode_many(
    targets: Sequence[Any],
    bases: Sequence[Any] | None = None,
    *,
    dtypes: Sequence[str],
    frame_size_bytes: int = DEFAULT_FRAME_SIZE_BYTES,
    threads: int = 0,
    stream: int | None = None,
) -> list[bytes]:
    """:func:`encode` for many tensors: on a device in one launch for many of them, however small they are.

    An error about one of them has its place in the sequences as ``job``.
    """
    priors = [None] * len(targets) if bases is None else list(bases)
    if not len(targets) == len(priors) == len(dtypes):
        raise InvalidInputError("there are not as many targets, bases and dtypes")
    if any(on_device(target) for target in targets):
        outs = [
            bytearray(encode_bound(_nbytes(target), frame_size_bytes=frame_size_bytes)) for target in targets
        ]
        numbers = [_number(dtype) for dtype in dtypes]
        sizes = _native.cuda_encode_payloads(
            list(targets), priors, numbers, list(outs), frame_size_bytes, stream or 0
        )
        return [bytes(memoryview(out)[:size]) for out, size in zip(outs, sizes, strict=True)]
    payloads = []
    for job, (target, base, dtype) in enumerate(zip(targets, priors, dtypes, strict=True)):
        try:
            payloads.append(
                encode(target, base, dtype=dtype, frame_size_bytes=frame_size_bytes, threads=threads)
            )
        except TextnlpFastError as error:
            error.job = job
            raise
    return payloads


def _nbytes(target: Any) -> int:
    nbytes = getattr(target, "nbytes", None)
    if nbytes is not None:
        return int(nbytes)
    facts = getattr(target, "__cuda_array_interface__", None)
    if facts is not None:
        return int(math.prod(facts["shape"])) * int(facts["typestr"][2:])
    return memoryview(target).nbytes


def decode_into(
    payload: Any, out: Any, base: Any = None, *, threads: int = 0, stream: int | None = None
) -> None:
    """Decode whole frames that together make exactly the bytes of ``out``.

    ``base`` is what the tensor was encoded against; it may be ``out`` itself, which is then updated in place. Both may
    be arrays on a CUDA device: then the device decodes, in the order of ``stream`` (a ``cudaStream_t`` as an integer,
    by default the default stream), and the call returns when it has. Raises :class:`CorruptDataError` with the
    position; ``out`` then holds nothing of use. Raises :class:`DeviceError` where there is no device.
    """
    if on_device(out):
        _native.cuda_decode_payloads([payload], [base], [out], stream or 0)
    else:
        _native.decode_into(payload, out, base, threads)


def decode_many(
    payloads: Sequence[Any],
    outs: Sequence[Any],
    bases: Sequence[Any] | None = None,
    *,
    threads: int = 0,
    stream: int | None = None,
    names: Sequence[str] | None = None,
) -> None:
    """:func:`decode_into` for many tensors: on a device in one launch for all, however small they are.

    ``names``: of the tensors, for messages of errors. An error about one of them has its place in the sequences as
    ``job``; what the others hold is of no use either.
    """
    priors = [None] * len(outs) if bases is None else list(bases)
    if not len(payloads) == len(outs) == len(priors):
        raise InvalidInputError("there are not as many payloads, outputs and bases")
    with naming(names, len(outs)):
        if any(on_device(out) for out in outs):
            _native.cuda_decode_payloads(list(payloads), priors, list(outs), stream or 0)
            return
        for job, (payload, out, base) in enumerate(zip(payloads, outs, priors, strict=True)):
            try:
                _native.decode_into(payload, out, base, threads)
            except TextnlpFastError as error:
                error.job = job
                raise


def frames(payload: Any) -> list[Frame]:
    """Headers of the whole frames that ``payload`` starts with; a frame cut short at the end is left out."""
    return [
        Frame(MODES[mode], _NAMES[dtype], encoded, decoded)
        for mode, dtype, encoded, decoded in _native.frames(payload)
    ]


def scan(payload: Any) -> FrameScan:
    """Totals over :func:`frames`, to cut a stream of payload bytes at a frame boundary."""
    found = _native.frames(payload)
    return FrameScan(
        encoded_bytes=sum(frame[2] for frame in found),
        decoded_bytes=sum(frame[3] for frame in found),
        frames=len(found),
        needs_base=any(_needs_base(MODES[frame[0]]) for frame in found),
    )


def diff(a: Any, b: Any, *, dtype: str, threads: int = 0, stream: int | None = None) -> DiffStats:
    """Compare two tensors of one dtype and size element by element, on the device if they are there."""
    if on_device(a):
        elements, changed, max_ulp, sum_ulp = _native.cuda_diff(a, b, _number(dtype), stream or 0)
    else:
        elements, changed, max_ulp, sum_ulp = _native.diff(a, b, _number(dtype), threads)
    return DiffStats(elements, changed, max_ulp, sum_ulp / elements if elements else 0.0)
