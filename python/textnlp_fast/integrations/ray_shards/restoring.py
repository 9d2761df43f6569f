"""A version's files, made by tasks across a cluster: in a directory that all nodes see, or each on its node."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from textnlp_fast.contents.staging import check_destination, disk_errors, staging_folder
from textnlp_fast.contents.windows import ProgressCallback
from textnlp_fast.errors import InvalidInputError
from textnlp_fast.integrations.ray_shards.running import Cluster, Job, counting
from textnlp_fast.integrations.ray_shards.stretches import DEFAULT_PART_BYTES, parts_of
from textnlp_fast.integrations.ray_shards.tasks import Version, fill_stretches, make_files
from textnlp_fast.integrations.urls import Place, open_repository, parse_model_url
from textnlp_fast.objectstore import local_folder
from textnlp_fast.storage.config import TransferOptions
from textnlp_fast.storage.manifest import Manifest
from textnlp_fast.storage.pull_record import read_record
from textnlp_fast.storage.staging import publish

__all__ = ["RestoreReport", "restore"]


@dataclass(frozen=True, slots=True)
class RestoreReport:
    """What was made: `files` of `raw_bytes` in all, by so many `tasks`."""

    model: str
    version: str
    path: str
    files: int
    tasks: int
    raw_bytes: int
    seconds: float


def restore(
    url: str,
    destination: str | os.PathLike[str],
    *,
    repository: Place | None = None,
    nodes: Mapping[str, str] | None = None,
    part_bytes: int = DEFAULT_PART_BYTES,
    options: TransferOptions | None = None,
    cluster: Cluster | None = None,
    progress: ProgressCallback | None = None,
) -> RestoreReport:
    """Makes the files of a version, every byte verified by the task that wrote it, in tasks of about `part_bytes`.

    All nodes see the destination: it appears at once, when everything is there, or each of its files is replaced
    then, as a pull does it. Or `nodes` says which files go to which node (Ray's id of it), by their path in the
    version; each of those appears below the destination there when it is whole, and the others are left out.
    `options` hold for each task.

    Raises what a pull raises, TaskLostError, LoadTimeoutError; then a destination that all see is as it was.
    """
    started = time.monotonic()
    parsed = parse_model_url(url)
    if parsed.path is not None:
        raise InvalidInputError(
            f"{url}: a version is restored whole", hint="Leave the path out, or use nodes=."
        )
    opened = open_repository(parsed, repository)
    manifest = opened.trusted_manifest(parsed.name, parsed.selector)
    version = Version(opened.url, manifest.model, manifest.version, options or opened.options)
    how = cluster or Cluster()
    if nodes is None:
        final = Path(destination).expanduser().resolve()
        tasks = _restore_shared(manifest, version, final, part_bytes, how, progress)
        paths = [entry.path for entry in manifest.files]
    else:
        final = Path(destination)
        if not final.is_absolute():
            raise InvalidInputError(
                f"{final} is a relative path", hint="Nodes do not share a working directory."
            )
        tasks = _restore_on(manifest, version, final, nodes, how, progress)
        paths = list(nodes)
    sizes = {entry.path: entry.size for entry in manifest.files}
    return RestoreReport(
        manifest.model,
        manifest.version,
        str(final),
        len(paths),
        tasks,
        sum(sizes[path] for path in paths),
        time.monotonic() - started,
    )


def _restore_shared(
    manifest: Manifest,
    version: Version,
    final: Path,
    part_bytes: int,
    cluster: Cluster,
    progress: ProgressCallback | None,
) -> int:
    parts = parts_of(manifest, part_bytes)
    with disk_errors(final):
        check_destination(final, (entry.path for entry in manifest.files), local_folder(version.repository))
        with staging_folder(final) as staging:
            for entry in manifest.files:
                place = staging / entry.path
                place.parent.mkdir(parents=True, exist_ok=True)
                with place.open("xb") as file:
                    file.truncate(entry.size)
            jobs = [
                Job(
                    fill_stretches,
                    (version, str(staging), part),
                    size_bytes=sum(each.size for each in part),
                )
                for part in parts
            ]
            cluster.run(jobs, counting(progress, "restore", manifest.raw_bytes))
            publish(staging, final, manifest, read_record(final), version.repository)
    return len(parts)


def _restore_on(
    manifest: Manifest,
    version: Version,
    folder: Path,
    nodes: Mapping[str, str],
    cluster: Cluster,
    progress: ProgressCallback | None,
) -> int:
    sizes = {entry.path: entry.size for entry in manifest.files}
    unknown = sorted(nodes.keys() - sizes.keys())
    if unknown:
        raise InvalidInputError(f"{manifest.model}@{manifest.version} has no file {unknown[0]!r}")
    jobs = [
        Job(make_files, (version, str(folder), (path,)), node, sizes[path])
        for path, node in sorted(nodes.items())
    ]
    cluster.run(jobs, counting(progress, "restore", sum(sizes[path] for path in nodes)))
    return len(jobs)
