"""The plain synchronous way: one function a journey, each over `Repository`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from textnlp_fast.contents.windows import ProgressCallback
from textnlp_fast.storage.compare import DiffRow
from textnlp_fast.storage.config import TransferOptions
from textnlp_fast.storage.pull import PullReport
from textnlp_fast.storage.push import PushReport
from textnlp_fast.storage.repository import LogRow, Repository
from textnlp_fast.storage.signing import PrivateKey, SignaturePolicy
from textnlp_fast.storage.verify import VerifyReport

__all__ = ["diff", "log", "pull", "push", "verify"]

Place = str | os.PathLike[str]


def push(
    model_path: Place,
    repository: Place,
    *,
    name: str,
    version: str,
    parent: tuple[str, str] | str | None = "auto",
    base_path: Place | None = None,
    message: str = "",
    metadata: Mapping[str, str] | None = None,
    sign_key: PrivateKey | None = None,
    options: TransferOptions | None = None,
    progress: ProgressCallback | None = None,
) -> PushReport:
    """Publishes a safetensors file or a Hugging Face directory as a version; makes the repository if need be.

    `repository` is a path or a URL (`s3://bucket/prefix`). More under `textnlp_fast.storage.Repository.push`.
    """
    return Repository.open(repository, create="at push", options=options).push(
        model_path,
        name,
        version,
        parent=parent,
        base_path=base_path,
        message=message,
        metadata=metadata,
        sign_key=sign_key,
        progress=progress,
    )


def pull(
    repository: Place,
    dest: Place,
    *,
    name: str,
    version: str | None = None,
    have: Sequence[Place] = (),
    signatures: SignaturePolicy | None = None,
    options: TransferOptions | None = None,
    progress: ProgressCallback | None = None,
) -> PullReport:
    """Makes `dest` a directory with the files of a version (None: the latest), each byte verified.

    More under `textnlp_fast.storage.Repository.pull`.
    """
    return Repository.open(repository, options=options).pull(
        name, version, dest, have=have, signatures=signatures, progress=progress
    )


def log(repository: Place, *, name: str) -> list[LogRow]:
    """The versions of a model, in the order of semantic versioning."""
    return Repository.open(repository).log(name)


def diff(
    repository: Place, old: str, new: str, *, name: str, options: TransferOptions | None = None
) -> list[DiffRow]:
    """What changed between two versions of a model, tensor by tensor."""
    return Repository.open(repository, options=options).diff(name, old, new)


def verify(
    repository: Place,
    *,
    name: str | None = None,
    version: str | None = None,
    deep: bool = True,
    options: TransferOptions | None = None,
    progress: ProgressCallback | None = None,
) -> VerifyReport:
    """Checks a version, a model or everything; see `VerifyReport.ok`."""
    return Repository.open(repository, options=options).verify(name, version, deep=deep, progress=progress)
