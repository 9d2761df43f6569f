"""Fills a plan's files from files: a few tensors at a time are checked, copied, and hashed where they were cut.

So the disk is read once: what is copied was read for its check a moment before, and is in the kernel's cache.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from textnlp_fast.errors import InvalidInputError
from textnlp_fast.storage.sharding.checking import Checks, Place, batches, places_by_tensor
from textnlp_fast.storage.sharding.copying import Copier, weaves_and_ranges
from textnlp_fast.storage.sharding.descriptors import Descriptors
from textnlp_fast.storage.sharding.model import ShardPlan, ShardSource
from textnlp_fast.storage.sharding.moves import Move, moves_of_places
from textnlp_fast.storage.sharding.writing import Fill, Filled, check_unchanged

__all__ = ["fill_from_files"]

# Few enough to stay in memory between check and copy, and enough to keep all threads busy.
_BATCH_BYTES: Final = 256 << 20


def fill_from_files(source: ShardSource, plan: ShardPlan, *, threads: int) -> Fill:
    """Fills a plan's files from those of the source, and copies the model's other files.

    Raises CorruptDataError if the source is not what its record says.
    """

    def path_of(number: int) -> Path:
        path = source.files[number].path
        if path is None:
            raise InvalidInputError(f"{source.files[number].name} is no file on this machine")
        return path

    def fill(staging: Path, targets: Descriptors, done: Callable[[int], None]) -> Filled:
        checks = Checks(plan, source, threads=threads)
        with Descriptors(path_of, os.O_RDONLY) as opened:
            copier = Copier(opened, targets, threads=threads, done=done)
            for batch in batches(places_by_tensor(plan), _BATCH_BYTES):
                tensors = {place.placement.tensor.name: place.placement.tensor for place in batch}
                checks.read(tensors.values(), opened)
                copier.run(weaves_and_ranges(_moves(batch)))
                checks.settle(batch, targets)
        for name, path in sorted(source.others.items()):
            if path is not None:
                _copy(path, staging / name)
        check_unchanged(source.files)
        return Filled(copier.windowed_bytes, checks.digests)

    return fill


def _moves(batch: Sequence[Place]) -> list[tuple[int, Move]]:
    """The moves that fill the places, with the number of the file that each goes to, in the order of its bytes."""
    files: dict[int, list[Place]] = {}
    for place in batch:
        files.setdefault(place.number, []).append(place)
    moves: list[tuple[int, Move]] = []
    for number in sorted(files):
        ordered = sorted(files[number], key=lambda place: place.begin)
        moves += [
            (number, move) for move in moves_of_places((each.placement, each.begin) for each in ordered)
        ]
    return moves


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with source.open("rb") as reading, target.open("xb") as writing:
        shutil.copyfileobj(reading, writing)
        writing.flush()
        os.fsync(writing.fileno())
