"""This machine's GPUs, read through the NVIDIA driver's library (NVML), and their XIDs.

The core does it in C++, on threads of its own: a driver that hangs blocks nobody here. The library is opened when a
:class:`Collector` is made, never before; without a driver this module imports all the same.
"""

from __future__ import annotations

import atexit
import os
import socket
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from textnlp_fast import _native
from textnlp_fast.errors import DeviceError, InvalidInputError
from textnlp_fast.gpu.health.facts import Event, Reading

__all__ = ["Collector", "CollectorState", "parse_kernel_line", "threads_left_behind"]

KERNEL_LOG: Final = "/dev/kmsg"
_HINT: Final = (
    "Install the NVIDIA driver (in a container: start it with the GPUs), or name its library: "
    "TEXTNLP_FAST_NVML=/path/to/libnvidia-ml.so.1."
)


@dataclass(frozen=True, kw_only=True)
class CollectorState:
    """How a collector itself is doing."""

    library: str
    driver_version: str
    library_version: str
    ready: bool
    """NVML is started."""
    hung: bool
    """A call has been out for longer than the deadline."""
    paused: bool
    error: str
    """Why no GPU can be read; empty if they can."""
    notes: tuple[str, ...]
    """What this collector cannot see, and what to do about it."""
    gpu_count: int
    rounds: int
    """Times that the GPUs were read."""
    events_dropped: int
    """The queue keeps the newest 4096."""
    kernel_log_missed: int
    """Times that the kernel wrote over records before they were read."""
    threads: int
    """Of this collector."""


class Collector:
    """Reads all GPUs every ``period_s`` seconds, and waits for XIDs of the driver and of the kernel's log.

    ``library`` is the driver's; None takes ``TEXTNLP_FAST_NVML``, or what the loader finds. ``machine`` is what
    readings and events call this one: its host name by default. Error counters, links and limits are read every
    ``slow_period_s``, and soon after an XID. A call into the driver that takes longer than ``deadline_s`` is a driver
    that hangs: an event says so, and another when it answers. While a GPU is lost, NVML is started anew every
    ``reinit_s``, for only so does it see one that was reset. ``kernel_log`` is /dev/kmsg or a pipe or file of such
    lines, None for none; ``kernel_log_from_start`` takes what it holds already. ``period_s=0`` reads only when asked.

    Runs until :meth:`close`; thread-safe. A fork's child must make its own. Raises DeviceError without a driver's
    library, InvalidInputError for periods that make no sense. A driver that is there and refuses raises nothing: it may
    come back, and :meth:`state` says what it answers.
    """

    def __init__(
        self,
        *,
        machine: str | None = None,
        library: str | os.PathLike[str] | None = None,
        period_s: float = 1.0,
        slow_period_s: float = 10.0,
        deadline_s: float = 5.0,
        reinit_s: float = 60.0,
        kernel_log: str | os.PathLike[str] | None = KERNEL_LOG,
        kernel_log_from_start: bool = False,
        same_event_s: float = 2.0,
    ) -> None:
        if library is not None and not Path(library).name:
            raise InvalidInputError("the path of the driver's library is empty", hint=_HINT)
        self.machine = machine if machine is not None else socket.gethostname()
        self._deadline_s = deadline_s
        try:
            self._native = _native.NvmlCollector(
                library=None if library is None else os.fspath(library),
                period_s=period_s,
                slow_period_s=slow_period_s,
                deadline_s=deadline_s,
                reinit_s=reinit_s,
                kernel_log=None if kernel_log is None else os.fspath(kernel_log),
                kernel_log_from_start=kernel_log_from_start,
                same_event_s=same_event_s,
            )
        except DeviceError as error:
            raise DeviceError(str(error.args[0]), hint=_HINT) from None
        _running.add(self)

    def readings(self) -> list[Reading]:
        """What is known of each GPU, in order of index; waits for nothing.

        Before the first round there is none. A GPU whose call hangs has a reading with an error and no values, as do
        all while the driver refuses.
        """
        return self._readings(self._native.readings())

    def sample(self, timeout_s: float | None = None) -> list[Reading]:
        """Asks every GPU for everything now, and waits for the answers, at most ``timeout_s``.

        By default a little longer than it takes to find out that a GPU hangs.
        """
        if timeout_s is None:
            timeout_s = 2 * self._deadline_s + 1
        return self._readings(self._native.sample(timeout_s=timeout_s))

    def events(self, timeout_s: float = 0.0) -> list[Event]:
        """Takes what happened since the last call; if nothing did, waits for it, at most ``timeout_s``.

        Kinds: ``xid``, ``sxid``, ``gpu-count``, ``driver-hung``, ``driver-answers``, ``driver-error``.
        """
        return [Event(machine=self.machine, **fields) for fields in self._native.events(timeout_s=timeout_s)]

    def state(self) -> CollectorState:
        """How the collector itself is doing."""
        fields = self._native.state()
        return CollectorState(**{**fields, "notes": tuple(fields["notes"])})

    @contextmanager
    def released(self, timeout_s: float = 10.0) -> Iterator[None]:
        """Lets go of the driver for the time of the block: a GPU cannot be reset while somebody holds it.

        Raises DeviceError if the driver could not be let go of in time.
        """
        if not self._native.pause(timeout_s=timeout_s):
            self._native.resume()
            raise DeviceError(
                f"the driver was not let go of within {timeout_s:g} s",
                hint="A call into it has not returned.",
            )
        try:
            yield
        finally:
            self._native.resume()

    def close(self, grace_s: float = 1.0) -> None:
        """Ends the threads; one that a hung driver holds for longer than ``grace_s`` ends when its call returns."""
        self._native.stop(grace_s=grace_s)
        _running.discard(self)

    def __enter__(self) -> Collector:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _readings(self, all_fields: list[dict[str, Any]]) -> list[Reading]:
        return [Reading(machine=self.machine, **fields) for fields in all_fields]


# Threads inside the driver while the process ends would meet a library that is taken down.
_running: weakref.WeakSet[Collector] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    for collector in list(_running):
        collector.close(grace_s=0.5)


def threads_left_behind() -> int:
    """Threads of closed collectors of this process that a hung driver still holds."""
    return _native.nvml_threads_left_behind()


def parse_kernel_line(line: bytes) -> dict[str, Any] | None:
    """The XID or SXID that a line of /dev/kmsg reports, None if it reports none.

    Keys: priority, sequence, time_us, nvswitch, code, pci_bus_id, text, pid, process, fatal, link.
    """
    return _native.nvml_parse_line(line)
