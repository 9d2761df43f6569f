"""Explain: what an update did to a model, by tensor, by layer and by kind. Pure: rows in, rows and words out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Final, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from textnlp_fast.delta.measure import NOTHING, Sums, merge
from textnlp_fast.delta.rank import Rank
from textnlp_fast.errors import InvalidInputError
from textnlp_fast.tensors import KINDS, Role, role_of

__all__ = [
    "SORT_KEYS",
    "By",
    "Change",
    "Explanation",
    "Line",
    "Side",
    "grid_of",
    "is_comparable",
    "lines_of",
    "pair_up",
    "sort_lines",
    "total_of",
]

Status = Literal["same", "changed", "reshaped", "retyped", "renamed", "added", "removed"]
By = Literal["tensor", "layer", "kind"]
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Side:
    """A tensor as one of the two models has it. `digest` is of its bytes, where known."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    size: int
    digest: str | None = None

    @property
    def elements(self) -> int:
        count = 1
        for side in self.shape:
            count *= side
        return count


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What became of one tensor. `old` is None for an added one, `new` for a removed one.

    `sums` are there if both have one dtype and size; of a tensor that stayed the same they hold the number of elements
    alone. `stored_bytes` is what the newer tensor takes, `estimated` if only a part of it was coded to find out;
    `strategy` is how: against another tensor (`delta`, or `sparse` where little changed), against what is made of
    others (`recipe`), on its own (`alone`), or `raw`.
    """

    status: Status
    old: Side | None
    new: Side | None
    sums: Sums | None = None
    rank: Rank | None = None
    strategy: str | None = None
    stored_bytes: int | None = None
    estimated: bool = False

    @property
    def side(self) -> Side:
        """The newer tensor, or of a removed one the older."""
        side = self.new or self.old
        assert side is not None, "a change has a side"
        return side

    @property
    def role(self) -> Role:
        return role_of(self.side.name.rpartition(": ")[2])


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """All changes from `old` to `new` (names to show), in the order of the newer model, the removed ones last.

    `bytes_of` says whose bytes the changes' are: what the `repository` stores, or what the `codec` would take.
    """

    old: str
    new: str
    bytes_of: Literal["repository", "codec"]
    changes: tuple[Change, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A tensor, a layer or a kind of tensor: what it has in all, and what changed in it.

    `label` names it. `layer` and `kind` are None where they differ within. `rank_fraction` is the effective rank of
    the change over the rank a matrix of that shape can have: of several matrices the mean, by their elements. `size`
    is that of the newer tensors in bytes, `stored_elements` counts the weights that `stored_bytes` are for.
    `change` and `rank` are there if the line is about one tensor.
    """

    label: str
    kind: str | None
    layer: int | None
    tensors: int
    changed_tensors: int
    elements: int
    size: int
    sums: Sums
    rank_fraction: float | None
    strategy: str | None
    stored_bytes: int | None
    stored_elements: int
    estimated: bool
    change: Change | None = None
    rank: Rank | None = None

    @property
    def status(self) -> Status | None:
        """That of the one tensor; None of a group."""
        return self.change.status if self.change is not None else None

    @property
    def bits_per_weight(self) -> float | None:
        """Stored bits of each weight that had to be stored."""
        if self.stored_bytes is None or not self.stored_elements:
            return None
        return 8 * self.stored_bytes / self.stored_elements


# --- what belongs together ---------------------------------------------------------------------------------


def pair_up(
    old: Mapping[str, Side], new: Mapping[str, Side], digest_of: Callable[[Side, bool], str]
) -> list[Change]:
    """Changes without what must be measured: those of status `changed` and `reshaped` may turn out the same.

    A tensor whose name is new counts as renamed if one of the same dtype, shape and bytes lost its name.
    `digest_of` tells the bytes of a tensor of the old model (False) or the new one (True); it is asked only where
    it matters.
    """
    homeless: dict[tuple[str, tuple[int, ...]], list[Side]] = {}
    for name, side in old.items():
        if name not in new:
            homeless.setdefault((side.dtype, side.shape), []).append(side)
    changes: list[Change] = []
    for name, side in new.items():
        previous = old.get(name)
        if previous is not None:
            changes.append(Change(status=_status(previous, side), old=previous, new=side))
            continue
        candidates = homeless.get((side.dtype, side.shape), [])
        digest = digest_of(side, True) if candidates else None
        found = next((each for each in candidates if digest_of(each, False) == digest), None)
        if found is not None:
            candidates.remove(found)
        changes.append(Change(status="renamed" if found else "added", old=found, new=side))
    left = {each.name for sides in homeless.values() for each in sides}
    changes += [Change(status="removed", old=side, new=None) for name, side in old.items() if name in left]
    return [_with_elements(change) for change in changes]


def is_comparable(change: Change) -> bool:
    """Whether the elements of both tensors correspond and may differ."""
    old, new = change.old, change.new
    if old is None or new is None or change.status not in ("changed", "reshaped"):
        return False
    return (old.dtype, old.size) == (new.dtype, new.size)


def _status(old: Side, new: Side) -> Status:
    if old.dtype != new.dtype:
        return "retyped"
    if old.shape != new.shape:
        return "reshaped"
    return "same" if old.digest is not None and old.digest == new.digest else "changed"


def _with_elements(change: Change) -> Change:
    if change.status not in ("same", "renamed") or change.new is None:
        return change
    return replace(change, sums=Sums(elements=change.new.elements))


# --- lines -------------------------------------------------------------------------------------------------


def lines_of(explanation: Explanation, by: By) -> list[Line]:
    """A line a tensor, a layer or a kind, in the order of the model; what is in no layer goes by its kind."""
    changes = explanation.changes
    if by == "tensor":
        return [replace(_line(_tensor_label(each), [each]), change=each, rank=each.rank) for each in changes]
    stacks = {change.role.stack for change in changes if change.role.layer is not None}
    groups: dict[tuple[int, str, int], list[Change]] = {}
    labels: dict[tuple[int, str, int], str] = {}
    for change in changes:
        role = change.role
        place, label = KINDS.index(role.kind), role.kind
        if by == "kind":
            key = (0, "", place)
        elif role.layer is None:
            # In front of the layers what comes first in a model; the rest behind them.
            key = (0 if role.kind == "embedding" else 2, "", place)
        else:
            key = (1, role.stack, role.layer)
            label = f"layer {role.layer}" if len(stacks) == 1 else f"{role.stack}.{role.layer}"
        groups.setdefault(key, []).append(change)
        labels[key] = label
    return [_line(labels[key], groups[key]) for key in sorted(groups)]


def total_of(explanation: Explanation) -> Line:
    """One line for the whole model."""
    return _line("all", list(explanation.changes))


def grid_of(explanation: Explanation, value: str) -> tuple[list[str], list[str], npt.NDArray[np.float64]]:
    """Layers by kinds, for a picture: the layers' labels, the kinds within layers, and a figure for each pair.

    `value` is `changed` (a share of the weights) or `relative` (the change's norm over the weights'). NaN where a
    layer has no tensor of the kind, or none that both models have.
    """
    groups: dict[tuple[str, int], dict[str, list[Change]]] = {}
    for change in explanation.changes:
        role = change.role
        if role.layer is not None:
            groups.setdefault((role.stack, role.layer), {}).setdefault(role.kind, []).append(change)
    kinds = [kind for kind in KINDS if any(kind in layer for layer in groups.values())]
    stacks = sorted({stack for stack, _ in groups})
    cells = np.full((len(groups), len(kinds)), np.nan)
    labels = []
    for row, (stack, number) in enumerate(sorted(groups)):
        labels.append(str(number) if len(stacks) == 1 else f"{_telling(stack, stacks)} {number}")
        for column, kind in enumerate(kinds):
            if kind in groups[stack, number]:
                line = _line(kind, groups[stack, number][kind])
                figure = line.sums.changed_fraction
                if value == "relative":
                    # Norms are of changed tensors only: where nothing changed there is none, and the change is 0.
                    figure = line.sums.relative_norm if line.sums.changed else figure
                cells[row, column] = np.nan if figure is None else figure
    return labels, kinds, cells


def _telling(stack: str, stacks: Sequence[str]) -> str:
    """The part of a stack's name that tells it from the others."""
    parts = stack.split(".")
    others = {part for other in stacks if other != stack for part in other.split(".")}
    return next((part for part in parts if part not in others), parts[-1])


def _tensor_label(change: Change) -> str:
    if change.status == "renamed" and change.old is not None:
        return f"{change.old.name} -> {change.side.name}"
    return change.side.name


def _line(label: str, changes: Sequence[Change]) -> Line:
    roles = [change.role for change in changes]
    ranked = [(change.rank, change.side.elements) for change in changes if change.rank is not None]
    weight = sum(elements for _, elements in ranked)
    stored = [change for change in changes if change.stored_bytes is not None]
    strategies = {change.strategy for change in changes if change.strategy is not None}
    return Line(
        label=label,
        kind=_only({role.kind for role in roles}),
        layer=_only({role.layer for role in roles}),
        tensors=sum(change.new is not None for change in changes),
        changed_tensors=sum(change.status not in ("same", "renamed") for change in changes),
        elements=sum(change.new.elements for change in changes if change.new is not None),
        size=sum(change.new.size for change in changes if change.new is not None),
        sums=reduce(merge, (change.sums for change in changes if change.sums is not None), NOTHING),
        rank_fraction=sum(rank.fraction * elements for rank, elements in ranked) / weight if weight else None,
        strategy="mixed" if len(strategies) > 1 else _only(strategies),
        stored_bytes=sum(change.stored_bytes or 0 for change in stored) if stored else None,
        stored_elements=sum(change.side.elements for change in stored),
        estimated=any(change.estimated for change in changes),
    )


def _only(values: set[Value]) -> Value | None:
    return next(iter(values)) if len(values) == 1 else None


# --- order -------------------------------------------------------------------------------------------------

#: What lines can be sorted by, the largest first; `name` keeps the order of the model.
SORT_KEYS: Final[dict[str, Callable[[Line], float | None]]] = {
    "changed": lambda line: line.sums.changed_fraction,
    "norm": lambda line: line.sums.change_norm,
    "relative": lambda line: line.sums.relative_norm,
    "value": lambda line: line.sums.max_change,
    "ulp": lambda line: line.sums.max_ulp,
    "rank": lambda line: line.rank_fraction,
    "bytes": lambda line: line.stored_bytes,
    "bits": lambda line: line.bits_per_weight,
}


def sort_lines(lines: Iterable[Line], key: str) -> list[Line]:
    """The lines in order of `key`, one of `SORT_KEYS` or `name`; what has no such figure comes last."""
    if key == "name":
        return list(lines)
    if key not in SORT_KEYS:
        raise InvalidInputError(
            f"cannot sort by {key!r}", hint=f"Sort by one of name, {', '.join(SORT_KEYS)}."
        )

    def place(line: Line) -> tuple[bool, float]:
        figure = SORT_KEYS[key](line)
        return (figure is None, -(figure or 0.0))

    return sorted(lines, key=place)
