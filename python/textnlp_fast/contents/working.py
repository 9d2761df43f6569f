"""How many threads work on windows, and what memory they may take."""

from __future__ import annotations

import os
from typing import Final

from textnlp_fast.errors import InvalidInputError

__all__ = [
    "DEFAULT_MEMORY_BYTES",
    "MOST_MEMORY_BYTES",
    "MOST_THREADS",
    "check_threads",
    "thread_count",
    "workers_for",
]

DEFAULT_MEMORY_BYTES: Final = 384 << 20
# What the settings allow, too. Larger numbers are mistakes, and the core takes no more than 32 bits of threads.
MOST_MEMORY_BYTES: Final = 1 << 40
MOST_THREADS: Final = 4096


def check_threads(threads: int) -> int:
    """A number of threads, 0 for every processor. Raises InvalidInputError for one that cannot be meant."""
    if not 0 <= threads <= MOST_THREADS:
        raise InvalidInputError(
            f"threads is {threads}; it may be 1 to {MOST_THREADS}, or 0 for every processor"
        )
    return threads


def thread_count(threads: int) -> int:
    """Threads to use: as many as given, or as this process has processors if 0."""
    if check_threads(threads):
        return threads
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def workers_for(unit_bytes: int, budget_bytes: int, threads: int) -> int:
    """Units of work of `unit_bytes` each that may be in flight. Raises InvalidInputError if not even one may."""
    if budget_bytes > MOST_MEMORY_BYTES:
        raise InvalidInputError(
            f"the memory budget is {budget_bytes} bytes; it may be up to {MOST_MEMORY_BYTES}"
        )
    if unit_bytes > budget_bytes:
        raise InvalidInputError(
            f"the memory budget is {budget_bytes} bytes; one window takes {unit_bytes}",
            hint="Raise memory_budget_bytes (--memory-mib).",
        )
    return max(1, min(threads, budget_bytes // unit_bytes))
