"""Decides what a patch codes, against what, and in frames of which size.

Bases come from `match`, which guesses; where there is a choice, a sample is coded each way and the smallest wins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Final

from textnlp_fast.contents.inventory import Held, LocalFile, LocalPart
from textnlp_fast.contents.windows import OpenFiles
from textnlp_fast.delta import codec
from textnlp_fast.delta.match import Tensor, match
from textnlp_fast.delta.patch import HeldContent, Strategy
from textnlp_fast.delta.recipe import Recipe, Whole

__all__ = ["LEAST_FRAME_BYTES", "Bases", "Step", "choose", "plan_patch"]

# Large frames share one table among few changes; small ones follow a tensor whose weights differ from place to place.
_FRAME_BYTES: Final = {"dense": 1 << 18, "auto": 1 << 20, "sparse": 1 << 22}
LEAST_FRAME_BYTES: Final = min(_FRAME_BYTES.values())
# Coded to less than one part in this, a tensor has changed in few places.
_SPARSE: Final = 32
_SAMPLE_BYTES: Final = 1 << 22
_MOST_CANDIDATES: Final = 3


@dataclass(frozen=True, slots=True)
class Step:
    """A content to code: where it is, what it may be coded against (the best guess first), in which frames."""

    part: LocalPart
    location: str
    candidates: tuple[Recipe, ...]
    frame_bytes: int = _FRAME_BYTES["auto"]

    @property
    def base(self) -> Recipe | None:
        return self.candidates[0] if self.candidates else None


class Bases:
    """Makes bases out of contents in local files. Thread-safe."""

    def __init__(self, files: OpenFiles, places: Mapping[str, Held]) -> None:
        self.files = files
        self.places = places

    def read_into(self, recipe: Recipe, begin: int, out: memoryview) -> None:
        """Fills `out` with the base's bytes from `begin` on."""
        if isinstance(recipe, Whole):  # straight into place
            place = self.places[recipe.digest]
            self.files.read(place.location, out, place.offset + begin)
        else:
            recipe.read_into(begin, out, self._held)

    def _held(self, digest: str, begin: int, end: int) -> bytearray:
        place, data = self.places[digest], bytearray(end - begin)
        with memoryview(data) as view:
            self.files.read(place.location, view, place.offset + begin)
        return data


def plan_patch(
    source: Sequence[LocalFile], target: Sequence[LocalFile], files: OpenFiles, strategy: Strategy
) -> tuple[dict[str, HeldContent], list[Step]]:
    """The contents of the source, and those of the target that it lacks, each once, in the files' order.

    Deterministic in the files.
    """
    held = {part.digest: HeldContent(part.size, part.dtype) for file in source for part in file.parts}
    headers = {file.path: file.parts[0] for file in source if file.kind == "safetensors"}
    frame_bytes = _FRAME_BYTES.get(strategy, _FRAME_BYTES["auto"])
    steps: dict[str, Step] = {}
    for file in target:
        for position, part in enumerate(file.parts):
            if part.digest in held or part.digest in steps:
                continue
            candidates: tuple[Recipe, ...] = ()
            if file.kind == "safetensors" and position == 0:
                header = headers.get(file.path)
                if header is not None and header.size == part.size:
                    candidates = (Whole(header.digest, header.size),)
            steps[part.digest] = Step(part, file.location, candidates, frame_bytes)
    new = [tensor for tensor in _tensors(target, files) if tensor.digest in steps]
    for tensor, found in zip(new, match(list(_tensors(source, files)), new), strict=True):
        step = steps[tensor.digest]
        if not step.candidates and found:
            recipes = tuple(candidate.recipe for candidate in found[:_MOST_CANDIDATES])
            steps[tensor.digest] = replace(step, candidates=recipes)
    return held, list(steps.values())


def _tensors(model: Sequence[LocalFile], files: OpenFiles) -> Iterator[Tensor]:
    def reader(location: str, offset: int) -> Callable[[int, int], bytearray]:
        def read(begin: int, end: int) -> bytearray:
            data = bytearray(end - begin)
            with memoryview(data) as view:
                files.read(location, view, offset + begin)
            return data

        return read

    for file in model:
        if file.kind == "safetensors":
            for part in file.parts[1:]:
                if part.size:
                    read = reader(file.location, part.offset)
                    yield Tensor(part.name, part.dtype, part.shape, part.digest, part.size, read)


def choose(
    steps: Sequence[Step], files: OpenFiles, bases: Bases, *, sample_bytes: int, threads: int
) -> list[Step]:
    """The steps with the base and the frames that make a sample smallest."""

    def chosen(step: Step) -> Step:
        if not step.part.size:
            return step
        sample = _Sample(step, files, bases, min(sample_bytes, _SAMPLE_BYTES))
        best, size = step.candidates, sample.size_against(step.base, step.frame_bytes)
        for recipe in step.candidates[1:]:
            other = sample.size_against(recipe, step.frame_bytes)
            if other < size:
                best, size = (recipe,), other
        base = best[0] if best else None
        frame_bytes = _FRAME_BYTES["sparse" if size * _SPARSE < sample.size_bytes else "dense"]
        if min(frame_bytes, step.frame_bytes) >= sample.size_bytes:
            return replace(step, candidates=best)
        if sample.size_against(base, frame_bytes) >= size:
            frame_bytes = step.frame_bytes
        return replace(step, candidates=best, frame_bytes=frame_bytes)

    with ThreadPoolExecutor(threads, thread_name_prefix="textnlp-fast-plan") as pool:
        return list(pool.map(chosen, steps))


class _Sample:
    """The middle of a content, and what it takes when coded one way or another."""

    def __init__(self, step: Step, files: OpenFiles, bases: Bases, most_bytes: int) -> None:
        part = step.part
        self.size_bytes = min(part.size, most_bytes)
        # Whole elements of every type, and of every recipe.
        self._begin = (part.size - self.size_bytes) // 2 // 64 * 64
        self._dtype = part.coded_as
        self._bases = bases
        self._data = bytearray(self.size_bytes)
        self._base = bytearray(self.size_bytes)
        self._filled: Recipe | None = None
        with memoryview(self._data) as view:
            files.read(step.location, view, part.offset + self._begin)

    def size_against(self, recipe: Recipe | None, frame_bytes: int) -> int:
        """Bytes that the sample takes."""
        if recipe is not None and recipe is not self._filled:
            with memoryview(self._base) as view:
                self._bases.read_into(recipe, self._begin, view)
            self._filled = recipe
        base = None if recipe is None else self._base
        out = bytearray(codec.encode_bound(self.size_bytes, frame_size_bytes=frame_bytes))
        return codec.encode_into(
            self._data, out, base, dtype=self._dtype, frame_size_bytes=frame_bytes, threads=1
        )
