"""From a source and a strategy to a plan of files. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, get_args

from textnlp_fast.errors import InvalidInputError
from textnlp_fast.storage.sharding.layout import files_of
from textnlp_fast.storage.sharding.model import FilePlan, Group, Original, Placement, ShardPlan, ShardSource
from textnlp_fast.storage.sharding.strategies import (
    by_expert,
    by_layer,
    by_rank,
    by_size,
    by_stacked_expert,
    by_stage,
    expert_tensors,
    layers_of,
    stacked_experts,
)
from textnlp_fast.tensors import parse_header

__all__ = ["STRATEGIES", "ShardOptions", "Strategy", "plan_merge", "plan_shards"]

Strategy = Literal["size_based", "layer_based", "tensor_parallel", "expert_based", "pipeline", "adaptive"]
STRATEGIES: Final[tuple[str, ...]] = get_args(Strategy)
#: Beyond any file: of what merges into one.
_UNBOUNDED: Final = 1 << 62


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardOptions:
    """What a caller wants of shards.

    `ranks` are those of tensor_parallel, the groups of experts of expert_based and the stages of pipeline (None: as
    many as files are needed, and no more than there are experts or layers). `hosts` are machines that serve the model
    together, which adaptive thinks of. `keep_whole` are patterns of tensors that every rank holds whole.
    """

    max_shard_bytes: int
    ranks: int | None = None
    hosts: int | None = None
    keep_whole: tuple[str, ...] = ()


def plan_shards(source: ShardSource, strategy: str, options: ShardOptions, *, reason: str = "") -> ShardPlan:
    """The files of a strategy other than adaptive. Raises InvalidInputError for what a strategy cannot do."""
    if strategy not in STRATEGIES or strategy == "adaptive":
        raise InvalidInputError(f"{strategy!r} is no strategy", hint=f"Use one of {', '.join(STRATEGIES)}.")
    if options.keep_whole and strategy != "tensor_parallel":
        raise InvalidInputError(f"keep_whole is for tensor_parallel; {strategy} divides no tensor")
    if not source.tensors:
        raise InvalidInputError(f"{source.name} has no tensors")
    if strategy == "tensor_parallel":
        return _plan_ranks(source, options, reason)
    if options.ranks is not None and strategy in {"size_based", "layer_based"}:
        raise InvalidInputError(
            f"{strategy} knows no ranks",
            hint="Use tensor_parallel, expert_based or pipeline, or leave ranks out.",
        )
    groups: Sequence[Group]
    parts = 1
    if strategy == "size_based":
        groups = by_size(source.tensors)
    elif strategy == "layer_based":
        groups = by_layer(source.tensors)
    elif strategy == "pipeline":
        parts = options.ranks or options.hosts or _stages_for(source, options)
        groups = by_stage(source.tensors, parts)
    elif not expert_tensors(source.tensors) and stacked_experts(source):
        parts = options.ranks or _expert_groups(source, options)
        groups = by_stacked_expert(source, parts)
        return _in_folders(
            groups, source, options, ShardPlan(strategy, _reason(reason, strategy, parts), (), parts)
        )
    else:
        parts = options.ranks or _expert_groups(source, options)
        groups = by_expert(source, parts)
    files = files_of(groups, max_shard_bytes=options.max_shard_bytes, metadata=source.metadata)
    return ShardPlan(strategy, _reason(reason, strategy, parts), tuple(files), parts)


def plan_merge(source: ShardSource) -> ShardPlan:
    """The files that the model first had, byte for byte, where its record knows them; else one file."""
    if source.originals:
        files = tuple(_as_it_was(source, original) for original in source.originals)
        return ShardPlan("merge", "the files that were sharded", files)
    files = tuple(files_of(by_size(source.tensors), max_shard_bytes=_UNBOUNDED, metadata=source.metadata))
    return ShardPlan("merge", "one file: nothing says what the model was sharded from", files)


def _as_it_was(source: ShardSource, original: Original) -> FilePlan:
    tensors = {tensor.name: tensor for tensor in source.tensors}
    header = parse_header(original.header, original.size)
    placements = tuple(Placement(tensors[info.name]) for info in header.tensors)
    return FilePlan(original.path, original.header, placements)


def _plan_ranks(source: ShardSource, options: ShardOptions, reason: str) -> ShardPlan:
    if options.ranks is None:
        raise InvalidInputError("tensor_parallel needs a number of ranks", hint="Pass ranks (--ranks N).")
    groups, notes = by_rank(source, options.ranks, keep_whole=options.keep_whole)
    reason = _reason(reason, "tensor_parallel", options.ranks)
    plan = ShardPlan("tensor_parallel", reason, (), options.ranks, notes)
    return _in_folders(groups, source, options, plan)


def _in_folders(
    groups: Sequence[Group], source: ShardSource, options: ShardOptions, plan: ShardPlan
) -> ShardPlan:
    """The plan with the files of each rank in a folder of its own; what is no rank's lies in front of these."""
    width = len(str(plan.parts - 1))
    files: list[FilePlan] = []
    for group in groups:
        folder = "" if group.rank is None else f"rank-{group.rank:0{width}}"
        files += files_of(
            [group], max_shard_bytes=options.max_shard_bytes, metadata=source.metadata, folder=folder
        )
    return replace(plan, files=tuple(files))


def _files_needed(size_bytes: int, options: ShardOptions) -> int:
    return max(1, -(-size_bytes // options.max_shard_bytes))


def _stages_for(source: ShardSource, options: ShardOptions) -> int:
    """As many stages as it takes for each to be one file, or as there are layers: larger ones are several files."""
    _, layers, _ = layers_of(source.tensors)
    return max(1, min(_files_needed(source.total_bytes, options), len(layers)))


def _expert_groups(source: ShardSource, options: ShardOptions) -> int:
    """As many groups of experts as it takes for each to be one file, more or less."""
    experts = expert_tensors(source.tensors)
    if not experts:
        size = sum(tensor.size_bytes for tensor in stacked_experts(source))
        return min(_files_needed(size, options), source.architecture.experts or 1)
    size = sum(tensor.size_bytes for tensor, _ in experts)
    return min(_files_needed(size, options), max(1, len({number for _, number in experts})))


def _reason(given: str, strategy: str, parts: int) -> str:
    return (
        given
        or {
            "size_based": "files of one size, as asked for",
            "layer_based": "whole layers in each file, as asked for",
            "tensor_parallel": f"{parts} ranks of tensor parallelism, as asked for",
            "expert_based": f"experts dealt out to {parts} groups, as asked for",
            "pipeline": f"{parts} stages of a pipeline, as asked for",
        }[strategy]
    )
