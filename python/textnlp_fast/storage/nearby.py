"""Where a repository's objects are read from: the store, or what is nearer, if settings name any."""

from __future__ import annotations

import os
from typing import Final

from textnlp_fast.objectstore import ObjectStore

__all__ = ["nearby"]

# Without one of these nothing is set, and looking at all settings takes a while.
_REASONS: Final = (
    "TEXTNLP_FAST_PEERS",
    "TEXTNLP_FAST_PEER_CACHE",
    "TEXTNLP_FAST_CONFIG",
    "TEXTNLP_FAST_ENV_FILE",
)


def nearby(store: ObjectStore) -> ObjectStore:
    """The store, read through nodes and a cache of pieces where settings name any."""
    if not any(os.environ.get(name) for name in _REASONS):
        return store
    from textnlp_fast.objectstore.peers import with_peers_of_settings  # noqa: PLC0415  most read from the store alone

    return with_peers_of_settings(store)
