"""`load_file` and `save_file` as `safetensors.torch` has them, for `textnlp://` URLs as well as paths."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from textnlp_fast.integrations.safetensors.opening import safe_open
from textnlp_fast.integrations.safetensors.saving import save
from textnlp_fast.integrations.urls import Place

__all__ = ["load_file", "save_file"]


def load_file(
    filename: str | os.PathLike[str],
    device: str | int = "cpu",
    *,
    backend: str = "mmap",
    repository: Place | None = None,
) -> dict[str, Any]:
    """All tensors of a file, or of a version, by name; each verified where it comes from a repository."""
    with safe_open(filename, "pt", device, backend=backend, repository=repository) as opened:
        tensors: dict[str, Any] = opened.get_tensors()
        return tensors


def save_file(
    tensors: Mapping[str, Any],
    filename: str | os.PathLike[str],
    metadata: dict[str, str] | None = None,
    *,
    repository: Place | None = None,
    message: str = "",
) -> None:
    """Writes a file; to a URL, publishes the version that it names, with this file alone.

    Saving the same tensors there again changes nothing; other tensors raise VersionExistsError.
    """
    save("torch", tensors, filename, metadata, repository, message)
