"""Overwrites tensors in memory with new ones, window by window: made by the host, or decoded on the device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from textnlp_fast.contents.inventory import Held
from textnlp_fast.contents.windows import DATA_ERRORS, BufferPool, OpenFiles, Piece, plan_units, with_context
from textnlp_fast.delta.filling import make_first
from textnlp_fast.delta.making import Maker
from textnlp_fast.errors import DeviceError
from textnlp_fast.loading.device_windows import Chain, DeviceWindow, DeviceWindows
from textnlp_fast.loading.memory import DeviceBytes, HostBytes, Memory
from textnlp_fast.loading.overwriting import Turn, chain_to, in_order, needs_of
from textnlp_fast.loading.targets import Target
from textnlp_fast.loading.undo import Journal
from textnlp_fast.loading.updates import Update
from textnlp_fast.loading.workers import Workers

__all__ = ["BUFFERS", "RESTORED", "MemoryFiles", "Overwrite"]

RESTORED: Final = "The old weights are in place again, bit by bit, and were checked."
# Of a window: new bytes (or a copy of what a device decoded), old ones, the delta between them, the coded window.
BUFFERS: Final = 4
_RESIDENT: Final = "resident:"
_KEPT: Final = "kept:"


class MemoryFiles(OpenFiles):
    """Files, and memory by names that no file has."""

    def __init__(self) -> None:
        super().__init__()
        self.memory: dict[str, Memory] = {}

    def __enter__(self) -> MemoryFiles:
        return self

    def read(self, location: str, view: memoryview, offset: int) -> None:
        data = self.memory.get(location)
        if data is None:
            super().read(location, view, offset)
        else:
            data.window(offset, offset + len(view)).read(view)


class Overwrite:
    """Tells `step` of the bytes done, before each window of none; what that raises ends it."""

    def __init__(
        self,
        update: Update,
        targets: Sequence[Target],
        files: MemoryFiles,
        journal: Journal,
        *,
        workers: Workers,
        threads: int,
        step: Callable[[int], None],
    ) -> None:
        self._update = update
        self._targets = targets
        self._changing = [target for target in targets if target.changes]
        self._window = update.window_bytes
        self._files = files
        self._journal = journal
        self._workers = workers
        self._threads = threads
        self._step = step
        self._buffers = BufferPool(self._window)
        self._holders: dict[str, list[str]] = {}
        self._places: dict[str, Held] = {}
        self._groups: list[list[Turn]] = []
        self._maker: Maker | None = None
        self._device_windows = DeviceWindows(update, files, journal, step=step)

    def prepare(self, folder: Path) -> None:
        """Finds what new tensors are made of, and in which order they can come; files go below `folder`."""
        for target in self._targets:
            name = _RESIDENT + target.resident.name
            self._files.memory[name] = target.resident.memory
            self._places.setdefault(target.before, Held(name, 0))
            self._holders.setdefault(target.before, []).append(name)
        resident = dict(self._places)
        needs = [needs_of(self._update.contents, target.after, resident) for target in self._changing]
        wanted = {name for need in needs for name in (*need.elsewhere, need.aligned) if name is not None}
        self._places.update(self._update.find(wanted - resident.keys(), self._threads * self._workers.count))
        self._groups = in_order(
            [target.before for target in self._changing],
            needs,
            [target.resident.size for target in self._changing],
        )
        self._maker = self._update.maker(self._files, self._places, self._threads)
        self._make_first(self._maker, folder)

    def run(self) -> None:
        """Overwrites. What is over, the journal can take back."""
        for group in self._groups:
            chosen = [self._changing[turn.number] for turn in group]
            for turn, target in zip(group, chosen, strict=True):
                if turn.keep:
                    self._keep(target)
            self._make_way(chosen)
            self._overwrite_group(chosen)
            for target in chosen:
                del self._files.memory[_RESIDENT + target.resident.name]

    def close(self) -> None:
        """Gives memory of devices back."""
        self._device_windows.close()

    def _make_first(self, maker: Maker, folder: Path) -> None:
        """Contents that others are made of here and there (factors of adapters) are decoded once, into a file."""
        groups = make_first(
            self._update.contents, (target.after for target in self._changing), dict(self._places)
        )
        path = folder / "made"
        offset = 0
        with path.open("wb") as out:
            for digest in (digest for group in groups for digest in group):
                size = self._update.size_of(digest)
                for begin in range(0, size, self._window):
                    self._step(0)
                    part = bytearray(min(self._window, size - begin))
                    maker.read_into(digest, begin, memoryview(part))
                    out.write(part)
                out.flush()
                maker.places[digest] = Held(str(path), offset)
                offset += size

    def _keep(self, target: Target) -> None:
        """Tensors that change places: the old bytes of one stay on the host until all that need them are made."""
        kept = bytearray(target.resident.size)
        target.resident.memory.read(memoryview(kept))
        self._files.memory[_KEPT + target.before] = HostBytes.of(kept)
        self._places[target.before] = Held(_KEPT + target.before, 0)

    def _make_way(self, chosen: Sequence[Target]) -> None:
        """Contents whose memory is about to be overwritten are read from elsewhere, if anything else has them."""
        leaving = {_RESIDENT + target.resident.name for target in chosen}
        for target in chosen:
            if self._places[target.before].location not in leaving:
                continue
            for name in self._holders[target.before]:
                if name in self._files.memory and name not in leaving:
                    self._places[target.before] = Held(name, 0)
                    break

    # --- windows ------------------------------------------------------------------------------------------

    def _overwrite_group(self, chosen: Sequence[Target]) -> None:
        jobs: list[Callable[[], None]] = []
        by_host: list[Target] = []
        on_devices: dict[int, list[tuple[Target, Chain]]] = {}
        for target in chosen:
            device = target.resident.memory.device
            chain = None if device is None else self._chain(target)
            if device is not None and chain is not None:
                on_devices.setdefault(device, []).append((target, chain))
            else:
                by_host.append(target)
        for unit in plan_units([target.resident.size for target in by_host], self._window):
            jobs.append(partial(self._by_host, [(by_host[piece.step], piece) for piece in unit]))
        for device, found in on_devices.items():
            for unit in plan_units([target.resident.size for target, _ in found], self._window):
                windows = [
                    DeviceWindow(*found[piece.step], piece.window, piece.offset, piece.length)
                    for piece in unit
                ]
                jobs.append(partial(self._device_windows.overwrite, device, windows))
        self._workers.run(lambda job: job(), jobs)

    def _chain(self, target: Target) -> Chain | None:
        """How the device can decode a tensor by itself, if it can: against nothing, or against its own memory."""
        found = chain_to(self._update.contents, target.after, self._places)
        if found is None:
            return None
        links, start = found
        if start is None:
            return Chain(tuple(links), None)
        place = self._places[start]
        memory = self._files.memory.get(place.location)
        if not isinstance(memory, DeviceBytes) or memory.device != target.resident.memory.device:
            return None
        return Chain(tuple(links), memory)

    def _by_host(self, pieces: Sequence[tuple[Target, Piece]]) -> None:
        assert self._maker is not None
        self._step(0)
        self._prefetch(pieces)
        for target, piece in pieces:
            memory = target.resident.memory.window(piece.offset, piece.offset + piece.length)
            with self._buffers.borrow() as buffer:
                new = buffer[: piece.length]
                try:
                    self._maker.read_into(target.after, piece.offset, new)
                except DATA_ERRORS as error:
                    raise with_context(error, f"tensor {target.resident.name!r}", hint=RESTORED) from error
                self._write(target, memory, new)
            self._step(piece.length)

    def _prefetch(self, pieces: Sequence[tuple[Target, Piece]]) -> None:
        wanted: list[tuple[str, int]] = []
        for target, piece in pieces:
            found = chain_to(self._update.contents, target.after, self._places)
            wanted += [] if found is None else [(link, piece.window) for link in found[0]]
        self._update.prefetch(wanted)

    def _write(self, target: Target, memory: Memory, new: memoryview) -> None:
        try:
            self._journal.write(memory, new, target.dtype)
        except DeviceError as error:
            raise DeviceError(f"tensor {target.resident.name!r}: {error.args[0]}", hint=error.hint) from error
