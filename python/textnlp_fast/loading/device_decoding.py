"""Chains of deltas decoded on a device, in place: the base's frames, then each delta's, over the same memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from textnlp_fast.contents.inventory import Held
from textnlp_fast.contents.windows import (
    DATA_ERRORS,
    OpenFiles,
    Piece,
    plan_units,
    run_in_order,
    with_context,
)
from textnlp_fast.delta import codec
from textnlp_fast.errors import CorruptDataError, DeviceError, InvalidInputError, UnsupportedFormatError
from textnlp_fast.hashing import blake3_many
from textnlp_fast.loading.places import Place
from textnlp_fast.loading.ring import Deadline, StagingRing
from textnlp_fast.storage.decoding import made_from
from textnlp_fast.storage.extents import check_object, fetch_extents
from textnlp_fast.storage.manifest import Extent
from textnlp_fast.storage.planning import PullStep
from textnlp_fast.storage.stored_tensors import StoredTensors
from textnlp_fast.tensors.device_memory import DeviceSpan

__all__ = ["DeviceDecoder", "WrongStart", "check_on_device"]

# Hashing takes memory of the device in proportion.
_HASHED_BYTES: Final = 1 << 30
_NO_MEMORY: Final = "the device has no memory left to decode in"

# Of the memory budget: coded windows of one launch, and as many that are on their way meanwhile.
_LAUNCH_SHARE: Final = 4


class WrongStart(Exception):
    """Frames are not valid over the local bytes that a chain starts from; ``digest`` is what it leads to."""

    def __init__(self, digest: str) -> None:
        super().__init__(digest)
        self.digest = digest


@dataclass(frozen=True, slots=True)
class _Window:
    """A window of a content in its place on the device; ``payloads`` are the coded windows of its chain, root first."""

    step: PullStep
    piece: Piece
    span: DeviceSpan
    payloads: tuple[memoryview, ...]


class DeviceDecoder:
    """Fetches coded windows with many requests in flight, and has the device decode them, many in one launch.

    The device needs a quarter of the memory budget for them, and a workspace.
    """

    def __init__(self, stored: StoredTensors, ring: StagingRing, deadline: Deadline) -> None:
        self._stored = stored
        self._ring = ring
        self._deadline = deadline
        self._workers = min(16, max(4, 2 * stored.options.thread_count))

    def run(
        self, steps: Sequence[PullStep], places: Mapping[str, Place], done: Callable[[int], None]
    ) -> None:
        """Makes the content of each step in its place; ``done`` hears of bytes. Nobody has hashed them yet.

        Raises CorruptDataError for frames that are not valid, WrongStart where local bytes may be why.
        """
        share = self._stored.options.memory_budget_bytes // _LAUNCH_SHARE

        def fetch(unit: tuple[Piece, ...]) -> list[_Window]:
            self._deadline.check()
            fetched = fetch_extents(self._stored.store, _extents(steps, unit))
            return [
                _Window(
                    steps[piece.step],
                    piece,
                    _span(places[steps[piece.step].content.digest], piece),
                    tuple(fetched[link.extents[piece.window]] for link in steps[piece.step].chain),
                )
                for piece in unit
            ]

        with OpenFiles() as files:
            windows: list[_Window] = []
            for fetched in run_in_order(
                fetch,
                plan_units([step.content.size for step in steps], self._stored.window_bytes),
                workers=self._workers,
                cost=lambda unit: sum(extent.length for extent in _extents(steps, unit)),
                budget_bytes=share,
            ):
                windows += fetched
                if sum(len(payload) for window in windows for payload in window.payloads) >= share:
                    self._decode(files, windows, done)
                    windows = []
            self._decode(files, windows, done)

    def _decode(self, files: OpenFiles, windows: Sequence[_Window], done: Callable[[int], None]) -> None:
        for window in windows:
            if window.step.start is not None:
                self._send_start(files, window, window.step.start)
        for level in range(max((len(window.payloads) for window in windows), default=0)):
            self._decode_level([window for window in windows if level < len(window.payloads)], level)
        for window in windows:
            done(window.piece.length)

    def _send_start(self, files: OpenFiles, window: _Window, start: Held) -> None:
        """Copies the local bytes that a chain starts from."""
        piece = window.piece
        for offset in range(0, piece.length, self._ring.slot_bytes):
            size = min(self._ring.slot_bytes, piece.length - offset)
            slot = self._ring.take(self._deadline)
            try:
                files.read(start.location, slot.view[:size], start.offset + piece.offset + offset)
            except (OSError, InvalidInputError):
                # The digest tells what became of it, and the load goes on from the repository.
                slot.view[:size] = bytes(size)
            self._ring.send(slot, size, window.span, offset)

    def _decode_level(self, windows: Sequence[_Window], level: int) -> None:
        """Decodes link number ``level`` of all chains, where each window lies."""
        jobs: list[_Window] = []
        for window in windows:
            if window.step.chain[level].codec == "raw":
                self._send_raw(window.step, window.payloads[level], window.span)
            else:
                jobs.append(window)
        if not jobs:
            return
        try:
            codec.decode_many(
                [job.payloads[level] for job in jobs],
                [job.span for job in jobs],
                [job.span if job.step.chain[level].base is not None else None for job in jobs],
                stream=self._ring.stream,
            )
        except MemoryError as error:
            raise DeviceError(
                _NO_MEMORY, hint="Free memory on the device, or lower memory_budget_bytes."
            ) from error
        except (*DATA_ERRORS, InvalidInputError) as error:
            if error.job is None:
                raise
            job = jobs[error.job]
            self._raise(error, job.step, job.step.chain[level].extents[job.piece.window])

    def _send_raw(self, step: PullStep, payload: memoryview, span: DeviceSpan) -> None:
        if len(payload) != span.nbytes:
            raise made_from(
                CorruptDataError(f"a window of {span.nbytes} bytes is stored in {len(payload)}"), step
            )
        for offset in range(0, len(payload), self._ring.slot_bytes):
            part = payload[offset : offset + self._ring.slot_bytes]
            slot = self._ring.take(self._deadline)
            slot.view[: len(part)] = part
            self._ring.send(slot, len(part), span, offset)

    def _raise(self, error: Exception, step: PullStep, extent: Extent) -> None:
        digest = step.content.digest
        if step.is_local:
            raise WrongStart(digest) from error
        what = self._stored.names.get(digest, f"content {digest}")
        if isinstance(error, UnsupportedFormatError):  # a damaged byte can look like a newer format
            try:
                check_object(self._stored.store, extent.object, error)
            except CorruptDataError as damage:
                raise made_from(with_context(damage, what), step) from error
            raise with_context(error, what) from error
        if isinstance(error, CorruptDataError):
            raise made_from(with_context(error, what), step) from error
        raise made_from(CorruptDataError(f"{what}: {error.args[0]}"), step) from error


def check_on_device(pairs: Iterable[tuple[PullStep, Place]]) -> Iterator[tuple[PullStep, Place]]:
    """Hashes tensors where they lie, many in one launch; gives those that are not what their digests say."""
    group: list[tuple[PullStep, Place]] = []
    size = 0
    for pair in pairs:
        if group and size + pair[1].wanted.size > _HASHED_BYTES:
            yield from _differing(group)
            group, size = [], 0
        group.append(pair)
        size += pair[1].wanted.size
    if group:
        yield from _differing(group)


def _differing(group: Sequence[tuple[PullStep, Place]]) -> Iterator[tuple[PullStep, Place]]:
    digests = blake3_many([place.span for _, place in group])
    for (step, place), digest in zip(group, digests, strict=True):
        if digest.hex() != step.content.digest:
            yield step, place


def _extents(steps: Sequence[PullStep], unit: Sequence[Piece]) -> list[Extent]:
    return [link.extents[piece.window] for piece in unit for link in steps[piece.step].chain]


def _span(place: Place, piece: Piece) -> DeviceSpan:
    assert place.span is not None
    return place.span.part(piece.offset, piece.offset + piece.length)
