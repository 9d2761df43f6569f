"""From settings to stores that ask nodes first."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

from textnlp_fast.config import load_settings
from textnlp_fast.errors import InvalidInputError
from textnlp_fast.objectstore.backend import Backend
from textnlp_fast.objectstore.peers.members import Members
from textnlp_fast.objectstore.peers.peer_backend import PeerBackend
from textnlp_fast.objectstore.peers.piece_cache import PieceCache
from textnlp_fast.objectstore.peers.swarm import Swarm
from textnlp_fast.objectstore.peers.value_lists import Patience
from textnlp_fast.objectstore.store import ObjectStore

__all__ = ["with_peers", "with_peers_of_settings"]

_lock = threading.Lock()
_caches: dict[tuple[Path, int], PieceCache] = {}


def with_peers(
    store: ObjectStore,
    peers: Sequence[str],
    *,
    cache: PieceCache | None = None,
    token: str | None = None,
    patience: Patience | None = None,
) -> ObjectStore:
    """The same store, whose immutable objects are read from `cache`, then from the nodes `peers`, then from itself.

    Raises InvalidInputError for addresses that are none.
    """
    members = Members(peers)

    def wrap(backend: Backend) -> Backend:
        swarm = Swarm(backend, members, cache=cache, token=token, patience=patience)
        return PeerBackend(backend, swarm)

    return store.over(wrap)


def with_peers_of_settings(store: ObjectStore) -> ObjectStore:
    """The same store, as the settings have it: `peers`, `peer_cache`, `peer_cache_gib`, `peer_token`."""
    settings = load_settings()
    if not settings.peers and settings.peer_cache is None:
        return store
    cache = None
    if settings.peer_cache is not None:
        limit = round(settings.peer_cache_gib * (1 << 30))
        with _lock:
            key = (settings.peer_cache, limit)
            cache = _caches.setdefault(key, PieceCache(settings.peer_cache, limit_bytes=limit))
    token = settings.peer_token.get_secret_value() if settings.peer_token is not None else None
    if token is not None and not (token.isascii() and token.isprintable() and token.strip() == token):
        raise InvalidInputError("the token of the nodes has characters that no header may have")
    return with_peers(store, (settings.peers or "").split(","), cache=cache, token=token)
