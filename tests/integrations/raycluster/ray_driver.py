"""Pushes a directory across a cluster, in a process of its own that a test kills."""

from __future__ import annotations

import sys

import ray

from textnlp_fast.integrations.ray_shards import push
from textnlp_fast.storage import TransferOptions

ADDRESS, SOURCE, REPOSITORY, URL = sys.argv[1:]

ray.init(address=ADDRESS, logging_level="warning", log_to_driver=False, _node_ip_address="127.0.0.2")
push(
    URL, SOURCE, repository=REPOSITORY, part_bytes=1, options=TransferOptions(shard_bytes=1 << 16, threads=1)
)
