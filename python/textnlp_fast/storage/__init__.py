"""The repository of models: moves and names their versions. `docs/format.md` states what it stores."""

from textnlp_fast.contents.windows import Progress
from textnlp_fast.storage.anchor_costs import Prices, Readers
from textnlp_fast.storage.chunked_transfer import ChunkedTransferManager
from textnlp_fast.storage.compare import DiffRow
from textnlp_fast.storage.config import StorageConfig, TransferOptions
from textnlp_fast.storage.delta_manager import DeltaUpdateManager
from textnlp_fast.storage.explain import Explanation
from textnlp_fast.storage.explain_files import explain_files
from textnlp_fast.storage.features import FeatureUse, Forecast
from textnlp_fast.storage.garbage.collecting import CollectionOptions, GarbageReport
from textnlp_fast.storage.garbage.retention import RetentionRules
from textnlp_fast.storage.pull import PullReport
from textnlp_fast.storage.push import PushReport
from textnlp_fast.storage.registry.lineage import Lineage
from textnlp_fast.storage.registry.model_registry import ModelRegistry
from textnlp_fast.storage.registry.publishing import PublishedModel
from textnlp_fast.storage.registry.registry import Registry
from textnlp_fast.storage.repository import LogRow, Repository
from textnlp_fast.storage.sharding import AdaptiveShardManager, ShardManifest, merge_shards, shard_model
from textnlp_fast.storage.unified_storage import UnifiedModelStorage
from textnlp_fast.storage.verify import Problem, VerifyReport
from textnlp_fast.storage.version_manager import VersionManager

__all__ = [
    "AdaptiveShardManager",
    "ChunkedTransferManager",
    "CollectionOptions",
    "DeltaUpdateManager",
    "DiffRow",
    "Explanation",
    "FeatureUse",
    "Forecast",
    "GarbageReport",
    "Lineage",
    "LogRow",
    "ModelRegistry",
    "Prices",
    "Problem",
    "Progress",
    "PublishedModel",
    "PullReport",
    "PushReport",
    "Readers",
    "Registry",
    "Repository",
    "RetentionRules",
    "ShardManifest",
    "StorageConfig",
    "TransferOptions",
    "UnifiedModelStorage",
    "VerifyReport",
    "VersionManager",
    "explain_files",
    "merge_shards",
    "shard_model",
]
