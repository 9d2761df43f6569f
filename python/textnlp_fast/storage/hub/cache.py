"""The local cache that Hugging Face's tools share: where a model's files are, and whether they are what they should be.

Layout (https://huggingface.co/docs/huggingface_hub/guides/manage-cache): `models--<org>--<name>` holds `refs/<name>`,
each a file with a commit; `snapshots/<commit>`, whose files are links; and `blobs`, which they lead to. A blob is named
by what the hub says of it: the SHA-256 of a large file, the SHA-1 that git gives a small one.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from textnlp_fast.errors import CorruptDataError, InvalidInputError
from textnlp_fast.tensors import check_relative_path

__all__ = ["HubModel", "blob_name", "check_blob", "default_cache", "hub_model"]

_REPO_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,95}(/[A-Za-z0-9_][A-Za-z0-9._-]{0,95})?", re.ASCII)
COMMIT: Final = re.compile(r"[0-9a-f]{40}", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
_READ_BYTES: Final = 4 << 20
_MAX_REF_BYTES: Final = 4096
#: From here on the hub keeps a file as a large one, as it does safetensors of any size.
_LARGE_BYTES: Final = 10 << 20


@dataclass(frozen=True, slots=True)
class HubModel:
    """A model's folder in a cache."""

    repo_id: str
    folder: Path

    def snapshot(self, commit: str) -> Path:
        return self.folder / "snapshots" / commit

    def ref(self, revision: str) -> Path:
        """The file of a branch or tag. Raises InvalidInputError for a name that leads elsewhere."""
        return self.folder / "refs" / check_relative_path(revision)

    def commit_of(self, revision: str) -> str | None:
        """The commit that a branch, tag or commit means here; None if it is not in the cache."""
        path = self.ref(revision)
        if path.is_file():
            with path.open("rb") as file:
                commit = file.read(_MAX_REF_BYTES).decode("ascii", "replace").strip()
            if COMMIT.fullmatch(commit) is None:
                raise CorruptDataError(
                    f"{path} holds no commit", hint="Remove it and download the model again."
                )
            return commit
        known = COMMIT.fullmatch(revision) is not None and self.snapshot(revision).is_dir()
        return revision if known else None


def default_cache() -> Path:
    """Where Hugging Face's tools keep models: HF_HUB_CACHE, else below HF_HOME, else below the user's cache."""
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if os.environ.get(variable):
            return Path(os.environ[variable]).expanduser()
    home = os.environ.get("HF_HOME")
    if home:
        return Path(home).expanduser() / "hub"
    root = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(root).expanduser() / "huggingface" / "hub"


def hub_model(repo_id: str, cache_dir: str | os.PathLike[str] | None) -> HubModel:
    """The folder of a model in a cache (None: the default one), whether it is there or not."""
    if _REPO_ID.fullmatch(repo_id) is None or "--" in repo_id or ".." in repo_id:
        raise InvalidInputError(f"{repo_id!r} is no name of the hub's", hint="Write org/name, or name.")
    cache = default_cache() if cache_dir is None else Path(cache_dir).expanduser()
    return HubModel(repo_id, cache.absolute() / f"models--{repo_id.replace('/', '--')}")


def blob_name(path: Path, name: str) -> str:
    """What the hub calls the content of a file that has this name in its model."""
    large = name.endswith(".safetensors") or path.stat().st_size >= _LARGE_BYTES
    return _sha256(path) if large else _git_sha1(path)


def check_blob(path: Path, blob: str) -> bool:
    """Whether the file's name, as a blob, told what is in it. Raises CorruptDataError if it is something else."""
    digest: Callable[[Path], str]
    if _SHA256.fullmatch(blob):
        digest = _sha256
    elif COMMIT.fullmatch(blob):
        digest = _git_sha1
    else:
        return False
    if digest(path) != blob:
        raise CorruptDataError(
            f"{path} is not what its name says: bytes of it changed",
            hint="Remove it from the cache and download the model again.",
        )
    return True


def _sha256(path: Path) -> str:
    return _hashed(path, hashlib.sha256())


def _git_sha1(path: Path) -> str:
    return _hashed(path, hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False))


def _hashed(path: Path, hasher: Any) -> str:
    with path.open("rb") as file:
        while data := file.read(_READ_BYTES):
            hasher.update(data)
    return str(hasher.hexdigest())
