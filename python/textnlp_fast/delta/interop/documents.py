"""The JSON of a foreign delta: bounded, and an object."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from textnlp_fast.errors import CorruptDataError, InvalidInputError

__all__ = ["read_object"]

_MAX_BYTES: Final = 256 << 20


def read_object(path: Path, hint: str) -> dict[str, Any]:
    """The JSON object in a file. InvalidInputError with `hint` if there is none, CorruptDataError if it is not one."""
    try:
        size = path.stat().st_size
        if size > _MAX_BYTES:
            raise CorruptDataError(f"{path} has {size} bytes; {_MAX_BYTES} are read at most")
        content: Any = json.loads(path.read_bytes())
    except OSError as error:
        raise InvalidInputError(f"cannot read {path}: {error.strerror}", hint=hint) from error
    except (ValueError, RecursionError) as error:
        raise CorruptDataError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise CorruptDataError(f"{path} is not a JSON object")
    return content
