"""The command line: one file a verb. The only place in the package that prints.

Nothing is loaded here before `main` runs, for an interrupt before that ends in a traceback.
"""

from __future__ import annotations

import atexit
import sys
from gc import freeze  # `gc` is a verb's file here

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line and exits the process with the code of what happened."""
    # The interpreter searches all objects for garbage before it ends, which the system takes back anyway: on a busy
    # machine people wait seconds after the last line. At exit only, for `main` is called from programs, too.
    atexit.unregister(freeze)
    atexit.register(freeze)
    try:
        from textnlp_fast.cli.interrupts import ending_at_once  # noqa: PLC0415

        with ending_at_once():
            from textnlp_fast.cli.program import run  # noqa: PLC0415
        run(arguments)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(130)
