"""Holds bytes against the digests that a record has of them, and makes the digests for the next record.

Digests are of tensors, or of the parts of them that a file holds. Whole tensors keep theirs wherever they go, so one
look at the source serves for both; what ranks get or give is hashed where it was written, while it is still in memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from textnlp_fast.contents.windows import BufferPool, run_in_order
from textnlp_fast.errors import CorruptDataError
from textnlp_fast.hashing import Blake3
from textnlp_fast.storage.sharding.descriptors import Descriptors
from textnlp_fast.storage.sharding.model import Piece, Placement, ShardPlan, ShardSource, ShardTensor
from textnlp_fast.storage.sharding.record import DAMAGED_HINT, RECORD_NAME, Digests
from textnlp_fast.tensors import read_into

__all__ = ["Checks", "Place", "batches", "damaged", "places_by_tensor"]

_WINDOW_BYTES: Final = 4 << 20


@dataclass(frozen=True, slots=True)
class Place:
    """A placement that begins at byte `begin` of file `number` of a plan."""

    number: int
    placement: Placement
    begin: int


@dataclass(frozen=True, slots=True)
class _Span:
    file: int
    begin: int
    size: int


def places_by_tensor(plan: ShardPlan) -> dict[str, list[Place]]:
    """Where each tensor goes, in the order of the plan's bytes."""
    places: dict[str, list[Place]] = {}
    for number, file in enumerate(plan.files):
        position = len(file.header)
        for placement in file.placements:
            places.setdefault(placement.tensor.name, []).append(Place(number, placement, position))
            position += placement.size_bytes
    return places


def damaged(where: object, name: str) -> CorruptDataError:
    """The error for a tensor that is not what the record says."""
    return CorruptDataError(
        f"{where}: tensor {name!r} does not have the bytes that {RECORD_NAME} says", hint=DAMAGED_HINT
    )


class Checks:
    """What is known of the bytes of a plan while it is carried out. Memory is a window of 4 MiB a thread."""

    def __init__(self, plan: ShardPlan, source: ShardSource, *, threads: int) -> None:
        self._plan = plan
        self._source = source
        self._threads = threads
        self._buffers = BufferPool(_WINDOW_BYTES)
        # A merged model has no record: what nothing speaks of need not be hashed.
        self._recorded = plan.strategy != "merge"
        self._whole = {tensor.name: tensor.digest for tensor in source.tensors if tensor.digest is not None}
        self._seen: dict[str, str] = {}
        self._placed: dict[tuple[int, str], str] = {}

    @property
    def digests(self) -> Digests:
        """What was found, of everything that was settled."""
        return Digests(self._placed, {**self._whole, **self._seen})

    def read(self, tensors: Iterable[ShardTensor], sources: Descriptors) -> None:
        """Reads all pieces of tensors that something is said or to be said of.

        Raises CorruptDataError, naming file and tensor, for the first one that is not what it should be.
        """
        wanted = [
            (tensor, piece)
            for tensor in tensors
            for piece in tensor.pieces
            if piece.digest is not None or (piece.portion is None and (self._recorded or tensor.digest))
        ]
        spans = [
            _Span(piece.file, piece.begin, Placement(tensor, piece.portion).size_bytes)
            for tensor, piece in wanted
        ]
        for (tensor, piece), digest in zip(wanted, self._hash(spans, sources), strict=True):
            self.take(tensor, piece, digest)

    def take(self, tensor: ShardTensor, piece: Piece, digest: str) -> None:
        """Takes the digest that a piece has. Raises CorruptDataError if it should be another."""
        wrong = piece.digest is not None and piece.digest != digest
        if piece.portion is None:
            wrong = wrong or self._whole.get(tensor.name, digest) != digest
            self._seen[tensor.name] = digest
        if wrong:
            file = self._source.files[piece.file]
            raise damaged(file.path or file.name, tensor.name)

    def settle(self, places: Sequence[Place], targets: Descriptors) -> None:
        """Says what is in places that were filled; reads those whose digests do not follow from the source's.

        Raises CorruptDataError if a tensor that was put together is not what it was before it was taken apart.
        """
        unread: list[Place] = []
        for place in places:
            tensor = place.placement.tensor
            if place.placement.portion is None and tensor.name in self._seen:
                self._placed[place.number, tensor.name] = self._seen[tensor.name]
            elif self._recorded or (place.placement.portion is None and tensor.name in self._whole):
                unread.append(place)
        spans = [_Span(place.number, place.begin, place.placement.size_bytes) for place in unread]
        for place, digest in zip(unread, self._hash(spans, targets), strict=True):
            name = place.placement.tensor.name
            self._placed[place.number, name] = digest
            if place.placement.portion is None and self._whole.setdefault(name, digest) != digest:
                raise damaged(self._plan.files[place.number].path, name)

    def _hash(self, spans: Sequence[_Span], files: Descriptors) -> Iterable[str]:
        """The digests of ranges of files, in order."""
        if not spans:
            return ()
        # A few large ones take all processors each, many small ones a thread each.
        inner = 1 if len(spans) >= self._threads else 0

        def work(span: _Span) -> str:
            hasher = Blake3()
            with self._buffers.borrow() as buffer, files.use(span.file) as descriptor:
                for at in range(0, span.size, _WINDOW_BYTES):
                    view = buffer[: min(_WINDOW_BYTES, span.size - at)]
                    read_into(descriptor, span.begin + at, view)
                    hasher.update(view, threads=inner)
            return hasher.hexdigest()

        budget = self._threads * _WINDOW_BYTES
        return run_in_order(
            work,
            spans,
            workers=self._threads,
            cost=lambda span: min(span.size, _WINDOW_BYTES),
            budget_bytes=budget,
        )


def batches(places: Mapping[str, list[Place]], most_bytes: int) -> Iterable[list[Place]]:
    """The places of as many tensors at a time as have `most_bytes` together, and of one at least."""
    batch: list[Place] = []
    size = 0
    for found in places.values():
        tensor = found[0].placement.tensor
        if batch and size + tensor.size_bytes > most_bytes:
            yield batch
            batch, size = [], 0
        batch += found
        size += tensor.size_bytes
    if batch:
        yield batch
