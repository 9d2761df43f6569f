"""What an interrupted pull has made already: windows of contents in its staging folder.

A journal in the folder above the files, of lines as in :mod:`textnlp_fast.contents.journal_lines`, says which windows
were written; it is bound to the files of one version. A window that it claims is read from the staged file and not from
the repository. Nothing more is believed: the content it is part of is checked against its digest like any other, and
one that comes out wrong is made anew. After a power cut all claims are void.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from textnlp_fast.contents.documents import canonical
from textnlp_fast.contents.journal_lines import append_line, boot_id, read_lines
from textnlp_fast.contents.placing import open_own
from textnlp_fast.contents.windows import OpenFiles
from textnlp_fast.errors import InvalidInputError
from textnlp_fast.hashing import blake3_hex
from textnlp_fast.storage.manifest import Manifest
from textnlp_fast.storage.planning import PullPlan, PullStep

__all__ = ["PullProgress"]

JOURNAL_NAME: Final = "progress"


class PullProgress:
    """The journal of a staging folder, whose `root` holds `files` beside it."""

    def __init__(self, root: Path, manifest: Manifest) -> None:
        self._files = root / "files"
        self._bound_to = _binding(manifest)
        path = root / JOURNAL_NAME
        self._descriptor = open_own(path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
        self._claims: dict[str, set[int]] = {}
        self._places: dict[str, tuple[str, int]] = {}
        self._open = OpenFiles()
        try:
            if not self._read():
                self._claims.clear()
                os.ftruncate(self._descriptor, 0)
                append_line(self._descriptor, {"format": 1, "boot": boot_id(), "files": self._bound_to})
        except BaseException:
            os.close(self._descriptor)
            raise

    @classmethod
    def is_of(cls, root: Path, manifest: Manifest) -> bool:
        """Whether what lies in a staging folder is an interrupted pull of this version, to be gone on with."""
        if not (root / JOURNAL_NAME).exists():
            return False
        progress = cls(root, manifest)
        try:
            return bool(progress._claims)
        finally:
            progress.close()

    def close(self) -> None:
        self._open.__exit__()
        os.close(self._descriptor)

    def go_on(self, plan: PullPlan) -> None:
        """Looks which of the plan's contents are there, at least in part, and removes files that it does not write."""
        wanted = {self._files / entry.path: entry.size for entry in plan.files}
        whole: set[Path] = set()
        for path in self._files.rglob("*"):
            if path.is_symlink() or not path.is_dir():
                if wanted.get(path) == path.lstat().st_size and not path.is_symlink():
                    whole.add(path)
                else:
                    path.unlink()
        for step in plan.steps:
            number, offset = step.targets[0]
            path = self._files / plan.files[number].path
            if step.content.digest in self._claims and path in whole:
                self._places[step.content.digest] = (str(path), offset)

    def staged_bytes(self) -> int:
        """Bytes on the disk that the staged files have."""
        return sum(path.stat().st_blocks * 512 for path in self._files.rglob("*") if path.is_file())

    def has_some(self, digest: str) -> bool:
        """Whether windows of a content are there."""
        return digest in self._places

    def has(self, step: PullStep, window: int) -> bool:
        """Whether a window of a step's content is there."""
        return step.content.digest in self._places and window in self._claims[step.content.digest]

    def read(self, step: PullStep, offset: int, out: memoryview) -> bool:
        """Fills `out` with what is there from a content's offset on; whether that worked."""
        location, place = self._places[step.content.digest]
        try:
            self._open.read(location, out, place + offset)
        except (OSError, InvalidInputError):
            return False
        return True

    def made(self, windows: Iterable[tuple[str, int]]) -> None:
        """Notes windows, by their contents' digests and their numbers, that are in every place where they belong."""
        rows = [[digest, window] for digest, window in windows]
        if rows:
            append_line(self._descriptor, {"made": rows})

    def _read(self) -> bool:
        """Takes in the journal; whether it is one of this version, and of this boot of the machine."""
        header: Mapping[str, Any] | None = None
        try:
            for line, _ in read_lines(self._descriptor):
                if header is None:
                    header = line
                    boot = boot_id()
                    if (line["format"], line["files"], line["boot"]) != (1, self._bound_to, boot) or not boot:
                        return False
                else:
                    for digest, window in line["made"]:
                        self._claims.setdefault(str(digest), set()).add(int(window))
        except (KeyError, TypeError, ValueError):
            return False
        return header is not None


def _binding(manifest: Manifest) -> str:
    """A digest of what a pull of the version writes, and how it is cut."""
    files = [[entry.path, entry.size, list(entry.parts)] for entry in manifest.files]
    return blake3_hex(canonical({"files": files, "window_bytes": manifest.window_bytes}))
