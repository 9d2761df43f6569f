"""Models that lie across the nodes of a Ray cluster: pushed, verified and restored by a task a part.

    from textnlp_fast.integrations.ray_shards import push, restore, verify

    push("textnlp://org/model@1.2.0", "/shared/checkpoint", repository="s3://bucket/models")
    verify("textnlp://org/model@1.2.0", repository="s3://bucket/models")
    restore("textnlp://org/model@1.2.0", "/shared/serving", repository="s3://bucket/models")

Bytes go between each node's files and the bucket. The driver, which `ray.init` connected, deals out parts, hears what
became of them, and writes the one manifest that publishes a version, or renames the one directory that a restore
made. A task that dies with its worker or its node is run again by Ray, elsewhere if need be; what it had uploaded is
named by its bytes and is found. A driver that dies leaves no version and no directory.
"""

from textnlp_fast.integrations.ray_shards.pushing import push
from textnlp_fast.integrations.ray_shards.restoring import RestoreReport, restore
from textnlp_fast.integrations.ray_shards.running import Cluster, TaskLostError
from textnlp_fast.integrations.ray_shards.verifying import VerifyReport, verify

__all__ = ["Cluster", "RestoreReport", "TaskLostError", "VerifyReport", "push", "restore", "verify"]
