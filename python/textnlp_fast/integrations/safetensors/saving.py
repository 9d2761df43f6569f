"""`save_file` of every framework: to a path, or to a URL, where the file is a version."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from textnlp_fast.integrations.safetensors.library import safetensors_module
from textnlp_fast.integrations.urls import Place, is_model_url, open_repository, parse_model_url

__all__ = ["save"]

_FILE_NAME: Final = "model.safetensors"


def save(
    framework: str,
    tensors: Mapping[str, Any],
    filename: str | os.PathLike[str],
    metadata: dict[str, str] | None,
    repository: Place | None,
    message: str,
) -> None:
    """Writes a file as `safetensors.<framework>` does; to a URL, publishes it as the version that the URL names.

    The version has this file alone, as `model.safetensors` or under the path that the URL names. Raises what a push
    does, and InvalidInputError if the URL names no exact version.
    """
    write = safetensors_module(f"safetensors.{framework}").save_file
    if not is_model_url(filename):
        write(tensors, filename, metadata=metadata)
        return
    parsed = parse_model_url(str(filename))
    version = parsed.exact
    opened = open_repository(parsed, repository, for_push=True)
    with tempfile.TemporaryDirectory(prefix="textnlp-fast-") as folder:
        path = Path(folder, parsed.path or _FILE_NAME)
        path.parent.mkdir(parents=True, exist_ok=True)
        write(tensors, path, metadata=metadata)
        opened.push(folder, parsed.name, version, message=message)
