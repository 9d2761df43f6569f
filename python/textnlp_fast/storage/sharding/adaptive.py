"""Chooses a strategy, and says why. Pure: what is known of model, machines and disk in, a choice out."""

from __future__ import annotations

from dataclasses import dataclass, replace

from textnlp_fast.errors import InvalidInputError
from textnlp_fast.storage.sharding.model import ShardPlan, ShardSource
from textnlp_fast.storage.sharding.planning import ShardOptions, plan_shards
from textnlp_fast.storage.sharding.strategies import expert_tensors, layers_of, stacked_experts

__all__ = ["Limits", "plan_adaptive"]


@dataclass(frozen=True, slots=True)
class Limits:
    """What the place of the result allows; None: nothing is known. `file_bytes` is the largest file."""

    file_bytes: int | None = None


def plan_adaptive(source: ShardSource, options: ShardOptions, limits: Limits) -> ShardPlan:
    """A plan by whatever strategy suits model and machines; `reason` says which facts decided."""
    said: list[str] = []
    if limits.file_bytes is not None and limits.file_bytes < options.max_shard_bytes:
        said.append(f"files stay below the {_size(limits.file_bytes)} that the file system allows")
        options = replace(options, max_shard_bytes=_below(limits.file_bytes))
    if options.ranks is not None and options.ranks > 1:
        return _for_ranks(source, options, said)
    options = replace(options, ranks=None)
    if options.hosts is not None and options.hosts > 1:
        return _for_hosts(source, options, said)
    total = source.total_bytes
    if total <= options.max_shard_bytes:
        said.insert(0, f"{_size(total)} fit into one file")
        return plan_shards(source, "size_based", options, reason="; ".join(said))
    experts = _experts(source)
    if experts.count > 1 and 2 * experts.size_bytes > total:
        said.insert(0, f"{experts.share(total)} of the model are {experts.count} experts")
        return plan_shards(source, "expert_based", options, reason="; ".join(said))
    _, layers, _ = layers_of(source.tensors)
    largest = max((sum(tensor.size_bytes for tensor in layer) for layer in layers), default=0)
    if len(layers) > 1 and largest <= options.max_shard_bytes:
        said.insert(
            0,
            f"{_size(total)} do not fit into a file of {_size(options.max_shard_bytes)}, and its {len(layers)} "
            f"layers of up to {_size(largest)} do",
        )
        return plan_shards(source, "layer_based", options, reason="; ".join(said))
    why = f"a layer of {_size(largest)} does not fit into a file" if layers else "names tell of no layers"
    said.insert(0, f"{_size(total)} take several files, and {why}")
    return plan_shards(source, "size_based", options, reason="; ".join(said))


def _for_ranks(source: ShardSource, options: ShardOptions, said: list[str]) -> ShardPlan:
    ranks = options.ranks or 1
    experts = _experts(source)
    if experts.count >= ranks and 2 * experts.size_bytes > source.total_bytes and not options.keep_whole:
        share = experts.share(source.total_bytes)
        said.insert(0, f"{share} of the model are {experts.count} experts, dealt out whole to {ranks} ranks")
        return plan_shards(source, "expert_based", options, reason="; ".join(said))
    reason = "; ".join([f"heads and matrices are dealt out evenly to {ranks} ranks", *said])
    try:
        return plan_shards(source, "tensor_parallel", options, reason=reason)
    except InvalidInputError as error:
        said.insert(0, f"a pipeline of {ranks} stages, for {error.args[0]}")
    return plan_shards(source, "pipeline", replace(options, keep_whole=()), reason="; ".join(said))


def _for_hosts(source: ShardSource, options: ShardOptions, said: list[str]) -> ShardPlan:
    hosts = options.hosts or 1
    _, layers, _ = layers_of(source.tensors)
    if len(layers) < hosts:
        said.insert(0, f"{len(layers)} layers do not fill a stage on each of {hosts} hosts")
        return plan_shards(source, "size_based", options, reason="; ".join(said))
    said.insert(
        0, f"{len(layers)} layers in {hosts} stages, one a host: only activations cross between hosts"
    )
    return plan_shards(source, "pipeline", replace(options, keep_whole=()), reason="; ".join(said))


@dataclass(frozen=True, slots=True)
class _Experts:
    count: int
    size_bytes: int

    def share(self, total_bytes: int) -> str:
        return f"{100 * self.size_bytes / total_bytes:.0f} %"


def _experts(source: ShardSource) -> _Experts:
    found = expert_tensors(source.tensors)
    if found:
        return _Experts(len({number for _, number in found}), sum(each.size_bytes for each, _ in found))
    stacked = stacked_experts(source)
    count = source.architecture.experts or 0
    return _Experts(count if stacked else 0, sum(each.size_bytes for each in stacked))


def _below(limit_bytes: int) -> int:
    """Bytes of tensors that leave room for a header in a file of that size."""
    return max(1, limit_bytes - limit_bytes // 64)


def _size(size_bytes: int) -> str:
    for unit, one in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size_bytes >= one:
            return f"{size_bytes / one:.4g} {unit}"
    return f"{size_bytes} B"
