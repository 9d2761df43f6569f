"""What several ranks hold must be the same on all of them: compared before any of it is used."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from textnlp_fast.errors import CorruptDataError
from textnlp_fast.storage.sharding.descriptors import Descriptors
from textnlp_fast.storage.sharding.model import Piece, Placement, ShardSource, ShardTensor
from textnlp_fast.tensors import read_into

__all__ = ["check_replicas"]

_WINDOW_BYTES: Final = 4 << 20


def check_replicas(source: ShardSource) -> None:
    """Raises CorruptDataError if ranks hold different bytes of one part of a tensor."""
    paths = [file.path for file in source.files]

    def path_of(number: int) -> Path:
        path = paths[number]
        assert path is not None  # the files of ranks are files
        return path

    first, second = bytearray(_WINDOW_BYTES), bytearray(_WINDOW_BYTES)
    with Descriptors(path_of, os.O_RDONLY) as opened:
        for tensor, one, other in _twins(source):
            size = Placement(tensor, one.portion).size_bytes
            for begin in range(0, size, _WINDOW_BYTES):
                count = min(_WINDOW_BYTES, size - begin)
                for piece, buffer in ((one, first), (other, second)):
                    with opened.use(piece.file) as descriptor:
                        read_into(descriptor, piece.begin + begin, memoryview(buffer)[:count])
                if memoryview(first)[:count] != memoryview(second)[:count]:
                    raise CorruptDataError(
                        f"{paths[one.file]} and {paths[other.file]} hold different bytes of tensor {tensor.name!r}",
                        hint="One of the ranks is damaged, or of another model: make the ranks again.",
                    )


def _twins(source: ShardSource) -> Iterator[tuple[ShardTensor, Piece, Piece]]:
    for tensor in source.tensors:
        seen: dict[object, Piece] = {}
        for piece in tensor.pieces:
            first = seen.setdefault(piece.portion, piece)
            # What the record has digests of is held against these when it is read.
            if first is not piece and (first.digest is None or first.digest != piece.digest):
                yield tensor, first, piece
