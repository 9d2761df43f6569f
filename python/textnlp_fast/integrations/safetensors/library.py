"""The package `safetensors`, where paths are meant and to write files; asked for when it is needed."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from textnlp_fast.errors import MissingPackageError

__all__ = ["safetensors_module"]


def safetensors_module(name: str = "safetensors") -> Any:
    """One of its modules. Raises MissingPackageError."""
    try:
        return import_module(name)
    except ImportError as error:
        missing = "safetensors" if error.name is None else error.name.partition(".")[0]
        raise MissingPackageError(f"{missing} is not installed", hint=f"pip install {missing}") from error
