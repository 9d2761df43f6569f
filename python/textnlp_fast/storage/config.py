"""What a caller may choose: where the repository is, and how much memory and how many threads to use."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from textnlp_fast.contents.working import MOST_MEMORY_BYTES, check_threads, thread_count
from textnlp_fast.errors import InvalidInputError
from textnlp_fast.objectstore import ServerSideEncryption
from textnlp_fast.storage.anchor_costs import Prices, Readers

if TYPE_CHECKING:
    from textnlp_fast.config import Settings

__all__ = [
    "DEFAULT_PRICES",
    "DEFAULT_READERS",
    "DEFAULT_SHARD_BYTES",
    "DEFAULT_WINDOW_BYTES",
    "Provider",
    "StorageConfig",
    "TransferOptions",
]

Provider = Literal["local", "memory", "aws", "gcp", "azure"]

DEFAULT_WINDOW_BYTES: Final = 16 << 20
DEFAULT_SHARD_BYTES: Final = 64 << 20
# A bucket at list price, kept for a quarter, read in its own region by machines that cost 18 USD an hour waiting.
DEFAULT_PRICES: Final = Prices(
    usd_per_stored_gb_month=0.023,
    retention_months=3,
    usd_per_moved_gb=0,
    usd_per_restore_s=0.005,
    bandwidth_gb_per_s=1.25,
    decode_gb_per_s=4,
)
# Half of them hold the version before.
DEFAULT_READERS: Final = Readers(reads_per_version=8, behind=(0.5,))
_FOR_WINDOWS_BYTES: Final = 48 << 20
_SCHEMES: Final = {"memory": "memory", "aws": "s3", "gcp": "gs", "azure": "az"}


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferOptions:
    """How versions are coded and moved. The bytes a push produces do not depend on memory or threads."""

    shard_bytes: int = DEFAULT_SHARD_BYTES
    """Largest object that packs several tensors; a single coded window may pass it."""
    sharding: bool = True
    """Pack tensors together into shards; False gives every coded window its own object."""
    delta: bool = True
    """Code tensors against the parent version; False stores every new tensor by itself."""
    compression: bool = True
    """False stores new contents as they are."""
    max_chain_depth: int = 8
    """Bases that may have to be decoded before a tensor; then it is coded against the first of them.

    A hard limit: prices may let chains end earlier.
    """
    prices: Prices | None = DEFAULT_PRICES
    """What decides whether a version is coded against its parent, an older version, or stored whole, where the caller
    names no parent; None: always against its parent, up to `max_chain_depth`."""
    readers: Readers = DEFAULT_READERS
    """Who reads the versions, for the same decision."""
    memory_budget_bytes: int = 384 << 20
    """Buffers a push or pull holds at a time, whatever the model's size."""
    threads: int = 0
    """Threads that hash, code and decode; 0 takes every processor this process may use."""

    @classmethod
    def from_settings(cls, settings: Settings, **chosen: Any) -> TransferOptions:
        """What settings say, but for what is `chosen` by the names above."""
        said = {
            "sharding": settings.enable_sharding,
            "delta": settings.enable_versioning,
            "compression": settings.enable_compression,
            "memory_budget_bytes": settings.memory_budget_bytes,
            "threads": settings.threads,
        }
        return cls(**{**said, **chosen})

    def __post_init__(self) -> None:
        if not 1 <= self.max_chain_depth <= 32:
            raise InvalidInputError(f"max_chain_depth is {self.max_chain_depth}; it may be 1 to 32")
        if self.shard_bytes < 1 << 16:
            raise InvalidInputError(
                f"shard_bytes is {self.shard_bytes}; shards have at least {1 << 16} bytes"
            )
        least = 2 * self.shard_bytes + _FOR_WINDOWS_BYTES
        if self.memory_budget_bytes < least:
            raise InvalidInputError(
                f"memory_budget_bytes is {self.memory_budget_bytes}; two shards and a window take {least}",
                hint="Raise it, or lower shard_bytes.",
            )
        if self.memory_budget_bytes > MOST_MEMORY_BYTES:
            raise InvalidInputError(
                f"memory_budget_bytes is {self.memory_budget_bytes}; it may be up to {MOST_MEMORY_BYTES}"
            )
        check_threads(self.threads)

    @property
    def thread_count(self) -> int:
        """Threads to use, at least one."""
        return thread_count(self.threads)


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageConfig:
    """Names a bucket of a provider and says how to use it.

    For `local` the bucket is a folder below `root` (the working directory if None). Credentials are never
    part of it: they come from the environment or the provider's own tools.
    """

    provider: Provider = "local"
    bucket_name: str
    prefix: str = ""
    region: str | None = None
    endpoint_url: str | None = None
    allow_http: bool = False
    """Plain HTTP to another machine's `endpoint_url`; to this machine it is always allowed."""
    encryption: ServerSideEncryption | None = None
    """What the provider shall encrypt with; None leaves it to the bucket's default."""
    root: str | os.PathLike[str] | None = None
    enable_sharding: bool = True
    enable_versioning: bool = True
    """Code each version against its parent and record the lineage; False stores every version by itself."""
    enable_compression: bool = True
    shard_bytes: int = DEFAULT_SHARD_BYTES
    max_chain_depth: int = 8
    prices: Prices | None = DEFAULT_PRICES
    """What storing, moving and waiting cost; see `TransferOptions`."""
    readers: Readers = DEFAULT_READERS
    max_shard_size_gb: float = 2.0
    """Largest file that `AdaptiveShardManager` makes of a model, in units of 10^9 bytes."""
    memory_budget_bytes: int = 384 << 20
    threads: int = 0

    def __post_init__(self) -> None:
        if not self.max_shard_size_gb > 0:
            raise InvalidInputError(f"max_shard_size_gb is {self.max_shard_size_gb}; it is more than 0")
        if self.provider not in ("local", "memory", "aws", "gcp", "azure"):
            raise InvalidInputError(
                f"unknown provider {self.provider!r}", hint="Use one of local, memory, aws, gcp, azure."
            )
        if not self.bucket_name or "/" in self.bucket_name or self.bucket_name in (".", ".."):
            raise InvalidInputError(f"bucket_name {self.bucket_name!r} is not the name of a bucket or folder")
        if any(part in ("", ".", "..") for part in self.prefix.split("/")) and self.prefix:
            raise InvalidInputError(f"prefix {self.prefix!r} is not a path below the bucket")

    @classmethod
    def from_settings(cls, settings: Settings | None = None) -> StorageConfig:
        """What settings say (None: those of the environment). Raises InvalidInputError if they name no bucket."""
        if settings is None:
            from textnlp_fast.config import load_settings  # noqa: PLC0415 - takes a while to load

            settings = load_settings()
        bucket = settings.model_storage_bucket
        if not bucket:
            raise InvalidInputError(
                "the settings name no bucket", hint="Set MODEL_STORAGE_BUCKET, and TEXTNLP_FAST_PROVIDER."
            )
        return cls(
            provider=settings.bucket_provider,
            bucket_name=bucket,
            max_shard_size_gb=settings.max_shard_size_gb,
            prefix=settings.prefix,
            region=settings.aws_region if settings.bucket_provider == "aws" else None,
            endpoint_url=settings.endpoint_url,
            root=settings.root,
            enable_sharding=settings.enable_sharding,
            enable_versioning=settings.enable_versioning,
            enable_compression=settings.enable_compression,
            memory_budget_bytes=settings.memory_budget_bytes,
            threads=settings.threads,
        )

    @property
    def url(self) -> str:
        """The repository's URL, as `textnlp_fast.push` and the command line take it."""
        path = f"{self.bucket_name}/{self.prefix}" if self.prefix else self.bucket_name
        if self.provider == "local":
            return str(Path(self.root if self.root is not None else ".").absolute() / path)
        return f"{_SCHEMES[self.provider]}://{path}"

    @property
    def transfer(self) -> TransferOptions:
        """The part that says how versions are coded and moved."""
        return TransferOptions(
            shard_bytes=self.shard_bytes,
            sharding=self.enable_sharding,
            delta=self.enable_versioning,
            compression=self.enable_compression,
            max_chain_depth=self.max_chain_depth,
            prices=self.prices,
            readers=self.readers,
            memory_budget_bytes=self.memory_budget_bytes,
            threads=self.threads,
        )
