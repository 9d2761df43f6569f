"""Buckets and folders behind one contract: immutable objects, create-only objects, compare-and-swap."""

from textnlp_fast.objectstore.backend import ObjectMeta, Version
from textnlp_fast.objectstore.encryption import ServerSideEncryption
from textnlp_fast.objectstore.open import local_folder, open_store
from textnlp_fast.objectstore.store import ObjectStore

__all__ = ["ObjectMeta", "ObjectStore", "ServerSideEncryption", "Version", "local_folder", "open_store"]
