"""The asynchronous face of a repository: the same functions, each on a thread of its own."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Mapping, Sequence
from typing import Literal

from textnlp_fast.contents.windows import ProgressCallback
from textnlp_fast.storage.compare import DiffRow
from textnlp_fast.storage.config import StorageConfig
from textnlp_fast.storage.features import Forecast
from textnlp_fast.storage.garbage.collecting import CollectionOptions, GarbageReport
from textnlp_fast.storage.pull import PullReport
from textnlp_fast.storage.push import PushReport
from textnlp_fast.storage.repository import LogRow, Repository
from textnlp_fast.storage.verify import VerifyReport

__all__ = ["UnifiedModelStorage"]


class UnifiedModelStorage:
    """Models in the bucket that a `StorageConfig` names.

    The bucket is opened at the first call; the first upload makes the repository. Arguments, results and
    errors are those of `Repository`. A call that is cancelled goes on in its thread until it is done, and
    is complete or void like any other.
    """

    def __init__(self, config: StorageConfig) -> None:
        self._config = config
        self._repository: Repository | None = None
        self._lock = threading.Lock()

    @property
    def config(self) -> StorageConfig:
        return self._config

    def repository(self, *, create: Literal["at push", False] = False) -> Repository:
        """The repository in the bucket; `create` as in `Repository.open`."""
        return self._open(create=create)

    async def upload_model(
        self,
        model_path: str | os.PathLike[str],
        model_name: str,
        version: str,
        *,
        parent: tuple[str, str] | str | None = "auto",
        base_path: str | os.PathLike[str] | None = None,
        message: str = "",
        metadata: Mapping[str, str] | None = None,
        progress: ProgressCallback | None = None,
    ) -> PushReport:
        """Publishes a safetensors file or a Hugging Face directory as a version."""

        def upload() -> PushReport:
            lineage = parent if self._config.enable_versioning else None
            return self._open(create="at push").push(
                model_path,
                model_name,
                version,
                parent=lineage,
                base_path=base_path,
                message=message,
                metadata=metadata,
                progress=progress,
            )

        return await asyncio.to_thread(upload)

    async def plan_upload(
        self,
        model_path: str | os.PathLike[str],
        model_name: str,
        version: str,
        *,
        parent: tuple[str, str] | str | None = "auto",
        base_path: str | os.PathLike[str] | None = None,
        progress: ProgressCallback | None = None,
    ) -> Forecast:
        """What `upload_model` would do, at which cost, and why; nothing is written."""

        def plan() -> Forecast:
            lineage = parent if self._config.enable_versioning else None
            return self._open(create="at push").plan_push(
                model_path, model_name, version, parent=lineage, base_path=base_path, progress=progress
            )

        return await asyncio.to_thread(plan)

    async def download_model(
        self,
        model_name: str,
        version: str | None,
        dest: str | os.PathLike[str],
        *,
        have: Sequence[str | os.PathLike[str]] = (),
        progress: ProgressCallback | None = None,
    ) -> PullReport:
        """Makes `dest` a directory with the files of a version (None: the latest)."""
        return await asyncio.to_thread(
            lambda: self._open().pull(model_name, version, dest, have=have, progress=progress)
        )

    async def list_models(self) -> list[str]:
        """Names of all models."""
        return await asyncio.to_thread(lambda: list(self._open().models()))

    async def list_versions(self, model_name: str) -> list[LogRow]:
        """The versions of a model, in the order of semantic versioning."""
        return await asyncio.to_thread(lambda: self._open().log(model_name))

    async def diff(self, model_name: str, old: str, new: str) -> list[DiffRow]:
        """What changed between two versions, tensor by tensor."""
        return await asyncio.to_thread(lambda: self._open().diff(model_name, old, new))

    async def verify(
        self, model_name: str | None = None, version: str | None = None, *, deep: bool = True
    ) -> VerifyReport:
        """Checks a version, a model or everything."""
        return await asyncio.to_thread(lambda: self._open().verify(model_name, version, deep=deep))

    async def collect_garbage(
        self, options: CollectionOptions | None = None, *, progress: ProgressCallback | None = None
    ) -> GarbageReport:
        """Tells which versions and objects would go; with `delete=True` in the options lets them go."""
        return await asyncio.to_thread(lambda: self._open().collect_garbage(options, progress=progress))

    def _open(self, *, create: Literal["at push", False] = False) -> Repository:
        with self._lock:
            if self._repository is None:
                self._repository = Repository.from_config(self._config, create=create)
            return self._repository
