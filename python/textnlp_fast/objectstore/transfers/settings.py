"""What whoever moves a file may choose."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from textnlp_fast.errors import InvalidInputError
from textnlp_fast.objectstore.transfers.progress import TransferProgress

__all__ = ["ProgressFunction", "TransferSettings"]

ProgressFunction = Callable[[TransferProgress], None]

_LEAST_PART_BYTES: Final = 64 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferSettings:
    """How one file is moved. The defaults suit a fast network; nothing here changes the bytes that arrive."""

    part_bytes: int | None = None
    """Bytes of a part, which is what a killed transfer repeats of each stream at most. ``None``: 16 MiB, more where
    the provider allows too few parts for that."""
    streams: int | None = None
    """Parts moved at a time. ``None``: as many as make it faster, up to ``most_streams``."""
    most_streams: int = 16
    retries: int = 8
    """How often a part is tried again without a byte having moved in between."""
    stall_timeout_s: float = 30.0
    """A stream that moves fewer than ``least_bytes_per_s`` over this time is cut and begun anew."""
    least_bytes_per_s: float = 1024.0
    deadline_s: float | None = None
    """The whole transfer ends after this time, with what was moved kept for the next run."""
    bandwidth_bytes_per_s: float | None = None
    """What all streams together may take."""
    cancel: threading.Event | None = None
    """Set it to stop the transfer, from any thread."""
    on_cancel: Literal["keep", "discard"] = "keep"
    """Whether a cancelled transfer leaves what another run can go on with."""
    sync: bool = True
    """Downloads are on the disk, not only in its cache, before they get their name."""
    state_folder: str | os.PathLike[str] | None = None
    """Where journals of uploads lie; ``None``: ``$XDG_STATE_HOME/textnlp-fast/uploads``."""
    progress: ProgressFunction | None = None
    """Called several times a second, and once at the end, by one thread at a time."""

    def __post_init__(self) -> None:
        if self.part_bytes is not None and self.part_bytes < _LEAST_PART_BYTES:
            raise InvalidInputError(
                f"part_bytes is {self.part_bytes}; a part has at least {_LEAST_PART_BYTES}"
            )
        if not 1 <= (self.streams or 1) <= 256 or not 1 <= self.most_streams <= 256:
            raise InvalidInputError(
                f"streams={self.streams}, most_streams={self.most_streams}: 1 to 256 are possible"
            )
        positive = (self.stall_timeout_s, self.deadline_s, self.bandwidth_bytes_per_s)
        given = [value for value in (*positive, self.least_bytes_per_s) if value is not None]
        # Not a number compares as false with everything: it would pass every other test.
        if not all(map(math.isfinite, given)):
            raise InvalidInputError(
                "times and rates of a transfer are finite", hint="Leave out what is not to be bounded."
            )
        if any(value is not None and value <= 0 for value in positive) or self.least_bytes_per_s < 0:
            raise InvalidInputError("times and rates of a transfer are positive")
        if self.retries < 0:
            raise InvalidInputError(f"retries is {self.retries}; it is not negative")
        if self.on_cancel not in ("keep", "discard"):
            raise InvalidInputError(f"on_cancel is {self.on_cancel!r}", hint="Use 'keep' or 'discard'.")

    @property
    def uploads_folder(self) -> Path:
        """Where journals of uploads lie."""
        if self.state_folder is not None:
            return Path(self.state_folder)
        state = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
        return Path(state) / "textnlp-fast" / "uploads"
