"""Replaces what is new in a model by something near that is cheaper to code, content by content, before it is coded.

What comes out lies in a file of its own, and is a model like any other: the exact machinery does the rest.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from threading import Lock
from typing import Final

import numpy as np

from textnlp_fast.contents.inventory import LocalFile, LocalPart
from textnlp_fast.contents.windows import Progress, ProgressCallback, write_exactly
from textnlp_fast.contents.working import workers_for
from textnlp_fast.delta.approximate import Approximation, LowRank, SignScale
from textnlp_fast.delta.change import Change
from textnlp_fast.delta.elements import ELEMENTS, Words
from textnlp_fast.delta.factoring import low_rank_recipe
from textnlp_fast.delta.factors import Signs
from textnlp_fast.delta.made_contents import MadeContents
from textnlp_fast.delta.patch import HeldContent
from textnlp_fast.delta.planning import Bases, Step
from textnlp_fast.delta.promise import Measurement, Promise, TensorPromise
from textnlp_fast.delta.quantise import Quantiser
from textnlp_fast.delta.recipe import LowRank as LowRankRecipe
from textnlp_fast.delta.recipe import Recipe, Whole
from textnlp_fast.delta.recipe import SignScale as SignScaleRecipe
from textnlp_fast.errors import InvalidInputError
from textnlp_fast.hashing import Blake3

__all__ = ["Approximated", "approximate_steps", "elements_of"]

# What a quantiser takes: blocks of numbers of eight bytes.
_WORK_BYTES: Final = 24 << 20


@dataclass(frozen=True, slots=True)
class Approximated:
    """The new target: its files by the contents they get, the steps that make those, how far off they are."""

    target: list[LocalFile]
    steps: list[Step]
    promise: Promise


@dataclass(frozen=True, slots=True)
class _Outcome:
    step: Step
    promise: TensorPromise


def approximate_steps(
    asked: Approximation,
    steps: Sequence[Step],
    target: Sequence[LocalFile],
    held: Mapping[str, HeldContent],
    bases: Bases,
    made: MadeContents,
    scratch: Path,
    *,
    memory_budget_bytes: int,
    threads: int,
    progress: ProgressCallback | None,
) -> Approximated:
    """Approximates every tensor that has a base, where `asked` applies; the file `scratch` takes what comes out.

    Raises InvalidInputError if two tensors of the target have one name, by which promises are made.
    """
    names = [part.name for file in target for part in file.parts if part.name]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidInputError(
            f"two files have a tensor {twice!r}", hint="Make the patch without an approximation."
        )
    sizes = [step.part.size for step in steps]
    total, done, lock = sum(sizes), 0, Lock()
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def work(job: tuple[Step, int]) -> _Outcome:
        nonlocal done
        outcome = _approximated(asked, *job, bases, made, descriptor, scratch)
        with lock:
            done += job[0].part.size
            if progress is not None:
                progress(Progress("approximate", done, total))
        return outcome

    try:
        workers = workers_for(_WORK_BYTES, memory_budget_bytes, threads)
        with ThreadPoolExecutor(workers, thread_name_prefix="textnlp-fast-approximate") as pool:
            outcomes = list(pool.map(work, zip(steps, accumulate(sizes, initial=0), strict=False)))
    finally:
        os.close(descriptor)
    return _collected(target, held, steps, outcomes)


def _collected(
    target: Sequence[LocalFile],
    held: Mapping[str, HeldContent],
    steps: Sequence[Step],
    outcomes: Sequence[_Outcome],
) -> Approximated:
    found = {step.part.digest: outcome for step, outcome in zip(steps, outcomes, strict=True)}
    files, promises = [], {}
    for file in target:
        parts = []
        for part in file.parts:
            outcome = found.get(part.digest)
            if part.name:
                exact = TensorPromise(None, part.dtype, elements_of(part), 0, 0, 0.0, 0.0, 0.0)
                promises[part.name] = exact if outcome is None else outcome.promise
            parts.append(part if outcome is None else replace(part, digest=outcome.step.part.digest))
        files.append(replace(file, parts=tuple(parts)))
    # Two contents may become one, and one may become what the source has.
    by_digest: dict[str, Step] = {}
    for outcome in outcomes:
        if outcome.step.part.digest not in held:
            by_digest.setdefault(outcome.step.part.digest, outcome.step)
    return Approximated(files, list(by_digest.values()), Promise(promises))


def elements_of(part: LocalPart) -> int:
    """Elements of a tensor, bytes of what has none."""
    element = ELEMENTS.get(part.dtype)
    return part.size // (element.size_bytes if element else 1)


def _approximated(
    asked: Approximation,
    step: Step,
    offset: int,
    bases: Bases,
    made: MadeContents,
    descriptor: int,
    scratch: Path,
) -> _Outcome:
    part, base = step.part, step.base
    if base is None:
        elements = elements_of(part)
        return _Outcome(step, TensorPromise(None, part.dtype, elements, elements, 0, 0.0, 0.0, 0.0))
    # Signs and factors are added to a content, not to what a recipe makes.
    fits = isinstance(base, Whole) or not isinstance(asked, LowRank | SignScale)
    # A merge is part of what changes, though not of what is left to code.
    before = Whole(base.digest, base.size_bytes) if isinstance(base, LowRankRecipe) else base
    seen, measured = _change(step, before, bases), Measurement(part.dtype)
    if not part.name or not fits:
        for _, target, was in seen.blocks():
            measured.add(target, target, was)
        return _Outcome(step, measured.promise(None))
    quantiser = Quantiser(asked, _change(step, base, bases))
    hasher, written = Blake3(), 0
    for block, (_, target, was) in zip(quantiser.blocks(), seen.blocks(), strict=True):
        measured.add(target, block, was)
        data = np.ascontiguousarray(block).view(np.uint8)
        hasher.update(data, threads=1)
        write_exactly(descriptor, data.data, offset + written)
        written += data.size
    promise = measured.promise(quantiser.asked)
    digest = hasher.hexdigest()
    if digest == part.digest:
        return _Outcome(step, promise)
    recipe = _recipe(quantiser, base, made)
    placed = replace(part, digest=digest, offset=offset)
    return _Outcome(replace(step, part=placed, location=str(scratch), candidates=(recipe,)), promise)


def _change(step: Step, base: Recipe, bases: Bases) -> Change:
    part = step.part
    element = ELEMENTS.get(part.dtype)
    word = np.dtype(np.uint8) if element is None else element.word
    shape = part.shape if element is not None and part.name else (part.size // word.itemsize,)

    def read(begin: int, end: int) -> tuple[Words, Words]:
        target, before = (np.empty(end - begin, word) for _ in range(2))
        first = begin * word.itemsize
        if end > begin:
            bases.files.read(step.location, target.data.cast("B"), part.offset + first)
            bases.read_into(base, first, before.data.cast("B"))
        return target, before

    return Change(part.name, part.dtype, shape, read)


def _recipe(quantiser: Quantiser, base: Recipe, made: MadeContents) -> Recipe:
    """What the approximated tensor is to be coded against."""
    parts, change = quantiser.parts, quantiser.change
    if parts is None or not isinstance(base, Whole):
        return base
    if isinstance(parts, Signs):
        signs = made.add(parts.signs, "OPAQUE")
        scales = made.add(parts.scales.tobytes(), "F32")
        rows = change.elements // parts.columns
        return SignScaleRecipe(base.digest, signs, scales, rows, parts.columns, change.dtype)
    return low_rank_recipe(base.digest, parts, change.dtype, made)
