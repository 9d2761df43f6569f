"""Which process is at a launch, and whether it still is."""

from __future__ import annotations

import datetime
import functools
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from textnlp_fast.gpu.resources.records import LaunchRecord

__all__ = ["at_work_on", "is_at_work", "process_start", "this_process"]

#: A process of another machine cannot be looked at: this long after it began, no launch of its is under way any more.
#: Longer than any provider's deadline for a launch.
_ELSEWHERE: Final = datetime.timedelta(minutes=45)

_in_flight: set[str] = set()
_lock = threading.Lock()


@contextmanager
def at_work_on(record: LaunchRecord) -> Iterator[None]:
    """While it lasts, this process is at work on the launch."""
    with _lock:
        _in_flight.add(record.launch_id)
    try:
        yield
    finally:
        with _lock:
            _in_flight.discard(record.launch_id)


def this_process() -> str:
    """Machine, boot, process and its start: no other process ever has the same."""
    return f"{_machine()}|{os.getpid()}|{process_start(os.getpid())}"


def is_at_work(record: LaunchRecord, now: datetime.datetime) -> bool:
    """Whether the process that wrote the record may still be launching it."""
    if record.process == this_process():
        with _lock:
            return record.launch_id in _in_flight
    machine, _, rest = record.process.rpartition("|")[0].rpartition("|")
    if machine != _machine():
        return now - record.created_at < _ELSEWHERE
    started = record.process.rpartition("|")[2]
    return rest.isdecimal() and bool(started) and process_start(int(rest)) == started


@functools.lru_cache(maxsize=1)
def _machine() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        boot = ""
    return f"{socket.gethostname()}|{boot}"


def process_start(pid: int) -> str:
    """When a process began, in the kernel's ticks; empty if there is none."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        if Path("/proc/self/stat").exists():
            return ""
        return _answers(pid)
    except OSError:
        return ""
    fields = status.rpartition(")")[2].split()
    # A zombie has ended; its parent has not looked yet.
    return "" if fields[0] in "ZX" else fields[19]


def _answers(pid: int) -> str:
    """Where there is no /proc: whether there is such a process."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        return "?"
    return "?"
