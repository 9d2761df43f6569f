"""A version out of files that lie across nodes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from textnlp_fast.contents.inventory import scan_model
from textnlp_fast.contents.windows import ProgressCallback
from textnlp_fast.errors import InternalError, InvalidInputError
from textnlp_fast.integrations.ray_shards.running import Cluster, Job, counting
from textnlp_fast.integrations.ray_shards.tasks import code_files
from textnlp_fast.integrations.urls import Place, open_repository, parse_model_url
from textnlp_fast.storage.config import TransferOptions
from textnlp_fast.storage.joint_push import JointPush
from textnlp_fast.storage.publication import OvertakenError
from textnlp_fast.storage.push import PushReport, PushRequest
from textnlp_fast.storage.version_manager import VersionManager

__all__ = ["push"]

DEFAULT_PART_BYTES: Final = 256 << 20
_TRIES: Final = 4


def push(
    url: str,
    directory: str | os.PathLike[str],
    *,
    repository: Place | None = None,
    nodes: Mapping[str, str] | None = None,
    parent: tuple[str, str] | str | None = "auto",
    message: str = "",
    metadata: Mapping[str, str] | None = None,
    options: TransferOptions | None = None,
    part_bytes: int = DEFAULT_PART_BYTES,
    cluster: Cluster | None = None,
    progress: ProgressCallback | None = None,
) -> PushReport:
    """Publishes a model's directory as the version that the URL names: a task a file, or several below `part_bytes`.

    All nodes see the directory; or `nodes` says on which one (Ray's id of it) each file of the version is, by its
    path below the directory there. Those are all of the files then. `options` hold for each task. New tensors are
    coded against those of the same name in `parent`, as `Repository.push` takes it. What is pushed again is found.

    Raises what a push raises, TaskLostError, LoadTimeoutError. Then nothing was published.
    """
    parsed = parse_model_url(url)
    name, version = parsed.name, parsed.exact
    if parsed.path is not None:
        raise InvalidInputError(f"{url}: a version is published whole", hint="Leave the path out.")
    opened = open_repository(parsed, repository, for_push=True)
    root = Path(directory)
    jobs = _parts_of(root, part_bytes) if nodes is None else _parts_on(root, nodes)
    request = PushRequest(
        path=directory, name=name, version=version, parent=parent, message=message, metadata=metadata or {}
    )
    how, chosen = cluster or Cluster(), options or opened.options
    for left in reversed(range(_TRIES)):
        joint = JointPush(opened.store, VersionManager(opened.store), request, chosen)
        try:
            parts = how.run(
                [Job(code_files, (opened.url, joint.task, files), node, size) for node, files, size in jobs],
                counting(progress, "push", sum(size for _, _, size in jobs)),
            )
            return joint.finish(parts)
        except OvertakenError:  # by a collection, which seldom comes twice
            if not left:
                raise
    raise InternalError("a push ended without a result")


def _parts_of(root: Path, part_bytes: int) -> list[tuple[str | None, dict[str, str], int]]:
    """Which files go together, where all nodes see them: large ones alone, the largest first."""
    model = scan_model(root)
    if not root.is_dir():
        raise InvalidInputError(f"{root} is no directory")
    found = [(file.name, str(file.path), file.size) for file in model.safetensors]
    found += [(other.name, str(other.path), other.size) for other in model.others]
    parts: list[tuple[str | None, dict[str, str], int]] = []
    small: dict[str, str] = {}
    size = 0
    for path, location, bytes_ in sorted(found, key=lambda each: (-each[2], each[0])):
        if bytes_ >= part_bytes:
            parts.append((None, {path: location}, bytes_))
            continue
        if size + bytes_ > part_bytes and small:
            parts.append((None, small, size))
            small, size = {}, 0
        small[path] = location
        size += bytes_
    if small:
        parts.append((None, small, size))
    return parts


def _parts_on(root: Path, nodes: Mapping[str, str]) -> list[tuple[str | None, dict[str, str], int]]:
    if not nodes:
        raise InvalidInputError("nodes names no file")
    return [(node, {path: str(root / path)}, 0) for path, node in sorted(nodes.items())]
