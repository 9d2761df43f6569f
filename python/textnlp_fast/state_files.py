"""What a process keeps on disk for the next one: a JSON document in one file, replaced in one step."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from textnlp_fast.destinations import file_destination
from textnlp_fast.errors import CorruptDataError, InvalidInputError

__all__ = ["read_state", "write_state"]


def read_state(
    path: Path, form: str | int, *, limit_bytes: int, what: str, hint: str
) -> dict[str, Any] | None:
    """The document of format `form`; None if there is no file.

    Raises CorruptDataError, "PATH is WHAT" with `hint`, for a file that holds something else or more than that,
    InvalidInputError for one that cannot be read.
    """
    try:
        with path.open("rb") as file:
            data = file.read(limit_bytes + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InvalidInputError(f"cannot read {path}: {error.strerror or error}") from error
    try:
        document = json.loads(data) if len(data) <= limit_bytes else None
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict) or document.get("format") != form:
        raise CorruptDataError(f"{path} is {what}", hint=hint)
    return document


def write_state(path: Path, form: str | int, document: Mapping[str, Any]) -> None:
    """Replaces the file, on disk when this returns; whoever is killed on the way leaves the old one.

    Raises InvalidInputError if it cannot be written, or if something that is no file has the name.
    """
    try:
        path = file_destination(path)
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        try:
            with temporary.open("x") as file:
                json.dump({"format": form, **document}, file, separators=(",", ":"))
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise InvalidInputError(f"cannot write {path}: {error.strerror or error}") from error
