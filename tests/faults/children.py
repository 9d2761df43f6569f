"""Children to be killed or interrupted.

Those to be killed are forked, for a program that has its imports behind it starts another one in a millisecond: by
scripts, not inside a test runner, whose threads a fork would lose.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable

__all__ = ["heed_interrupts", "in_child", "say"]


def heed_interrupts() -> None:
    """Between fork and exec (`preexec_fn`): a suite that a script started in the background ignores interrupts, and its
    children would as well."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def say(line: str) -> None:
    """Prints at once: the next child must not inherit half a buffer."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def in_child(work: Callable[[], None]) -> int:
    """Runs ``work`` in a child and returns its process id; the child's status is 0 if nothing was raised."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        work()
        code = 0
    except BaseException:  # noqa: BLE001  a child has nobody else to tell
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)
