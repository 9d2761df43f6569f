"""Finds what new tensors of a push were made of, among the parent's tensors that have gone or changed their kind.

What names, types and shapes say is believed without a look. Of the rest two layers are compared by samples, and what
is found there is what the other layers do; only what is left then is searched for in full. Samples come out of the
repository window by window, so what they may read is bounded. Which tensors match depends on the two models alone,
not on where the parent's bytes are read from: a push that is repeated makes the same objects.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from textnlp_fast.contents.inventory import Held, LocalFile, LocalPart, coding_dtype
from textnlp_fast.contents.windows import DATA_ERRORS, OpenFiles
from textnlp_fast.delta.making import Maker
from textnlp_fast.delta.match import Tensor, match
from textnlp_fast.delta.moved import Piece
from textnlp_fast.delta.probing import BudgetSpent, castable
from textnlp_fast.delta.recipe import Cast, Pieces, Recipe, with_sources
from textnlp_fast.objectstore import ObjectStore
from textnlp_fast.storage.config import TransferOptions
from textnlp_fast.storage.headers import read_tensors
from textnlp_fast.storage.manifest import RECIPE_KINDS, Manifest, depth_of
from textnlp_fast.storage.object_windows import new_maker
from textnlp_fast.storage.planning import PushPlan

__all__ = ["find_recipes", "needs_recipes"]

# Less is not worth an entry of a recipe in the manifest.
_LEAST_BYTES: Final = 1 << 12
# Of the parent, for samples: windows as they are decoded, every link of a chain counted.
_MOST_SAMPLED_BYTES: Final = 2 << 30
# Layers of each kind of tensor that are looked at before the others.
_FIRST_LAYERS: Final = 2

_NUMBER = re.compile(r"(?:(?<=\.)|^)[0-9]{1,6}(?=\.|$)", re.ASCII)


def needs_recipes(plan: PushPlan) -> bool:
    """Whether a tensor of any size is to be coded by itself."""
    return any(map(_is_open, (step.part for step in plan.steps if step.base is None)))


def find_recipes(
    store: ObjectStore,
    parent: Manifest,
    plan: PushPlan,
    files: Sequence[LocalFile],
    held: Mapping[str, Held],
    options: TransferOptions,
) -> dict[str, Recipe]:
    """Recipes over contents of `parent` for the tensors that `plan` codes by themselves, by the tensors' digests.

    `files` are the new model's. `held` says where local files have contents of the parent; others are read from
    the repository. A parent that is damaged gives what can be found without what is damaged.
    """
    with OpenFiles() as opened:
        targets = [
            _target(step.part, step.location, opened)
            for step in plan.steps
            if step.base is None and _is_open(step.part)
        ]
        try:
            sources = _sources(store, parent, files, opened, held, options)
        except DATA_ERRORS:
            return {}  # shapes would only save space, and `verify` says what is wrong with the headers
        found = _by_metadata(sources, targets)
        _by_samples(sources, targets, found)
    return {digest: recipe for digest, recipe in found.items() if isinstance(recipe, RECIPE_KINDS)}


def _is_open(part: LocalPart) -> bool:
    return bool(part.name) and part.size >= _LEAST_BYTES


# --- tensors of both models -------------------------------------------------------------------------------


def _target(part: LocalPart, location: str, files: OpenFiles) -> Tensor:
    def read(begin: int, end: int) -> bytearray:
        data = bytearray(end - begin)
        with memoryview(data) as view:
            files.read(location, view, part.offset + begin)
        return data

    return Tensor(part.name, part.dtype, part.shape, part.digest, part.size, read)


def _sources(
    store: ObjectStore,
    parent: Manifest,
    files: Sequence[LocalFile],
    opened: OpenFiles,
    held: Mapping[str, Held],
    options: TransferOptions,
) -> list[Tensor]:
    """The parent's tensors but those that the new model has as well, or has changed under their name.

    Those are bases already, and in most pushes that is all of them: then nothing is read.
    """
    parts = [part for file in files if file.kind == "safetensors" for part in file.parts[1:]]
    taken = {part.digest for part in parts}
    kinds = {(part.name, part.size, part.dtype) for part in parts}
    left = [
        (entry.path, name, digest)
        for entry in parent.files
        if entry.kind == "safetensors"
        for name, digest in zip(entry.names, entry.parts[1:], strict=True)
        if digest not in taken and digest in parent.contents
    ]
    left = [
        (path, name, digest)
        for path, name, digest in left
        if (name, parent.contents[digest].size, parent.contents[digest].dtype) not in kinds
        and parent.contents[digest].size >= _LEAST_BYTES
    ]
    if not left:
        return []
    headers = read_tensors(store, parent, options)
    maker = new_maker(
        store,
        parent.contents,
        parent.window_bytes,
        opened,
        dict(held),
        budget_bytes=options.memory_budget_bytes,
        threads=options.thread_count,
        bounded=False,
    )
    sampler = _Sampler(parent, maker)
    tensors: dict[str, Tensor] = {}
    for path, name, digest in left:
        info = headers[path][name]
        size = parent.contents[digest].size
        dtype = coding_dtype(info.dtype)
        tensors.setdefault(name, Tensor(name, dtype, info.shape, digest, size, sampler.reader(digest)))
    return list(tensors.values())


class _Sampler:
    """Reads stretches of the parent's contents until the windows that they lie in add up to the budget.

    A window counts once, wherever it comes from: local files must not make a push find more.
    """

    def __init__(self, parent: Manifest, maker: Maker) -> None:
        self._parent = parent
        self._maker = maker
        self._seen: set[tuple[str, int]] = set()
        self._left_bytes = _MOST_SAMPLED_BYTES

    def reader(self, digest: str) -> Callable[[int, int], bytearray]:
        return lambda begin, end: self._read(digest, begin, end)

    def _read(self, digest: str, begin: int, end: int) -> bytearray:
        window_bytes = self._parent.window_bytes
        for window in range(begin // window_bytes, -(-end // window_bytes)):
            if (digest, window) not in self._seen:
                self._seen.add((digest, window))
                size = min(window_bytes, self._parent.contents[digest].size - window * window_bytes)
                self._left_bytes -= size * (1 + depth_of(self._parent.contents, digest))
        if self._left_bytes < 0:
            raise BudgetSpent
        return self._maker.read(digest, begin, end)


# --- what names, types and shapes say ---------------------------------------------------------------------


def _by_metadata(sources: Sequence[Tensor], targets: Sequence[Tensor]) -> dict[str, Recipe]:
    """Tensors of the same name that are of another type, or have more or fewer rows at their end."""
    by_name = {source.name: source for source in sources}
    found: dict[str, Recipe] = {}
    for target in targets:
        source = by_name.get(target.name)
        if source is None:
            continue
        if source.dtype != target.dtype:
            if castable(source.dtype, target.dtype) and source.elements == target.elements:
                found[target.digest] = Cast(source.digest, source.dtype, target.dtype, target.size_bytes)
        elif source.shape[1:] == target.shape[1:] and target.shape and source.shape:
            kept = min(source.size_bytes, target.size_bytes)
            rest = [Piece(None, 0, target.size_bytes - kept)] if target.size_bytes > kept else []
            found[target.digest] = Pieces((Piece(source.digest, 0, kept), *rest))
    return found


# --- what samples say -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Place:
    """A tensor's name with its first number taken out, and that number."""

    role: str
    layer: int | None


def _place(name: str) -> _Place:
    number = _NUMBER.search(name)
    if number is None:
        return _Place(name, None)
    return _Place(f"{name[: number.start()]}#{name[number.end() :]}", int(number[0]))


def _by_samples(sources: Sequence[Tensor], targets: Sequence[Tensor], found: dict[str, Recipe]) -> None:
    """Adds what samples and neighbouring layers tell to `found`."""
    targets = [target for target in targets if target.digest not in found]
    groups: dict[tuple[str, str, tuple[int, ...]], list[Tensor]] = {}
    for target in targets:
        groups.setdefault((_place(target.name).role, target.dtype, target.shape), []).append(target)
    firsts = []
    for group in groups.values():
        group.sort(key=lambda target: (_place(target.name).layer or 0, target.name))
        firsts += group[:_FIRST_LAYERS]
    layers = {_place(target.name).layer for target in firsts} | {None}
    near = [source for source in sources if _place(source.name).layer in layers]
    _match(near, firsts, found)
    others = _Others(sources)
    for group in groups.values():
        for target in group:
            if target.digest not in found:
                recipe = others.as_in(target, group, found)
                if recipe is not None:
                    found[target.digest] = recipe
    left = [target for target in targets if target.digest not in found]
    if len(near) == len(sources) and len(firsts) == len(targets):
        return
    used = {digest for recipe in found.values() for digest in recipe.source_sizes()}
    _match([source for source in sources if source.digest not in used], left, found)


def _match(sources: Sequence[Tensor], targets: Sequence[Tensor], found: dict[str, Recipe]) -> None:
    if not sources or not targets:
        return
    try:
        answers = match(sources, targets)
    except DATA_ERRORS:
        return  # a match would only save space, and `verify` says what is wrong with the parent
    for target, candidates in zip(targets, answers, strict=True):
        if candidates:
            found.setdefault(target.digest, candidates[0].recipe)


class _Others:
    """What is known of one layer, said of another."""

    def __init__(self, sources: Sequence[Tensor]) -> None:
        self._by_name = {source.name: source for source in sources}
        self._by_digest: dict[str, Tensor] = {}
        for source in sources:
            self._by_digest.setdefault(source.digest, source)

    def as_in(self, target: Tensor, group: Sequence[Tensor], found: Mapping[str, Recipe]) -> Recipe | None:
        """The recipe of another tensor of the group, made of the tensors that its sources are in this layer."""
        layer = _place(target.name).layer
        for known in group:
            recipe, known_layer = found.get(known.digest), _place(known.name).layer
            if recipe is None or layer is None or known_layer is None:
                continue
            names: dict[str, str] = {}
            for digest in recipe.source_sizes():
                other = self._moved(self._by_digest[digest], layer - known_layer)
                if other is not None:
                    names[digest] = other.digest
            return with_sources(recipe, names) if names.keys() == recipe.source_sizes().keys() else None
        return None

    def _moved(self, source: Tensor, layers: int) -> Tensor | None:
        """The same tensor so many layers further on, if there is one; itself if it is in no layer."""
        place = _place(source.name)
        if place.layer is None:
            return source
        other = self._by_name.get(place.role.replace("#", str(place.layer + layers), 1))
        if other is None or (other.dtype, other.shape) != (source.dtype, source.shape):
            return None
        return other
