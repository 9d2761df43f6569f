"""The monitor's memory on disk: one JSON file, replaced in one step."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from textnlp_fast.destinations import file_destination
from textnlp_fast.errors import CorruptDataError, InvalidInputError

__all__ = ["read_state", "write_state"]

_LIMIT_BYTES: Final = 256 << 20


def read_state(path: Path) -> dict[str, Any] | None:
    """The document in the file; None if there is no file. Raises CorruptDataError for what is none."""
    try:
        with path.open("rb") as file:
            data = file.read(_LIMIT_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InvalidInputError(f"cannot read {path}: {error.strerror or error}") from error
    try:
        document = json.loads(data) if len(data) <= _LIMIT_BYTES else None
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict) or document.get("format") != "textnlp-fast health 1":
        raise CorruptDataError(
            f"{path} is no state of a health monitor",
            hint="Name another file, or remove it: the monitor begins anew and finds again what is still wrong.",
        )
    return document


def write_state(path: Path, document: Mapping[str, Any]) -> None:
    """Replaces the file; whoever is killed on the way leaves the old one. Raises InvalidInputError."""
    try:
        path = file_destination(path)
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        try:
            with temporary.open("x") as file:
                json.dump({"format": "textnlp-fast health 1", **document}, file, separators=(",", ":"))
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise InvalidInputError(f"cannot write {path}: {error.strerror or error}") from error
