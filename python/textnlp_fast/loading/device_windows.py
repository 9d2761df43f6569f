"""Windows of tensors on a CUDA device, decoded there: payloads go up, new bytes are made beside the old ones and then
take their place."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from textnlp_fast.contents.windows import DATA_ERRORS, MAX_PIECES, OpenFiles, with_context
from textnlp_fast.delta import codec
from textnlp_fast.errors import CorruptDataError, DeviceError, InvalidInputError, TextnlpFastError
from textnlp_fast.loading.memory import DeviceBytes
from textnlp_fast.loading.targets import Target
from textnlp_fast.loading.undo import Journal
from textnlp_fast.loading.updates import Update
from textnlp_fast.tensors.device_memory import DeviceArray

__all__ = ["Chain", "DeviceWindow", "DeviceWindows"]

_ALIGNMENT: Final = 256


@dataclass(frozen=True, slots=True)
class Chain:
    """Contents to decode one after the other, each against what the one before made; `start` is under the first.

    Without any, `start` is the new content itself.
    """

    links: tuple[str, ...]
    start: DeviceBytes | None


@dataclass(frozen=True, slots=True)
class DeviceWindow:
    """Window number `window` of a tensor on a device: `size` bytes from `begin` on."""

    target: Target
    chain: Chain
    window: int
    begin: int
    size: int

    @property
    def start(self) -> DeviceBytes | None:
        """The window of what the chain starts from."""
        whole = self.chain.start
        return None if whole is None else whole.window(self.begin, self.begin + self.size)


class DeviceWindows:
    """Overwrites windows on devices. Thread-safe; each thread at work takes room for a window on the device."""

    def __init__(
        self, update: Update, files: OpenFiles, journal: Journal, *, step: Callable[[int], None]
    ) -> None:
        self._update = update
        self._files = files
        self._journal = journal
        self._step = step
        self._rooms: dict[int, list[DeviceArray]] = {}
        self._lock = threading.Lock()

    def overwrite(self, device: int, windows: Sequence[DeviceWindow]) -> None:
        """Makes windows that together are no larger than one and writes them over the old ones."""
        self._step(0)
        self._update.prefetch((link, window.window) for window in windows for link in window.chain.links)
        room = self._take(device)
        try:
            new = self._decode(room, windows)
            for window, made in zip(windows, new, strict=True):
                memory = window.target.resident.memory.window(window.begin, window.begin + window.size)
                try:
                    self._journal.write(memory, made, window.target.dtype)
                except DeviceError as error:
                    raise _about(error, window) from error
                self._step(window.size)
        finally:
            with self._lock:
                self._rooms.setdefault(device, []).append(room)

    def close(self) -> None:
        """Gives the room back to the devices."""
        with self._lock:
            self._rooms.clear()

    def _take(self, device: int) -> DeviceArray:
        """Room for a window, or for as many small ones as a unit has, each on a round address."""
        with self._lock:
            free = self._rooms.get(device)
            if free:
                return free.pop()
        size = self._update.window_bytes + MAX_PIECES * _ALIGNMENT
        return DeviceArray.empty((size,), "U8", size, device=device)

    def _decode(self, room: DeviceArray, windows: Sequence[DeviceWindow]) -> list[DeviceBytes]:
        made: list[DeviceBytes] = []
        at = room.span().address
        for window in windows:
            made.append(DeviceBytes(room, at, window.size, room.device))
            at += -(-window.size // _ALIGNMENT) * _ALIGNMENT
        for window, out in zip(windows, made, strict=True):
            if not window.chain.links:
                assert window.start is not None
                out.copy_from(window.start)
        for level in range(max(len(window.chain.links) for window in windows)):
            self._decode_level(level, windows, made)
        return made

    def _decode_level(self, level: int, windows: Sequence[DeviceWindow], made: Sequence[DeviceBytes]) -> None:
        """The next link of every chain that has one, in one launch."""
        payloads, outs, bases, chosen = [], [], [], []
        for window, out in zip(windows, made, strict=True):
            if level >= len(window.chain.links):
                continue
            digest = window.chain.links[level]
            try:
                payload = self._payload(digest, window.window)
                if self._update.contents[digest].codec == "raw":
                    out.write(payload)
                    continue
            except DATA_ERRORS as error:
                raise with_context(error, f"tensor {window.target.resident.name!r}") from error
            base = out if level else window.start
            payloads.append(payload)
            outs.append(out.array)
            bases.append(None if base is None else base.array)
            chosen.append((window, digest))
        if not payloads:
            return
        try:
            codec.decode_many(payloads, outs, bases)
        except TextnlpFastError as error:
            self._explain(error, chosen)

    def _payload(self, digest: str, window: int) -> memoryview:
        coded = self._update.coded
        return coded.read_coded(self._files, digest, window, 0, coded.coded_bytes(digest, window))

    def _explain(self, error: TextnlpFastError, chosen: Sequence[tuple[DeviceWindow, str]]) -> None:
        """Raises the error again, with the name of the tensor that it is about."""
        if error.job is None:
            raise error
        window, digest = chosen[error.job]
        if isinstance(error, DeviceError):
            raise _about(error, window) from error
        name = f"tensor {window.target.resident.name!r}"
        if isinstance(error, InvalidInputError):  # the call is right, so the frames are not
            raise CorruptDataError(f"{name}: {error.args[0]}") from error
        if isinstance(error, DATA_ERRORS):
            # A damaged byte can look like a newer format.
            self._update.coded.check_coded(self._files, digest, window.window)
            raise with_context(error, name) from error
        raise error


def _about(error: DeviceError, window: DeviceWindow) -> DeviceError:
    return DeviceError(f"tensor {window.target.resident.name!r}: {error.args[0]}", hint=error.hint)
