"""The asynchronous face of sharding: the same functions, each on a thread of its own."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from textnlp_fast.contents.windows import ProgressCallback
from textnlp_fast.errors import InvalidInputError
from textnlp_fast.objectstore import ObjectStore
from textnlp_fast.storage.config import StorageConfig
from textnlp_fast.storage.repository import Repository
from textnlp_fast.storage.sharding.planning import Strategy
from textnlp_fast.storage.sharding.sharding import (
    DEFAULT_MAX_SHARD_BYTES,
    ShardManifest,
    merge_shards,
    shard_model,
)
from textnlp_fast.storage.unified_storage import UnifiedModelStorage

__all__ = ["AdaptiveShardManager"]

Place = str | os.PathLike[str]
ShardBackend = UnifiedModelStorage | Repository | ObjectStore | StorageConfig | Place
"""What versions are read from: anything that leads to a repository, or its URL."""


class ShardConfig(Protocol):
    """A `StorageConfig`, or the settings of `textnlp_fast.config`."""

    @property
    def max_shard_size_gb(self) -> float: ...

    @property
    def threads(self) -> int: ...


class AdaptiveShardManager:
    """Shards models on this machine, or versions of a repository.

    `storage_backend` says where versions are, if any are meant. `config` says how large files may be and how many
    threads to use. Errors are those of `shard_model`. A call that is cancelled goes on in its thread until it is done,
    and is complete or void like any other.
    """

    def __init__(
        self, storage_backend: ShardBackend | None = None, config: ShardConfig | None = None
    ) -> None:
        if storage_backend is not None and not isinstance(
            storage_backend,
            (UnifiedModelStorage, Repository, ObjectStore, StorageConfig, str, os.PathLike),
        ):
            raise InvalidInputError(
                f"storage_backend is a {type(storage_backend).__name__}",
                hint="Pass a UnifiedModelStorage, a Repository, a StorageConfig, a URL, or nothing.",
            )
        if config is None and isinstance(storage_backend, UnifiedModelStorage):
            config = storage_backend.config
        if config is None and isinstance(storage_backend, StorageConfig):
            config = storage_backend
        if config is not None and not hasattr(config, "max_shard_size_gb"):
            raise InvalidInputError(f"config is a {type(config).__name__}", hint="Pass a StorageConfig.")
        self._backend = storage_backend
        self._max_shard_size_gb = (
            config.max_shard_size_gb if config is not None else DEFAULT_MAX_SHARD_BYTES / 10**9
        )
        self._threads = config.threads if config is not None else 0

    async def shard_model_adaptive(
        self,
        model_path: Place,
        output_dir: Place,
        model_id: str | None = None,
        strategy: Strategy = "adaptive",
        *,
        max_shard_size_gb: float | None = None,
        ranks: int | None = None,
        hosts: int | None = None,
        keep_whole: Sequence[str] = (),
        progress: ProgressCallback | None = None,
    ) -> ShardManifest:
        """Makes `output_dir` a directory of shards; see `shard_model`.

        Where nothing is at `model_path`, it is the NAME or NAME@VERSION of a model in the backend.
        """
        size_gb = self._max_shard_size_gb if max_shard_size_gb is None else max_shard_size_gb
        return await asyncio.to_thread(
            lambda: shard_model(
                model_path,
                output_dir,
                strategy=strategy,
                model_id=model_id,
                max_shard_bytes=int(size_gb * 10**9),
                ranks=ranks,
                hosts=hosts,
                keep_whole=tuple(keep_whole),
                repository=self._repository_for(model_path),
                threads=self._threads,
                progress=progress,
            )
        )

    async def merge_shards(
        self,
        model_path: Place,
        output_dir: Place,
        model_id: str | None = None,
        *,
        progress: ProgressCallback | None = None,
    ) -> ShardManifest:
        """Makes `output_dir` the model again that was sharded; see `merge_shards`."""
        return await asyncio.to_thread(
            lambda: merge_shards(
                model_path,
                output_dir,
                model_id=model_id,
                repository=self._repository_for(model_path),
                threads=self._threads,
                progress=progress,
            )
        )

    def _repository_for(self, model_path: Place) -> Repository | None:
        backend = self._backend
        if backend is None or Path(model_path).exists():
            return None
        if isinstance(backend, Repository):
            return backend
        if isinstance(backend, UnifiedModelStorage):
            return backend.repository()
        if isinstance(backend, StorageConfig):
            return Repository.from_config(backend)
        return Repository(backend) if isinstance(backend, ObjectStore) else Repository.open(backend)
