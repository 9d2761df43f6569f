"""A version manager for a process that lives long: it keeps the manifests used last, not all of them."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Final

from textnlp_fast.errors import MissingObjectError
from textnlp_fast.objectstore import ObjectStore
from textnlp_fast.storage.manifest import Manifest
from textnlp_fast.storage.version_manager import VersionManager
from textnlp_fast.telemetry import count

__all__ = ["BoundedVersionManager"]

# Of a manifest as Python has it, for each content and extent: measured, rounded up.
_CONTENT_BYTES: Final = 1200
_EXTENT_BYTES: Final = 240


class BoundedVersionManager(VersionManager):
    """Keeps manifests of about `most_bytes` together. Thread-safe."""

    def __init__(self, store: ObjectStore, most_bytes: int) -> None:
        super().__init__(store)
        self._most_bytes = most_bytes
        self._used: OrderedDict[tuple[str, str], tuple[Manifest, int]] = OrderedDict()
        self._used_bytes = 0
        self._used_lock = threading.Lock()

    @property
    def kept_bytes(self) -> int:
        """What the manifests that are kept take, about."""
        return self._used_bytes

    def find(self, name: str, version: str) -> Manifest | None:
        with self._used_lock:
            kept = self._used.get((name, version))
            if kept is not None:
                self._used.move_to_end((name, version))
        if kept is not None:
            count(cache_hits=1)
            return kept[0]
        try:
            manifest = self._read(name, version)
        except MissingObjectError:
            return None
        size_bytes = _size_of(manifest)
        if size_bytes <= self._most_bytes // 2:
            with self._used_lock:
                self._drop(name, version)
                self._used[name, version] = (manifest, size_bytes)
                self._used_bytes += size_bytes
                while self._used_bytes > self._most_bytes:
                    self._drop(*next(iter(self._used)))
        return manifest

    def forget(self, name: str, version: str) -> None:
        with self._used_lock:
            self._drop(name, version)
        super().forget(name, version)

    def _drop(self, name: str, version: str) -> None:
        gone = self._used.pop((name, version), None)
        if gone is not None:
            self._used_bytes -= gone[1]


def _size_of(manifest: Manifest) -> int:
    extents = sum(len(content.extents) for content in manifest.contents.values())
    return len(manifest.contents) * _CONTENT_BYTES + extents * _EXTENT_BYTES
