"""Nodes that keep pieces of objects and give them to each other, so that a bucket is read once for all of them."""

from textnlp_fast.objectstore.peers.enabling import with_peers, with_peers_of_settings
from textnlp_fast.objectstore.peers.members import Members
from textnlp_fast.objectstore.peers.piece_cache import PieceCache
from textnlp_fast.objectstore.peers.server import NodeServer
from textnlp_fast.objectstore.peers.swarm import Swarm

__all__ = ["Members", "NodeServer", "PieceCache", "Swarm", "with_peers", "with_peers_of_settings"]
