"""The strategies: which tensors of a model go together. Pure: names, types and shapes in, groups out."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Sequence
from typing import Final

from textnlp_fast.errors import InvalidInputError
from textnlp_fast.storage.sharding.model import Group, Placement, ShardSource, ShardTensor, check_parts
from textnlp_fast.storage.sharding.stages import balanced
from textnlp_fast.tensors.parallel import Portion, portion_of
from textnlp_fast.tensors.roles import Role, role_of

__all__ = [
    "by_expert",
    "by_layer",
    "by_rank",
    "by_size",
    "by_stacked_expert",
    "by_stage",
    "expert_tensors",
    "layers_of",
    "stacked_experts",
]

_DIGITS = re.compile(r"([0-9]+)")
_FIRST_KINDS: Final = frozenset({"embedding"})


def by_size(tensors: Sequence[ShardTensor]) -> list[Group]:
    """One file after the other, each filled in the order of the tensors: what Hugging Face's own functions do."""
    return [Group(tuple(map(Placement, tensors)))]


def by_layer(tensors: Sequence[ShardTensor]) -> list[Group]:
    """Whole layers, one after the other: no layer is in two files unless it is larger than a file may be.

    What belongs to no layer comes first (embeddings) or last (final norm, output layer).
    """
    return [
        Group(tuple(map(Placement, members)), joins=bool(place))
        for place, members in enumerate(_in_order(tensors))
    ]


def by_stage(tensors: Sequence[ShardTensor], stages: int) -> list[Group]:
    """Stages of a pipeline: whole layers in their order, so that the largest stage is as small as it can be.

    Embeddings are in the first stage, the final norm and the output layer in the last.
    """
    check_parts(stages, "stages")
    before, layers, after = layers_of(tensors)
    if len(layers) < stages:
        raise InvalidInputError(
            f"{len(layers)} layers do not fill {stages} stages",
            hint="Choose as many stages as layers, or fewer.",
        )
    sizes = [_size(members) for members in layers]
    sizes[0] += _size(before)
    sizes[-1] += _size(after)
    groups: list[Group] = []
    begin = 0
    for stage, end in enumerate(balanced(sizes, stages)):
        members = [tensor for layer in layers[begin:end] for tensor in layer]
        if stage == 0:
            members = [*before, *members]
        if stage == stages - 1:
            members = [*members, *after]
        groups.append(Group(tuple(map(Placement, members)), stage=stage))
        begin = end
    return groups


def by_expert(source: ShardSource, ranks: int) -> list[Group]:
    """What all ranks need first, then each rank's experts: neighbours together, as engines deal them out."""
    check_parts(ranks, "ranks")
    experts = expert_tensors(source.tensors)
    if not experts:
        raise InvalidInputError(
            f"{source.name} has no experts",
            hint="Use layer_based, pipeline or tensor_parallel.",
        )
    numbers = sorted({number for _, number in experts})
    if numbers != list(range(len(numbers))):
        raise InvalidInputError(f"experts of {source.name} are missing: there are {_shown(numbers)}")
    if len(numbers) < ranks:
        raise InvalidInputError(
            f"{len(numbers)} experts are not dealt out to {ranks} ranks", hint="Choose fewer ranks."
        )
    names = {tensor.name for tensor, _ in experts}
    shared = [
        tensor for members in _in_order(source.tensors) for tensor in members if tensor.name not in names
    ]
    groups = [Group(tuple(map(Placement, shared)))] if shared else []
    for rank in range(ranks):
        begin, end = _share(len(numbers), rank, ranks)
        members = [tensor for tensor, number in experts if begin <= number < end]
        groups.append(Group(tuple(map(Placement, members)), rank=rank))
    return groups


def by_stacked_expert(source: ShardSource, ranks: int) -> list[Group]:
    """The same where the experts of a layer are one tensor: each rank has its places along the first axis of it."""
    check_parts(ranks, "ranks")
    stacked = stacked_experts(source)
    count = source.architecture.experts or 0
    if count < ranks:
        raise InvalidInputError(
            f"{count} experts are not dealt out to {ranks} ranks", hint="Choose fewer ranks."
        )
    names = {tensor.name for tensor in stacked}
    shared = [
        tensor for members in _in_order(source.tensors) for tensor in members if tensor.name not in names
    ]
    groups = [Group(tuple(map(Placement, shared)))] if shared else []
    for rank in range(ranks):
        portion = Portion(0, (_share(count, rank, ranks),))
        groups.append(Group(tuple(Placement(tensor, portion) for tensor in stacked), rank=rank))
    return groups


def stacked_experts(source: ShardSource) -> list[ShardTensor]:
    """Tensors that hold a layer's experts along their first axis; none where config.json does not count them."""
    count = source.architecture.experts
    if count is None or count < 2:
        return []
    return [
        tensor
        for tensor in source.tensors
        if tensor.shape[:1] == (count,)
        and role_of(tensor.name).kind == "experts"
        and role_of(tensor.name).expert is None
        and "shared" not in tensor.name
    ]


def _share(count: int, rank: int, ranks: int) -> tuple[int, int]:
    """Neighbours, dealt out as evenly as it goes."""
    begin, end = (-(-count * each // ranks) for each in (rank, rank + 1))
    return begin, end


def by_rank(
    source: ShardSource, ranks: int, *, keep_whole: Sequence[str] = ()
) -> tuple[list[Group], tuple[str, ...]]:
    """A group a rank of tensor parallelism, and notes on what every rank holds whole.

    `keep_whole` are patterns of tensors that are not to be divided. Raises InvalidInputError for what cannot be dealt
    out evenly, and if no rule fits any tensor.
    """
    check_parts(ranks, "ranks")
    kept = [tensor for tensor in source.tensors if _matches(tensor.name, keep_whole)]
    unused = [
        pattern
        for pattern in keep_whole
        if not any(fnmatch.fnmatchcase(each.name, pattern) for each in source.tensors)
    ]
    if unused:
        raise InvalidInputError(f"no tensor of {source.name} has a name like {unused[0]!r}")
    groups = [
        Group(
            tuple(
                Placement(
                    tensor,
                    None
                    if tensor in kept
                    else portion_of(tensor.name, tensor.shape, source.architecture, rank=rank, degree=ranks),
                )
                for tensor in source.tensors
            ),
            rank=rank,
        )
        for rank in range(ranks)
    ]
    if ranks > 1 and all(each.portion is None for each in groups[0].placements):
        raise InvalidInputError(
            f"no tensor of {source.name} has a name that the rules of tensor parallelism know",
            hint="Use pipeline or layer_based, which need no rules.",
        )
    return groups, _notes_on_whole(groups[0], source)


def _notes_on_whole(group: Group, source: ShardSource) -> tuple[str, ...]:
    whole = [
        each.tensor
        for each in group.placements
        if each.portion is None and role_of(each.tensor.name).kind not in {"norm", "router"}
    ]
    large = [tensor.name for tensor in whole if len(tensor.shape) > 1]
    if not large or source.total_bytes == 0:
        return ()
    share = 100 * _size(tensor for tensor in whole if len(tensor.shape) > 1) / source.total_bytes
    return (f"whole on every rank: {_shown(large)} ({share:.1f} % of the model)",)


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def expert_tensors(tensors: Iterable[ShardTensor]) -> list[tuple[ShardTensor, int]]:
    """The tensors that belong to one expert each, layer by layer, and its number."""
    found = [(role_of(tensor.name), tensor) for tensor in tensors]
    experts = [(role, tensor) for role, tensor in found if role.expert is not None]
    ordered = sorted(
        experts, key=lambda each: (_natural(each[0].stack), each[0].layer or 0, each[0].expert or 0)
    )
    return [(tensor, role.expert or 0) for role, tensor in ordered]


def layers_of(
    tensors: Sequence[ShardTensor],
) -> tuple[list[ShardTensor], list[list[ShardTensor]], list[ShardTensor]]:
    """What comes before the layers, the layers in their order, and what comes after them."""
    before: list[ShardTensor] = []
    after: list[ShardTensor] = []
    layers: dict[tuple[int, int], list[ShardTensor]] = {}
    stacks: dict[str, int] = {}
    for tensor in tensors:
        role = role_of(tensor.name)
        if role.layer is not None:
            stack = stacks.setdefault(role.stack, len(stacks))
            layers.setdefault((stack, role.layer), []).append(tensor)
        else:
            (before if _comes_first(role) else after).append(tensor)
    return before, [layers[key] for key in sorted(layers)], after


def _comes_first(role: Role) -> bool:
    return role.kind in _FIRST_KINDS


def _in_order(tensors: Sequence[ShardTensor]) -> list[list[ShardTensor]]:
    before, layers, after = layers_of(tensors)
    return [members for members in (before, *layers, after) if members]


def _natural(text: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in _DIGITS.split(text)]


def _size(tensors: Iterable[ShardTensor]) -> int:
    return sum(tensor.size_bytes for tensor in tensors)


def _shown(values: Sequence[object]) -> str:
    more = f" and {len(values) - 4} more" if len(values) > 4 else ""
    return ", ".join(map(str, values[:4])) + more
