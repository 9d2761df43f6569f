"""Sharding: one model as many files, by size, layer, expert, stage or rank, and back: `docs/guide/sharding.md`."""

from textnlp_fast.storage.sharding.manager import AdaptiveShardManager
from textnlp_fast.storage.sharding.planning import STRATEGIES, Strategy
from textnlp_fast.storage.sharding.sharding import (
    DEFAULT_MAX_SHARD_BYTES,
    ShardFile,
    ShardManifest,
    merge_shards,
    shard_model,
)

__all__ = [
    "DEFAULT_MAX_SHARD_BYTES",
    "STRATEGIES",
    "AdaptiveShardManager",
    "ShardFile",
    "ShardManifest",
    "Strategy",
    "merge_shards",
    "shard_model",
]
