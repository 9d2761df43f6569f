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
from textnlp_fast.tensors.device_memory import CudaStream, DeviceArray, pinned_memory

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


class _Lane:
    """What one thread works with: a stream of its own, room for a window of new bytes there, page-locked memory for
    coded ones here. So reading, copying and decoding of different threads overlap."""

    def __init__(self, device: int, window_bytes: int) -> None:
        size = window_bytes + MAX_PIECES * _ALIGNMENT
        self.stream = CudaStream(device)
        self.room = DeviceArray.empty((size,), "U8", size, device=device, stream=self.stream.address)
        self.payloads = pinned_memory(
            codec.encode_bound(window_bytes) + MAX_PIECES * _ALIGNMENT, device=device
        )

    def places(self, windows: Sequence[DeviceWindow]) -> list[DeviceBytes]:
        """Room for each window, on a round address."""
        places, at = [], self.room.span().address
        for window in windows:
            places.append(DeviceBytes(self.room, at, window.size, self.room.device, self.stream.address))
            at += -(-window.size // _ALIGNMENT) * _ALIGNMENT
        return places


class DeviceWindows:
    """Overwrites windows on devices. Thread-safe; each thread at work takes a window on the device and one here."""

    def __init__(
        self, update: Update, files: OpenFiles, journal: Journal, *, step: Callable[[int], None]
    ) -> None:
        self._update = update
        self._files = files
        self._journal = journal
        self._step = step
        self._lanes: dict[int, list[_Lane]] = {}
        self._lock = threading.Lock()

    def overwrite(self, device: int, windows: Sequence[DeviceWindow]) -> None:
        """Makes windows that together are no larger than one and writes them over the old ones.

        Raises DeviceError and CorruptDataError with the tensor's name.
        """
        self._step(0)
        self._update.prefetch((link, window.window) for window in windows for link in window.chain.links)
        lane = self._take(device)
        for window, made in zip(windows, self._decode(lane, windows), strict=True):
            memory = window.target.resident.memory.window(window.begin, window.begin + window.size)
            try:
                self._journal.write(memory, made, window.target.dtype)
            except DeviceError as error:
                raise _about(error, window) from error
            self._step(window.size)
        # Not after an error: the way back may start from what the lane holds.
        with self._lock:
            self._lanes.setdefault(device, []).append(lane)

    def close(self) -> None:
        """Gives the memory back."""
        with self._lock:
            self._lanes.clear()

    def _take(self, device: int) -> _Lane:
        with self._lock:
            free = self._lanes.get(device)
            if free:
                return free.pop()
        return _Lane(device, self._update.window_bytes)

    def _decode(self, lane: _Lane, windows: Sequence[DeviceWindow]) -> list[DeviceBytes]:
        made = lane.places(windows)
        for window, out in zip(windows, made, strict=True):
            if not window.chain.links:
                assert window.start is not None
                out.copy_from(window.start)
        for level in range(max(len(window.chain.links) for window in windows)):
            self._decode_level(lane, level, windows, made)
        return made

    def _decode_level(
        self, lane: _Lane, level: int, windows: Sequence[DeviceWindow], made: Sequence[DeviceBytes]
    ) -> None:
        """The next link of every chain that has one, in one launch."""
        payloads, outs, bases, chosen = [], [], [], []
        filled = 0
        for window, out in zip(windows, made, strict=True):
            if level >= len(window.chain.links):
                continue
            digest = window.chain.links[level]
            try:
                size = self._update.coded.coded_bytes(digest, window.window)
                payload = lane.payloads[filled : filled + size]
                if len(payload) != size:
                    raise CorruptDataError(
                        f"a coded window of {size} bytes is larger than any that is written"
                    )
                self._update.read_window(self._files, digest, window.window, payload)
            except DATA_ERRORS as error:
                raise with_context(error, f"tensor {window.target.resident.name!r}") from error
            filled += size
            if self._update.contents[digest].codec == "raw":
                out.write(payload)
                continue
            base = out if level else window.start
            payloads.append(payload)
            outs.append(out.array)
            bases.append(None if base is None else base.array)
            chosen.append((window, digest))
        if not payloads:
            return
        try:
            codec.decode_many(payloads, outs, bases, stream=lane.stream.address)
        except TextnlpFastError as error:
            self._explain(error, chosen)

    def _explain(self, error: TextnlpFastError, chosen: Sequence[tuple[DeviceWindow, str]]) -> None:
        """Raises the error again, with the name of the tensor that it is about."""
        if error.job is None:
            if isinstance(error, DeviceError):
                raise _about(error, chosen[0][0]) from error
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
