"""What runs on the nodes: plain functions of plain data, each of which may run again, elsewhere, at any time."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from socket import gethostname

from textnlp_fast.contents.staging import disk_errors
from textnlp_fast.contents.windows import write_exactly
from textnlp_fast.errors import InvalidInputError
from textnlp_fast.storage.config import TransferOptions
from textnlp_fast.storage.joint_push import CodedPart, PartTask, code_part
from textnlp_fast.storage.planning import PullStep
from textnlp_fast.storage.repository import Repository
from textnlp_fast.storage.stored_files import StoredFiles
from textnlp_fast.storage.version_manager import VersionManager

__all__ = ["Stretch", "Version", "check_stretches", "code_files", "fill_stretches", "make_files"]


@dataclass(frozen=True, slots=True)
class Version:
    """A version that a task reads: where it is, and what it is called."""

    repository: str
    name: str
    version: str
    options: TransferOptions

    def open(self) -> StoredFiles:
        """It, opened; what has to be signed has been asked for by the driver, which named the exact version."""
        return Repository.open(self.repository, options=self.options).files(self.name, self.version)


@dataclass(frozen=True, slots=True)
class Stretch:
    """Contents [first, last) of a file, which begin at byte `offset` of it and have `size` bytes."""

    path: str
    first: int
    last: int
    offset: int
    size: int


def code_files(repository: str, task: PartTask, files: Mapping[str, str]) -> CodedPart:
    """Codes and uploads files of this node, by their path in the version."""
    for location in files.values():
        if not Path(location).exists():
            raise InvalidInputError(
                f"{gethostname()} has no {location}",
                hint="Push from a directory that all nodes see, or say on which node each file is (nodes=).",
            )
    opened = Repository.open(repository, options=task.options)
    return code_part(opened.store, VersionManager(opened.store), task, files)


def check_stretches(version: Version, stretches: tuple[Stretch, ...]) -> list[tuple[str, str]]:
    """Decodes contents, compares each with its digest, and tells which are wrong: what it is, and why."""
    files = version.open()
    digests = dict.fromkeys(
        digest for each in stretches for digest in files.entry(each.path).parts[each.first : each.last]
    )
    return files.damaged(digests)


def fill_stretches(version: Version, staging: str, stretches: tuple[Stretch, ...]) -> int:
    """Decodes contents into their places in files that are there, verified and on the disk; the bytes written."""
    files = version.open()
    for each in stretches:
        place = Path(staging, each.path)
        try:
            descriptor = os.open(place, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            raise InvalidInputError(
                f"{gethostname()} does not see {staging}",
                hint="Restore into a directory that all nodes see, or say which files go to which node (nodes=).",
            ) from None
        with disk_errors(place):
            try:
                _fill(files, each, descriptor)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
    return sum(each.size for each in stretches)


def _fill(files: StoredFiles, stretch: Stretch, descriptor: int) -> None:
    places: dict[str, list[int]] = {}
    offset = stretch.offset
    for digest in files.entry(stretch.path).parts[stretch.first : stretch.last]:
        places.setdefault(digest, []).append(offset)
        offset += files.manifest.contents[digest].size

    def sink(step: PullStep, at: int, data: memoryview) -> None:
        for begin in places[step.content.digest]:
            write_exactly(descriptor, data, begin + at)

    files.make(places, sink)


def make_files(version: Version, folder: str, paths: tuple[str, ...]) -> int:
    """Writes whole files of a version below a folder of this node, each under its name when it is whole; the bytes."""
    files = version.open()
    root = Path(folder)
    for path in paths:
        place = root / path
        with disk_errors(place):
            place.parent.mkdir(parents=True, exist_ok=True)
            if not place.parent.resolve().is_relative_to(root.resolve()):
                raise InvalidInputError(f"{place.parent} leads out of {root}", hint="Remove that link.")
            files.write(path, place)
    return sum(files.entry(path).size for path in paths)
