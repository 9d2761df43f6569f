"""The monitor's memory on disk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from textnlp_fast import state_files

__all__ = ["read_state", "write_state"]

_FORMAT: Final = "textnlp-fast health 1"
_LIMIT_BYTES: Final = 256 << 20


def read_state(path: Path) -> dict[str, Any] | None:
    """The document in the file; None if there is no file. Raises CorruptDataError for what is none."""
    return state_files.read_state(
        path,
        _FORMAT,
        limit_bytes=_LIMIT_BYTES,
        what="no state of a health monitor",
        hint="Name another file, or remove it: the monitor begins anew and finds again what is still wrong.",
    )


def write_state(path: Path, document: Mapping[str, Any]) -> None:
    """Replaces the file; whoever is killed on the way leaves the old one. Raises InvalidInputError."""
    state_files.write_state(path, _FORMAT, document)
