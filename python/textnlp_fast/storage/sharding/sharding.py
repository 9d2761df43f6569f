"""Shard, reshard and merge: the journeys, each a source, a plan, and its carrying out."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from textnlp_fast.contents.windows import ProgressCallback
from textnlp_fast.contents.working import thread_count
from textnlp_fast.errors import InvalidInputError
from textnlp_fast.storage.repository import Repository
from textnlp_fast.storage.sharding.adaptive import Limits, plan_adaptive
from textnlp_fast.storage.sharding.filling import fill_from_files
from textnlp_fast.storage.sharding.model import ShardPlan, ShardSource
from textnlp_fast.storage.sharding.planning import ShardOptions, Strategy, plan_merge, plan_shards
from textnlp_fast.storage.sharding.replicas import check_replicas
from textnlp_fast.storage.sharding.sources import read_source
from textnlp_fast.storage.sharding.versions import StoredModel
from textnlp_fast.storage.sharding.writing import Fill, write_plan
from textnlp_fast.storage.version_manager import parse_reference
from textnlp_fast.telemetry import operation

__all__ = [
    "DEFAULT_MAX_SHARD_BYTES",
    "ShardFile",
    "ShardManifest",
    "merge_shards",
    "shard_model",
]

DEFAULT_MAX_SHARD_BYTES: Final = 2_000_000_000
# More copies at a time make no disk faster, and each takes two windows.
_MOST_THREADS: Final = 8
Place = str | os.PathLike[str]


@dataclass(frozen=True, slots=True)
class ShardFile:
    """A file of the result: `size` in bytes, and how many `tensors` it holds; who reads it, where somebody does."""

    path: str
    size: int
    tensors: int
    rank: int | None = None
    stage: int | None = None


@dataclass(frozen=True, slots=True)
class ShardManifest:
    """What sharding made. Sizes in bytes; `windowed_bytes` were written by this process, all others by the kernel.

    `parts` are ranks, groups of experts or stages; `reason` says why this strategy; `notes` what else to know.
    """

    model_id: str
    strategy: str
    reason: str
    output_dir: str
    files: tuple[ShardFile, ...]
    parts: int
    tensors: int
    total_bytes: int
    windowed_bytes: int
    seconds: float
    already_there: bool = False
    notes: tuple[str, ...] = ()


def shard_model(
    model: Place,
    output_dir: Place,
    *,
    strategy: Strategy = "adaptive",
    model_id: str | None = None,
    max_shard_bytes: int = DEFAULT_MAX_SHARD_BYTES,
    ranks: int | None = None,
    hosts: int | None = None,
    keep_whole: tuple[str, ...] = (),
    repository: Repository | Place | None = None,
    threads: int = 0,
    progress: ProgressCallback | None = None,
) -> ShardManifest:
    """Makes `output_dir` a directory of shards of `model`.

    `model` is a safetensors file, a Hugging Face directory, one that this function made before (also of ranks), or,
    with `repository`, NAME or NAME@VERSION in it. The result of size_based, layer_based, expert_based and pipeline is
    a Hugging Face directory; that of tensor_parallel has a directory a rank. Files have at most `max_shard_bytes` of
    tensors, but where one tensor has more.

    Bytes that stay as they are are copied by the kernel, and read once for their digests. Nothing is at `output_dir`
    before all of it is. Raises InvalidInputError and its kinds for what cannot be sharded so, CorruptDataError if
    stored bytes or shards are damaged, OutOfSpaceError.
    """
    options = ShardOptions(
        max_shard_bytes=max_shard_bytes, ranks=ranks, hosts=hosts, keep_whole=tuple(keep_whole)
    )
    output = _output(output_dir)
    opened = _Model(model, repository)
    if strategy == "adaptive":
        plan = plan_adaptive(opened.source, options, limits_of(output))
    else:
        plan = plan_shards(opened.source, strategy, options)
    return _carry_out(plan, opened, output, model_id, threads, progress)


def merge_shards(
    model: Place,
    output_dir: Place,
    *,
    model_id: str | None = None,
    repository: Repository | Place | None = None,
    threads: int = 0,
    progress: ProgressCallback | None = None,
) -> ShardManifest:
    """Makes `output_dir` the model that was sharded again: its very files, byte for byte, if `shards.json` knows them.

    What is read is held against the digests in `shards.json`. Raises what `shard_model` raises; nothing is at
    `output_dir` then.
    """
    opened = _Model(model, repository)
    return _carry_out(plan_merge(opened.source), opened, _output(output_dir), model_id, threads, progress)


def limits_of(output: Path) -> Limits:
    """What the file system that `output` will be on allows."""
    place = next((each for each in (output, *output.parents) if each.exists()), Path("/"))
    try:
        bits = os.pathconf(place, "PC_FILESIZEBITS")
    except (OSError, ValueError):
        return Limits()
    # Signed: 33 bits are 4 GiB, which is FAT's limit.
    return Limits((1 << bits - 1) - 1 if 1 < bits < 64 else None)


class _Model:
    """What is sharded: files, or a version."""

    def __init__(self, model: Place, repository: Repository | Place | None) -> None:
        self.is_version = repository is not None
        if repository is None:
            self.source: ShardSource = read_source(model)
            return
        opened = repository if isinstance(repository, Repository) else Repository.open(repository)
        reference = parse_reference(os.fspath(model))
        self._stored = StoredModel(opened, reference.name, reference.version)
        self.source = self._stored.source()

    def fill(self, plan: ShardPlan, threads: int) -> Fill:
        if self.is_version:
            return self._stored.fill(self.source, plan, threads=threads)
        return fill_from_files(self.source, plan, threads=threads)


def _output(output_dir: Place) -> Path:
    if not os.fspath(output_dir):
        raise InvalidInputError("the output directory is empty", hint="Name a directory to make.")
    return Path(output_dir).expanduser().resolve()


def _check_apart(model: Path, output: Path) -> None:
    """Raises InvalidInputError if the result would become a part of what it is made from."""
    if model.is_dir() and output.is_relative_to(model.resolve()):
        raise InvalidInputError(
            f"{output} is within the model at {model}", hint="Name a directory outside the model."
        )


def _carry_out(
    plan: ShardPlan,
    opened: _Model,
    output: Path,
    model_id: str | None,
    threads: int,
    progress: ProgressCallback | None,
) -> ShardManifest:
    started = time.monotonic()
    source = opened.source
    name = model_id or Path(source.name).stem
    with operation("merge" if plan.strategy == "merge" else "shard", model=name):
        if not opened.is_version:
            _check_apart(Path(source.name), output)
            check_replicas(source)
        fill = opened.fill(plan, min(thread_count(threads), _MOST_THREADS))
        written = write_plan(plan, source, output, fill, model_id=name, progress=progress)
    return ShardManifest(
        name,
        plan.strategy,
        plan.reason,
        str(output),
        tuple(
            ShardFile(file.path, file.size, len(file.placements), file.rank, file.stage)
            for file in plan.files
        ),
        plan.parts,
        len(source.tensors),
        source.total_bytes,
        written.windowed_bytes,
        time.monotonic() - started,
        written.already_there,
        (*plan.notes, *source.notes),
    )
