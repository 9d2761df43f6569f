"""How many threads work on windows, and what memory they may take."""

from __future__ import annotations

import os
from typing import Final

from textnlp_fast.errors import InvalidInputError

__all__ = ["DEFAULT_MEMORY_BYTES", "thread_count", "workers_for"]

DEFAULT_MEMORY_BYTES: Final = 384 << 20


def thread_count(threads: int) -> int:
    """Threads to use: as many as given, or as this process has processors if 0."""
    if threads < 0:
        raise InvalidInputError(f"threads is {threads}; 0 means every processor")
    if threads:
        return threads
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def workers_for(unit_bytes: int, budget_bytes: int, threads: int) -> int:
    """Units of work of `unit_bytes` each that may be in flight. Raises InvalidInputError if not even one may."""
    if unit_bytes > budget_bytes:
        raise InvalidInputError(
            f"the memory budget is {budget_bytes} bytes; one window takes {unit_bytes}",
            hint="Raise memory_budget_bytes (--memory-mib).",
        )
    return max(1, min(threads, budget_bytes // unit_bytes))
