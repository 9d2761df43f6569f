"""Every byte of a version, decoded and compared by tasks across a cluster."""

from __future__ import annotations

import time
from dataclasses import dataclass

from textnlp_fast.contents.windows import ProgressCallback
from textnlp_fast.integrations.ray_shards.running import Cluster, Job, counting
from textnlp_fast.integrations.ray_shards.stretches import DEFAULT_PART_BYTES, parts_of
from textnlp_fast.integrations.ray_shards.tasks import Version, check_stretches
from textnlp_fast.integrations.urls import Place, open_repository, parse_model_url
from textnlp_fast.storage.config import TransferOptions

__all__ = ["VerifyReport", "verify"]


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What was found. `problems` are what is damaged, as a person calls it, and why."""

    model: str
    version: str
    checked_bytes: int
    problems: tuple[tuple[str, str], ...]
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether nothing is damaged."""
        return not self.problems


def verify(
    url: str,
    *,
    repository: Place | None = None,
    part_bytes: int = DEFAULT_PART_BYTES,
    options: TransferOptions | None = None,
    cluster: Cluster | None = None,
    progress: ProgressCallback | None = None,
) -> VerifyReport:
    """Decodes all of a version and compares it with its digests, in tasks of about `part_bytes`.

    `options` hold for each task. Raises ModelNotFoundError, VersionNotFoundError, StorageUnavailableError,
    TaskLostError; damage is told in the report.
    """
    started = time.monotonic()
    parsed = parse_model_url(url)
    opened = open_repository(parsed, repository)
    manifest = opened.manifest(parsed.name, parsed.selector)
    version = Version(opened.url, manifest.model, manifest.version, options or opened.options)
    jobs = [
        Job(check_stretches, (version, part), size_bytes=sum(each.size for each in part))
        for part in parts_of(manifest, part_bytes)
    ]
    found = (cluster or Cluster()).run(jobs, counting(progress, "verify", manifest.raw_bytes))
    problems = dict(problem for part in found for problem in part)
    return VerifyReport(
        manifest.model,
        manifest.version,
        manifest.raw_bytes,
        tuple(sorted(problems.items())),
        time.monotonic() - started,
    )
