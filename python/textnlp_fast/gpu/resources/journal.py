"""The journal: a record of every launch, written before the launch is asked for.

In a folder of this machine, or in a bucket that several machines share. Each record is an object of its own, created
once and changed by compare-and-swap; what a write has answered for is on the disk.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from textnlp_fast.errors import (
    ConflictError,
    CorruptDataError,
    InvalidInputError,
    MissingObjectError,
    ObjectExistsError,
)
from textnlp_fast.gpu.resources.records import LaunchRecord, parse_record, record_document
from textnlp_fast.objectstore import ObjectStore, Version, open_store

__all__ = ["Journal", "default_state"]

_LIMIT_BYTES: Final = 4 << 20
_TRIES: Final = 20


def default_state() -> Path:
    """The folder of this user's fleet."""
    state = os.environ.get("XDG_STATE_HOME") or str(Path("~/.local/state").expanduser())
    return Path(state) / "textnlp-fast" / "fleet"


class Journal:
    """Thread-safe, and safe with other processes. Records that have not changed are not read again."""

    def __init__(self, store: ObjectStore) -> None:
        self.store = store
        self._known: dict[str, tuple[tuple[str, int], LaunchRecord]] = {}
        self._lock = threading.Lock()

    @classmethod
    def open(cls, state: str | os.PathLike[str] | None = None) -> Journal:
        """The journal at a folder or URL; None: :func:`default_state`. Raises InvalidInputError for a file."""
        folder = Path() if state is None or "://" in os.fspath(state) else Path(state)
        if folder.exists() and not folder.is_dir():
            raise InvalidInputError(
                f"the fleet's journal {folder} is no folder",
                hint="Set TEXTNLP_FAST_FLEET_STATE to a folder, or to a bucket's URL.",
            )
        return cls(open_store(default_state() if state is None else state))

    def create(self, record: LaunchRecord) -> bool:
        """Writes a new record; False if there is one at its place."""
        try:
            self.store.create(record.key, record_document(record))
        except ObjectExistsError:
            return False
        return True

    def load(self, key: str) -> tuple[LaunchRecord, Version]:
        """The record at a place. Raises MissingObjectError, CorruptDataError."""
        data, version = self.store.get_versioned(key, limit_bytes=_LIMIT_BYTES)
        record = parse_record(data, f"{key} in {self.store.url}")
        if record.key != key:
            raise CorruptDataError(f"{key} in {self.store.url} is the record of {record.launch_id}")
        return record, version

    def update(self, key: str, change: Callable[[LaunchRecord], LaunchRecord]) -> LaunchRecord:
        """Changes a record; `change` is asked again where another writer was first. Returns what is stored."""
        for _ in range(_TRIES):
            record, version = self.load(key)
            changed = change(record)
            if changed == record:
                return record
            try:
                self.store.compare_and_swap(key, record_document(changed), version)
            except ConflictError:
                continue
            return changed
        raise ConflictError(f"{key} in {self.store.url} changes faster than it can be written")

    def records(self, acquisition: str | None = None) -> list[LaunchRecord]:
        """All records, or those of an acquisition, oldest acquisition's name first.

        Raises CorruptDataError for one that cannot be read: a launch that is not counted is money that is not seen.
        """
        found = []
        prefix = "launches" if acquisition is None else f"launches/{acquisition}"
        for meta in self.store.list(prefix):
            if not meta.key.endswith(".json"):
                continue
            mark = (meta.etag, meta.size)
            with self._lock:
                known = self._known.get(meta.key)
            if known is not None and known[0] == mark:
                found.append(known[1])
                continue
            try:
                record, _ = self.load(meta.key)
            except MissingObjectError:
                continue
            with self._lock:
                self._known[meta.key] = (mark, record)
            found.append(record)
        return found
