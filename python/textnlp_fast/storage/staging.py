"""Where a pull builds its files, and how they get their names."""

from __future__ import annotations

import errno
from pathlib import Path

from textnlp_fast.contents.placing import move_into, remove_from
from textnlp_fast.contents.staging import sync_folder
from textnlp_fast.storage.manifest import Manifest
from textnlp_fast.storage.pull_record import PullRecord, regular_status, write_record

__all__ = ["publish"]

_NOT_EMPTY = {errno.ENOTEMPTY, errno.EEXIST}


def publish(staging: Path, final: Path, manifest: Manifest, record: PullRecord, location: str) -> None:
    """Gives the staged files their names and removes what an earlier pull wrote and this version lacks."""
    for folder in [staging, *(path for path in staging.rglob("*") if path.is_dir())]:
        sync_folder(folder)
    if not final.exists():
        write_record(staging, manifest, location)
        try:
            staging.rename(final)
        except OSError as error:
            if error.errno not in _NOT_EMPTY:
                raise
        else:
            sync_folder(final.parent)
            return
    for entry in manifest.files:
        staged = staging / entry.path
        if staged.exists():  # the others are in place already
            move_into(staged, final, entry.path)
    wanted = {entry.path for entry in manifest.files}
    for path, recorded in record.files.items():
        status = regular_status(final / path)
        if path not in wanted and status is not None and recorded.matches(status):
            remove_from(final, path)
    write_record(final, manifest, location)
    sync_folder(final)
