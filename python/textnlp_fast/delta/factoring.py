"""Which steps of a patch are coded against a low-rank base: a merged adapter, known or found from the two ends.

Only matrices that have the same shape and type on both sides are looked at, a sample of their rows first, and one at a
time: planning reads both ends of one whole.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from textnlp_fast.contents.inventory import Held, LocalFile
from textnlp_fast.contents.windows import OpenFiles, Progress, ProgressCallback
from textnlp_fast.delta import codec
from textnlp_fast.delta.adapters import Adapter, AdapterModule, read_adapter
from textnlp_fast.delta.low_rank import RESULT_DTYPES, Factors
from textnlp_fast.delta.low_rank_detection import FIRST_LOOK, SECOND_LOOK, detect_rank, evenly
from textnlp_fast.delta.low_rank_planning import plan_low_rank
from textnlp_fast.delta.low_rank_recovery import effort_of
from textnlp_fast.delta.made_contents import MadeContents
from textnlp_fast.delta.planning import Bases, Step
from textnlp_fast.delta.recipe import LowRank, Whole
from textnlp_fast.delta.rounding_intervals import Words, words_of

__all__ = ["FactorSearch", "low_rank_recipe"]

# What a fit takes for each element of its sample, and what coding and predicting windows takes besides.
_SAMPLE_BYTES: Final = 60
_WINDOWS_BYTES: Final = 64 << 20


@dataclass(frozen=True, slots=True)
class _Matrix:
    """A step that may be coded against factors, and where its base is."""

    step: Step
    base: Held
    base_digest: str
    shape: tuple[int, int]

    @property
    def dtype(self) -> str:
        return self.step.part.dtype


class FactorSearch:
    """Looks for factors with an effort, and with an adapter's where one was given.

    Raises what `read_adapter` raises, and InvalidInputError for an unknown effort.
    """

    def __init__(self, *, adapter: str | os.PathLike[str] | None = None, effort: str = "default") -> None:
        self._effort = effort
        self._work = effort_of(effort)
        self._adapter: Adapter | None = None if adapter is None else read_adapter(adapter)
        self.too_large = 0
        """Matrices that were passed over, for the memory is too small to look at them."""

    def run(
        self,
        steps: Sequence[Step],
        target: Sequence[LocalFile],
        bases: Bases,
        made: MadeContents,
        *,
        memory_budget_bytes: int,
        threads: int,
        progress: ProgressCallback | None,
    ) -> list[Step]:
        """The steps, those that factors make smaller against them. The factors go to `made`."""
        modules = self._modules(target)
        found: list[Step] = []
        total, done = sum(step.part.size for step in steps), 0
        for step in steps:
            matrix = _matrix(step, bases.places)
            module = modules.get(step.part.digest)
            if matrix is not None and self._needs_bytes(matrix) > memory_budget_bytes:
                self.too_large += module is not None or self._is_promising(matrix, bases.files)
            elif matrix is not None and (module is not None or self._is_promising(matrix, bases.files)):
                step = self._planned(matrix, module, bases.files, made, threads)  # noqa: PLW2901
            found.append(step)
            done += step.part.size
            if progress is not None:
                progress(Progress("factors", done, total))
        return found

    def _modules(self, target: Sequence[LocalFile]) -> dict[str, AdapterModule]:
        """The adapter's modules by the digest of what they changed."""
        if self._adapter is None:
            return {}
        digests = {part.name: part.digest for file in target for part in file.parts if part.name}
        return {digests[name]: module for name, module in self._adapter.match(digests).items()}

    def _needs_bytes(self, matrix: _Matrix) -> int:
        rows, columns = matrix.shape
        sample = min(rows * columns, max(self._work.sample_elements, 4 * columns))
        return 2 * matrix.step.part.size + _SAMPLE_BYTES * sample + _WINDOWS_BYTES

    def _is_promising(self, matrix: _Matrix, files: OpenFiles) -> bool:
        """Whether some of the rows look like a change of low rank."""
        rows, columns = matrix.shape
        row_bytes = matrix.step.part.size // rows
        chosen = evenly(rows, SECOND_LOOK if self._work.thorough else FIRST_LOOK)

        def some(place: Held) -> Words:
            data = bytearray(len(chosen) * row_bytes)
            with memoryview(data) as view:
                for number, row in enumerate(chosen.tolist()):
                    out = view[number * row_bytes : (number + 1) * row_bytes]
                    files.read(place.location, out, place.offset + row * row_bytes)
            return words_of(data, matrix.dtype).reshape(len(chosen), columns)

        here = Held(matrix.step.location, matrix.step.part.offset)
        rank = detect_rank(some(matrix.base), some(here), matrix.dtype, thorough=self._work.thorough)
        return rank > 0

    def _planned(
        self,
        matrix: _Matrix,
        module: AdapterModule | None,
        files: OpenFiles,
        made: MadeContents,
        threads: int,
    ) -> Step:
        step = matrix.step
        base, target = bytearray(step.part.size), bytearray(step.part.size)
        with memoryview(base) as view:
            files.read(matrix.base.location, view, matrix.base.offset)
        with memoryview(target) as view:
            files.read(step.location, view, step.part.offset)
        adapter: Factors | None = None
        if module is not None and self._adapter is not None:
            adapter = self._adapter.factors(module)
        plan = plan_low_rank(
            base, target, matrix.shape, matrix.dtype, adapter=adapter, effort=self._effort, threads=threads
        )
        if plan is None:
            return step
        recipe = low_rank_recipe(matrix.base_digest, plan.factors, matrix.dtype, made)
        # The plan's sizes are those of such frames.
        return replace(step, candidates=(recipe,), frame_bytes=codec.DEFAULT_FRAME_SIZE_BYTES)


def low_rank_recipe(digest: str, factors: Factors, dtype: str, made: MadeContents) -> LowRank:
    """The recipe that adds the factors, which go to `made`, to a content of that type."""
    return LowRank(
        digest,
        made.add(factors.a, factors.a_dtype),
        made.add(factors.b, factors.b_dtype),
        factors.rows,
        factors.columns,
        factors.rank,
        factors.scale,
        dtype,
        factors.a_dtype,
        factors.b_dtype,
        factors.rounding,
    )


def _matrix(step: Step, places: Mapping[str, Held]) -> _Matrix | None:
    part, base = step.part, step.base
    if len(part.shape) != 2 or part.dtype not in RESULT_DTYPES or not part.size:
        return None
    if not isinstance(base, Whole):
        return None
    return _Matrix(step, places[base.digest], base.digest, (part.shape[0], part.shape[1]))
