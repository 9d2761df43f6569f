"""Tensors out of a version in a repository: decoded where they are wanted, each verified before anyone gets it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final

import numpy as np

from textnlp_fast.contents.inventory import Held
from textnlp_fast.contents.windows import DATA_ERRORS, DataError, OpenFiles, run_in_order, with_context
from textnlp_fast.errors import CorruptDataError, DigestMismatchError, InvalidInputError
from textnlp_fast.loading.cache import Claims, LoadCache
from textnlp_fast.loading.device_decoding import DeviceDecoder, WrongStart, check_on_device
from textnlp_fast.loading.places import Bytes, Place
from textnlp_fast.loading.ring import Deadline, StagingRing
from textnlp_fast.storage.planning import PullStep
from textnlp_fast.storage.stored_tensors import StoredTensors

__all__ = ["load_stored"]

_BLOCK_BYTES: Final = 1 << 20


def load_stored(
    stored: StoredTensors,
    wanted: Sequence[tuple[str, Place]],
    ring: StagingRing,
    *,
    check_slices: bool,
    cache: LoadCache | None,
    deadline: Deadline,
    done: Callable[[int], None],
) -> None:
    """Makes the contents with these digests in their places; ``done`` hears of bytes.

    Raises CorruptDataError and its kinds if anything is not what it was when it was pushed.
    """
    _Load(stored, wanted, ring, check_slices, cache, deadline, done).run()


class _Load:
    """One load: the state that its steps share."""

    def __init__(
        self,
        stored: StoredTensors,
        wanted: Sequence[tuple[str, Place]],
        ring: StagingRing,
        check_slices: bool,
        cache: LoadCache | None,
        deadline: Deadline,
        done: Callable[[int], None],
    ) -> None:
        self._stored = stored
        self._ring = ring
        self._cache = cache
        self._deadline = deadline
        self._done = done
        self._places: dict[str, list[Place]] = {}
        self._unchecked: list[tuple[str, Place]] = []
        for digest, place in wanted:
            if check_slices or place.wanted.is_whole:
                self._places.setdefault(digest, []).append(place)
            else:
                self._unchecked.append((digest, place))

    def run(self) -> None:
        digests = [digest for digest, places in self._places.items() if places[0].wanted.full_size]
        held = self._find(digests)
        if self._cache is None:
            self._make(digests, held)
        else:
            missing = [digest for digest in digests if digest not in held]
            with self._cache.claim(missing) as claims:
                # Since they were looked for another process may have added what was free to claim.
                held |= self._find(claims.mine)
                self._make([digest for digest in digests if digest not in claims.others], held)
                self._keep(claims, held)
            if claims.others:
                self._cache.wait_for(claims.others, self._deadline)
                self._make(sorted(claims.others), self._find(claims.others))
        self._make_parts()

    def _find(self, digests: Iterable[str]) -> dict[str, Held]:
        if self._cache is None:
            return {}
        needed = self._stored.needed(digests)
        return self._cache.find({digest: content.size for digest, content in needed.items()})

    # --- whole contents, verified -----------------------------------------------------------------------------------

    def _make(self, digests: Sequence[str], held: Mapping[str, Held]) -> None:
        """Makes contents in all their places; what was made of wrong local bytes is made again without them."""
        steps = [self._stored.step(digest, held) for digest in digests]
        try:
            suspects = self._make_once(steps, held)
        except WrongStart as error:
            self._drop([error.digest], held)
            self._make_once([self._stored.step(digest, {}) for digest in digests], {}, count=False)
            return
        if suspects:
            self._drop(suspects, held)
            # The other way round nothing local has a part in it: whatever is wrong is raised.
            self._make_once([self._stored.step(digest, {}) for digest in suspects], {}, count=False)

    def _make_once(
        self, steps: Sequence[PullStep], held: Mapping[str, Held], *, count: bool = True
    ) -> list[str]:
        by_device = [step for step in steps if self._decodes_on_device(step)]
        by_host = [step for step in steps if not self._decodes_on_device(step)]
        counted = self._done if count else lambda size: None

        def done(size: int) -> None:
            self._deadline.check()
            counted(size)

        suspects: dict[str, DataError] = {}
        if by_host:
            decoder = self._stored.decoder()
            suspects |= decoder.run(by_host, self._sink, held=held, done=done, room=self._room)
        if by_device:
            on_device = DeviceDecoder(self._stored, self._ring, self._deadline)
            spans = {step.content.digest: self._first_span(step) for step in by_device}
            on_device.run(by_device, spans, done)
        self._ring.wait()
        self._copy_to_the_others(by_device)
        suspects |= self._check_spans([step for step in steps if step.content.digest not in suspects])
        return list(suspects)

    def _decodes_on_device(self, step: PullStep) -> bool:
        """Whether a chain of deltas leads to it, from nothing or local bytes, and a device wants all of it."""
        places = self._places[step.content.digest]
        return step.recipe is None and any(
            place.span is not None and place.wanted.is_whole for place in places
        )

    def _first_span(self, step: PullStep) -> Place:
        return next(
            place
            for place in self._places[step.content.digest]
            if place.span is not None and place.wanted.is_whole
        )

    def _room(self, step: PullStep, offset: int, size: int) -> memoryview | None:
        self._deadline.check()
        for place in self._places[step.content.digest]:
            if place.host is not None and place.wanted.is_whole:
                return place.host[offset : offset + size].data
        return None

    def _sink(self, step: PullStep, offset: int, data: memoryview) -> None:
        source = np.frombuffer(data, np.uint8)
        for place in self._places[step.content.digest]:
            self._put(place, offset, source)

    def _put(self, place: Place, offset: int, data: Bytes) -> None:
        """Copies what these bytes of a content have of the place's part."""
        cut = place.wanted.cut
        if place.host is not None:
            for out, view in cut.within(offset, data):
                to = place.host[out : out + view.size].reshape(view.shape)
                if to.ctypes.data != view.ctypes.data:  # made there already
                    to[:] = view
            return
        for out, view in cut.within(offset, data):
            rows = max(1, self._ring.slot_bytes // max(1, view.shape[1]))
            for row in range(0, len(view), rows):
                self._send(view[row : row + rows], place, out + row * view.shape[1])

    def _send(self, view: Bytes, place: Place, out: int) -> None:
        flat = view.reshape(-1)  # a copy, where runs are apart
        for begin in range(0, flat.size, self._ring.slot_bytes):
            part = flat[begin : begin + self._ring.slot_bytes]
            slot = self._ring.take(self._deadline)
            slot.view[: part.size] = part.data
            self._ring.send(slot, part.size, place.span, out + begin)

    def _copy_to_the_others(self, by_device: Iterable[PullStep]) -> None:
        """Fills the other places of tensors that were decoded on the device."""
        for step in by_device:
            first = self._first_span(step)
            others = [place for place in self._places[step.content.digest] if place is not first]
            if others:
                for offset, data in self._windows_of(first):
                    for place in others:
                        self._put(place, offset, np.frombuffer(data, np.uint8))
        self._ring.wait()

    def _windows_of(self, place: Place) -> Iterator[tuple[int, memoryview]]:
        """The bytes of a whole tensor in its place, window by window."""
        if place.host is not None:
            yield 0, place.host.data
            return
        for offset in range(0, place.wanted.size, self._ring.slot_bytes):
            size = min(self._ring.slot_bytes, place.wanted.size - offset)
            slot = self._ring.take(self._deadline)
            try:
                data = bytes(self._ring.fetch(place.span, offset, slot, size))
            finally:
                self._ring.give_back(slot)
            yield offset, memoryview(data)

    def _check_spans(self, steps: Iterable[PullStep]) -> dict[str, DataError]:
        """Hashes whole tensors where they are on the device. Returns errors about what local bytes have a part in."""
        pairs = [
            (step, place)
            for step in steps
            for place in self._places[step.content.digest]
            if place.span is not None and place.wanted.is_whole
        ]
        wrong: dict[str, DataError] = {}
        for step, _ in check_on_device(pairs):
            digest = step.content.digest
            error = DigestMismatchError(
                f"{self._stored.names.get(digest, 'a tensor')}: its bytes on the device are not those of {digest}"
            )
            if not step.is_local:
                raise error
            wrong[digest] = error
        return wrong

    # --- the cache --------------------------------------------------------------------------------------------------

    def _keep(self, claims: Claims, held: Mapping[str, Held]) -> None:
        assert self._cache is not None
        for digest in sorted(claims.mine):
            whole = next((place for place in self._places[digest] if place.wanted.is_whole), None)
            if whole is None or digest in held:
                continue
            self._deadline.check()
            parts = (data for _, data in self._windows_of(whole))
            self._cache.add(digest, whole.wanted.size, parts)

    def _drop(self, suspects: Iterable[str], held: Mapping[str, Held]) -> None:
        """Forgets what the suspects were made of."""
        if self._cache is not None:
            for digest in self._stored.needed(suspects).keys() & held.keys():
                self._cache.drop(digest)

    # --- parts that nobody can verify ---------------------------------------------------------------------------------

    def _make_parts(self) -> None:
        """Makes slices out of the frames that have them, and of nothing local: wrong bytes there would go unnoticed."""
        if not self._unchecked:
            return
        threads = self._stored.options.thread_count
        with OpenFiles() as files:
            maker = self._stored.maker(files, {}, threads=1)

            def work(item: tuple[str, Place, int, int]) -> int:
                digest, place, begin, size = item
                self._deadline.check()
                buffer = np.empty(size, np.uint8)
                try:
                    maker.read_into(digest, begin, buffer.data)
                except InvalidInputError as error:
                    raise CorruptDataError(f"{place.wanted.name!r}: {error.args[0]}") from error
                except DATA_ERRORS as error:
                    raise with_context(error, f"tensor {place.wanted.name!r}") from error
                self._put(place, begin, buffer)
                return size

            blocks = (
                (digest, place, begin, size)
                for digest, place in self._unchecked
                for begin, size in _blocks(place, max(_BLOCK_BYTES, self._stored.window_bytes))
            )
            for size in run_in_order(
                work,
                blocks,
                workers=threads,
                cost=lambda item: 3 * item[3],
                budget_bytes=self._stored.options.memory_budget_bytes,
            ):
                self._deadline.check()
                self._done(size)
        self._ring.wait()


def _blocks(place: Place, most_bytes: int) -> Iterator[tuple[int, int]]:
    """Stretches of the tensor (begin, bytes) that hold the part: frames are large, so runs share them."""
    cut = place.wanted.cut
    if not cut.size_bytes:
        return
    begin = end = cut.begin
    for run in cut.runs():
        near = run.begin - end <= _BLOCK_BYTES and run.begin + run.size - begin <= most_bytes
        if end > begin and not near:
            yield begin, end - begin
            begin = run.begin
        end = run.begin + run.size
        while end - begin > most_bytes:
            yield begin, most_bytes
            begin += most_bytes
    if end > begin:
        yield begin, end - begin
