"""xdelta3 at level 9, the command line tool: a general binary differ that finds copies of the base.

Its Python package does not run on Python 3.10 or newer. A process and three files a call are part of its time; they
are small beside it.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from measure import Bytes

from .peer import Peer, PeerFailedError, PeerUnavailableError


class XDelta(Peer):
    """``secondary``: what codes its instructions and literals, "djw" (Huffman) or "lzma"."""

    name = "xdelta3 -9"

    def __init__(self, secondary: str) -> None:
        program = shutil.which("xdelta3")
        if program is None:
            raise PeerUnavailableError("xdelta3 is not installed: apt-get install xdelta3")
        self.variant = secondary
        self._program = program

    def encode(self, target: Bytes, base: Bytes | None) -> Bytes:
        assert base is not None
        return self._run(["-e", "-9", "-S", self.variant], target, base)

    def decode(self, payload: Bytes, base: Bytes | None, out: Bytes) -> Bytes:
        assert base is not None
        return self._run(["-d"], payload, base)

    def _run(self, options: list[str], source: Bytes, base: Bytes) -> Bytes:
        with tempfile.TemporaryDirectory() as folder:
            names = [str(Path(folder) / name) for name in ("base", "in", "out")]
            base.tofile(names[0])
            source.tofile(names[1])
            done = subprocess.run(
                [self._program, *options, "-f", "-s", *names],
                capture_output=True,
                text=True,
                check=False,
                timeout=600,
            )
            if done.returncode:
                raise PeerFailedError(f"{self.name}: {done.stderr.strip()}")
            return np.fromfile(names[2], dtype=np.uint8)
