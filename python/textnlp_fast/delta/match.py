"""Finds, for each tensor of a model, the tensors of another model that it was made of, and how.

Pure but for the stretches that it asks the tensors for: contents by digest, then names, then likeness of a few sampled
values among tensors of as many elements, then matrices turned, fused, split and grown. A wrong match costs bytes, never
correctness: what a candidate is worth, the codec finds out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

from textnlp_fast.delta.bases import Recipe
from textnlp_fast.delta.computed import Cast
from textnlp_fast.delta.fusing import Layout, Parts, find_layout
from textnlp_fast.delta.moved import Piece, Pieces, Transposed, Whole
from textnlp_fast.delta.probing import (
    HEAD,
    Block,
    BudgetSpent,
    Prober,
    Score,
    Tensor,
    alike,
    castable,
    in_type,
    score,
)
from textnlp_fast.delta.regrowing import find_grown, find_rotated

__all__ = ["Candidate", "Tensor", "match"]

# Below this, samples of unrelated tensors are as much alike.
_LEAST_LIKENESS: Final = 0.5
# Too little for samples to say no: below this, and of vectors, a base by name is named whatever they say.
_SMALL_BYTES: Final = 1 << 12
# Experts in a stack, and slices in all.
_MOST_SLICES: Final = 1 << 16


_Key = TypeVar("_Key")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A base for a tensor, why, in words, and the delta's rough price: ``bits`` an element, from samples."""

    recipe: Recipe
    reason: str
    bits: float


@dataclass(slots=True)
class _Found:
    """What is known of a target: `settled` once nothing better is to be expected."""

    candidates: list[Candidate] = field(default_factory=list)
    settled: bool = False

    def add(self, recipe: Recipe, reason: str, graded: Score) -> None:
        if all(known.recipe != recipe for known in self.candidates):
            self.candidates.append(Candidate(recipe, reason, graded.bits))
        # A base that takes less than two thirds of what a stranger does is the tensor itself, changed.
        self.settled = self.settled or graded.saved >= 0.5 * graded.bits


def match(
    sources: Sequence[Tensor], targets: Sequence[Tensor], *, most_reads: int | None = None
) -> list[list[Candidate]]:
    """For each target its candidates, best first; none where nothing is like it.

    ``most_reads`` bounds the stretches (of at most 512 bytes) that are read; by default 64 for each tensor and
    20,000. When they are used up, what was found by then is the answer.
    """
    budget = most_reads if most_reads is not None else 20_000 + 64 * (len(sources) + len(targets))
    search = _Search(sources, targets, Prober(budget))
    steps: tuple[Callable[[], None], ...] = (
        search.by_digest,
        search.by_name,
        search.by_likeness,
        search.by_learnt_names,
        search.by_turning,
        search.by_fusing,
        search.by_splitting,
        search.by_rows,
    )
    try:
        for step in steps:
            step()
    except BudgetSpent:
        pass  # the documented end of a search that was too dear
    return search.ranked()


class _Search:
    def __init__(self, sources: Sequence[Tensor], targets: Sequence[Tensor], prober: Prober) -> None:
        self._sources, self._targets, self._prober = sources, targets, prober
        self._found = [_Found() for _ in targets]
        self._by_name: dict[str, Tensor] = {}
        for source in sources:
            self._by_name.setdefault(source.name, source)
        self._used: set[str] = set()

    def ranked(self) -> list[list[Candidate]]:
        """Cheapest first: equal contents cost nothing."""
        return [sorted(found.candidates, key=lambda one: one.bits) for found in self._found]

    def _open(self) -> list[int]:
        return [number for number, found in enumerate(self._found) if not found.settled]

    def by_digest(self) -> None:
        known: dict[str, Tensor] = {}
        for one in self._sources:
            known.setdefault(one.digest, one)
        for target, found in zip(self._targets, self._found, strict=True):
            same = self._by_name.get(target.name)
            source: Tensor | None = known.get(target.digest)
            if same is not None and same.digest == target.digest:
                source = same
            if source is not None and source.size_bytes == target.size_bytes:
                called = "" if source.name == target.name else f" under the name {source.name}"
                found.add(Whole(source.digest, source.size_bytes), f"the same content{called}", _EQUAL)
                self._used.add(source.digest)

    def by_name(self) -> None:
        pairs = []
        for number in self._open():
            source = self._by_name.get(self._targets[number].name)
            if source is not None:
                pairs.append((number, _whole(source), "the same name"))
        self._grade(pairs, by_name=True)

    def by_likeness(self) -> None:
        """Renamed, renumbered, reshaped, cast, or a slice of a stack: tensors of as many elements."""
        targets: dict[tuple[int, str], list[int]] = {}
        for number in self._open():
            target = self._targets[number]
            if target.elements >= HEAD:
                targets.setdefault((target.elements, _family(target.dtype)), []).append(number)
        sources: dict[tuple[int, str], list[Block]] = {key: [] for key in targets}
        for block in _blocks(self._sources):
            key = (block.elements, _family(block.tensor.dtype))
            if key in sources:
                sources[key].append(block)
        for key, numbers in targets.items():
            pool = sources[key]
            if not pool:
                continue
            theirs = [(self._prober.sample(block), block.tensor.dtype) for block in pool]
            ours = [
                (self._prober.sample(_whole(self._targets[number])), self._targets[number].dtype)
                for number in numbers
            ]
            likely = alike(ours, theirs, least=_LEAST_LIKENESS)
            self._grade(
                (number, pool[one], "alike in samples")
                for number, line in zip(numbers, likely, strict=True)
                for one in line
            )

    def by_learnt_names(self) -> None:
        """What the matches say about names, applied to those that samples say too little of."""
        rules = _rules(self._targets, self._found, {source.digest: source.name for source in self._sources})
        pairs = []
        for number in self._open():
            name = rules(self._targets[number].name)
            source = self._by_name.get(name) if name is not None else None
            if source is not None and source.shape == self._targets[number].shape:
                pairs.append((number, _whole(source), "renamed as its neighbours are"))
        self._grade(pairs, by_name=True)

    def by_turning(self) -> None:
        groups: dict[tuple[tuple[int, ...], str], list[int]] = {}
        for number in self._open():
            target = self._targets[number]
            # Types of less than a byte are moved as bytes, of which there are fewer than the shape says.
            whole_elements = len(target.shape) == 2 and target.shape[0] * target.shape[1] == target.elements
            if whole_elements and min(target.shape) > 1 and target.elements >= 4 * HEAD:
                groups.setdefault((target.shape[::-1], target.dtype), []).append(number)
        for (shape, dtype), numbers in groups.items():
            pool = [source for source in self._sources if source.shape == shape and source.dtype == dtype]
            theirs = [self._prober.tiles(source, turned=True) for source in pool]
            ours = [self._prober.tiles(self._targets[number], turned=False) for number in numbers]
            likely = alike(
                [(bits, dtype) for bits in ours], [(bits, dtype) for bits in theirs], least=_LEAST_LIKENESS
            )
            pairs = [(place, one) for place, line in enumerate(likely) for one in line]
            for (place, one), graded in zip(
                pairs, score([(ours[place], theirs[one]) for place, one in pairs], dtype), strict=True
            ):
                if graded.match:
                    source, found = pool[one], self._found[numbers[place]]
                    recipe = Transposed(source.digest, shape[0], shape[1], source.element_bytes)
                    found.add(recipe, f"{source.name}, transposed", graded)
                    self._used.add(source.digest)

    def by_fusing(self) -> None:
        for dtype, numbers in self._grouped(lambda target: target.dtype).items():
            parts = Parts(list(_blocks(one for one in self._sources if one.dtype == dtype)), self._prober)
            wholes = [self._targets[number] for number in numbers]
            for number, first in zip(numbers, parts.begin_like(wholes), strict=True):
                target = self._targets[number]
                layout = find_layout(target, first, parts, self._prober)
                if layout is not None:
                    recipe = layout.whole_from_parts()
                    self._found[number].add(recipe, f"{_described(layout)}, fused", layout.score)
                    self._used.update(part.tensor.digest for part in layout.parts)

    def by_splitting(self) -> None:
        """The same with the models' roles changed: a source that is made of targets."""
        places = {id(target): number for number, target in enumerate(self._targets)}
        for dtype in self._grouped(lambda target: target.dtype):
            parts = Parts([_whole(target) for target in self._targets if target.dtype == dtype], self._prober)
            wholes = [
                one
                for one in self._sources
                if one.dtype == dtype and one.digest not in self._used and one.elements >= HEAD
            ]
            for source, first in zip(wholes, parts.begin_like(wholes), strict=True):
                layout = find_layout(source, first, parts, self._prober)
                for place, part in enumerate(layout.parts if layout is not None else ()):
                    found = self._found[places[id(part.tensor)]]
                    if layout is None or found.settled:
                        continue
                    how = f"part {place + 1} of {len(layout.parts)} of {source.name}{_interleaved(layout)}"
                    found.add(layout.part_from_whole(place), how, layout.score)

    def by_rows(self) -> None:
        """Tensors with rows more, fewer, or in the other order of rotary embeddings."""
        pools: dict[tuple[str, tuple[int, ...]], list[Tensor]] = {}
        for source in self._sources:
            if source.shape and source.elements >= HEAD:
                pools.setdefault((source.dtype, source.shape[1:]), []).append(source)
        for key, numbers in self._grouped(lambda target: (target.dtype, target.shape[1:])).items():
            pool = pools.get(key, [])
            tried: dict[int, list[Tensor]] = {number: [] for number in numbers if pool}
            for end in (self._prober.head, self._prober.tail):
                ours = [(end(_whole(self._targets[number])), key[0]) for number in tried]
                theirs = [(end(_whole(source)), key[0]) for source in pool]
                for line, likely in zip(
                    tried.values(), alike(ours, theirs, least=_LEAST_LIKENESS), strict=True
                ):
                    line += [pool[one] for one in likely]
            in_pool = {id(source) for source in pool}
            for number, line in tried.items():
                likely_ones = {id(source): source for source in line}
                named = self._by_name.get(self._targets[number].name)
                if named is not None and id(named) in in_pool:
                    likely_ones[id(named)] = named
                for source in likely_ones.values():
                    self._grow(number, source)

    def _grow(self, number: int, source: Tensor) -> None:
        target = self._targets[number]
        answers = (*find_grown(source, target, self._prober), *find_rotated(source, target, self._prober))
        for recipe, reason, graded in answers:
            self._found[number].add(recipe, reason, graded)

    def _grouped(self, key: Callable[[Tensor], _Key]) -> dict[_Key, list[int]]:
        """The open targets that have a head, by a key."""
        groups: dict[_Key, list[int]] = {}
        for number in self._open():
            target = self._targets[number]
            if target.shape and target.elements >= HEAD:
                groups.setdefault(key(target), []).append(number)
        return groups

    def _grade(self, pairs: Iterable[tuple[int, Block, str]], *, by_name: bool = False) -> None:
        """Keep the pairs that samples bear out; small tensors of one name also without."""
        groups: dict[tuple[str, int], list[tuple[int, Block, str]]] = {}
        for number, block, reason in pairs:
            target, source = self._targets[number], block.tensor
            same_type = source.dtype == target.dtype
            if (
                block.elements != target.elements
                or not castable(source.dtype, target.dtype)
                or not target.elements
            ):
                continue
            if same_type or block.whole:
                groups.setdefault((target.dtype, target.elements), []).append((number, block, reason))
        for (dtype, _), group in groups.items():
            samples = [
                (
                    self._prober.sample(_whole(self._targets[number])),
                    in_type(self._prober.sample(block), block.tensor.dtype, dtype),
                )
                for number, block, _ in group
            ]
            for (number, block, reason), graded in zip(group, score(samples, dtype), strict=True):
                target = self._targets[number]
                small = len(target.shape) < 2 or target.size_bytes <= _SMALL_BYTES
                if graded.match or (by_name and small):
                    recipe, how = _recipe_for(target, block)
                    self._found[number].add(recipe, f"{reason}: {how}", graded)
                    if graded.match and block.whole:
                        self._used.add(block.tensor.digest)


_EQUAL: Final = Score(0.0, 16.0, True)


def _whole(tensor: Tensor) -> Block:
    return Block(tensor, 0, tensor.elements)


def _family(dtype: str) -> str:
    return "floating point" if castable(dtype, "F32") else dtype


def _blocks(tensors: Iterable[Tensor]) -> Iterable[Block]:
    """The tensors, and the slices of those that may be stacks."""
    slices = 0
    for tensor in tensors:
        yield _whole(tensor)
        if len(tensor.shape) < 3 or not tensor.elements:
            continue
        count = tensor.shape[0]
        step = tensor.elements // count
        if count == 1 or step < HEAD or tensor.elements % count or slices + count > _MOST_SLICES:
            continue
        slices += count
        yield from (Block(tensor, number * step, step) for number in range(count))


def _recipe_for(target: Tensor, block: Block) -> tuple[Recipe, str]:
    source = block.tensor
    if not block.whole:
        piece = Piece(source.digest, block.offset_bytes, block.size_bytes)
        return Pieces((piece,)), f"slice {block.begin // block.elements} of {source.name}"
    shape = "" if source.shape == target.shape else f", reshaped from {list(source.shape)}"
    if source.dtype == target.dtype:
        return Whole(source.digest, source.size_bytes), source.name + shape
    recipe = Cast(source.digest, source.dtype, target.dtype, target.size_bytes)
    return recipe, f"{source.name}{shape}, cast from {source.dtype}"


def _described(layout: Layout) -> str:
    names = [part.tensor.name for part in layout.parts]
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return shown + _interleaved(layout)


def _interleaved(layout: Layout) -> str:
    return f" interleaved in {layout.groups} groups" if layout.groups > 1 else ""


def _rules(
    targets: Sequence[Tensor], found: Sequence[_Found], names: dict[str, str]
) -> Callable[[str], str | None]:
    """How names changed, learnt from matches: the prefix of a target's name, and that of its source.

    Of two names, what they have in common at the end says nothing; what is before it was renamed.
    """
    votes: dict[str, Counter[str]] = {}
    for target, one in zip(targets, found, strict=True):
        best = one.candidates[0].recipe if one.candidates and one.settled else None
        if not isinstance(best, Whole | Cast):
            continue
        ours, theirs = target.name.split("."), names[best.digest].split(".")
        while ours and theirs and ours[-1] == theirs[-1]:
            ours.pop()
            theirs.pop()
            votes.setdefault(".".join(ours), Counter())[".".join(theirs)] += 1
    rules = {prefix: counter.most_common(1)[0][0] for prefix, counter in votes.items()}

    def renamed(name: str) -> str | None:
        words = name.split(".")
        for count in range(len(words) - 1, -1, -1):
            theirs = rules.get(".".join(words[:count]))
            if theirs is not None:
                return ".".join([*([theirs] if theirs else []), *words[count:]])
        return None

    return renamed
