"""Decides what a push codes and what a pull reads. Pure: data in, data out; no file, no network, no clock."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from textnlp_fast.contents.entries import FileEntry
from textnlp_fast.contents.inventory import Held, LocalFile, LocalPart, file_entry
from textnlp_fast.delta.recipe import Recipe, Transposed, Whole, with_sources
from textnlp_fast.storage.base_costs import MAX_TURNED_WINDOWS, BaseCost, cost_above, cost_of
from textnlp_fast.storage.manifest import Content, Manifest, chain_of, closure

__all__ = [
    "CodeStep",
    "ParentBases",
    "PullPlan",
    "PullStep",
    "PushPlan",
    "adopt",
    "plan_pull",
    "plan_push",
    "pull_step",
]

# A chain taken over from another manifest may join one that is there already; beyond this it is coded anew.
MAX_ADOPTED_DEPTH: Final = 32
# Bytes that a reader decodes for each of a content that is coded anew, or taken over. Readers refuse twice the latter.
MAX_WORK: Final = 64
MAX_ADOPTED_WORK: Final = 128


@dataclass(frozen=True, slots=True)
class CodeStep:
    """A new content: read it from the local file, code it against what `base` makes (None: by itself)."""

    part: LocalPart
    location: str
    base: Recipe | None


@dataclass(frozen=True, slots=True)
class PushPlan:
    """`steps` are coded in this order; `reused` are in the repository already, closed under bases."""

    files: tuple[FileEntry, ...]
    steps: tuple[CodeStep, ...]
    reused: Mapping[str, Content]
    objects: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class PullStep:
    """How to make one content: take `start` (None: nothing) and decode `chain` over it, root first.

    An empty chain means that the machine holds the content itself. `targets` are (file number, offset) pairs. Where
    the root's base is a recipe, `sources` are the stored contents that it is made of, at whatever depth, and
    `from_files` says that some of what it is made of is held.
    """

    content: Content
    start: Held | None
    chain: tuple[Content, ...]
    targets: tuple[tuple[int, int], ...]
    sources: tuple[Content, ...] = ()
    from_files: bool = False

    @property
    def recipe(self) -> Recipe | None:
        """What the chain is decoded over, where that is not `start`."""
        return self.chain[0].base if self.start is None and self.chain else None

    @property
    def is_local(self) -> bool:
        """Whether local bytes have a part in it, which may not be what they were believed to be."""
        return self.start is not None or self.from_files

    @property
    def fetch_bytes(self) -> int:
        """What the repository is read for the chain; `sources` are shared with other steps, and read in part."""
        return sum(link.coded_bytes for link in self.chain)


@dataclass(frozen=True, slots=True)
class PullPlan:
    """`files` are the files to write; `steps` fill them."""

    files: tuple[FileEntry, ...]
    steps: tuple[PullStep, ...]

    @property
    def fetch_bytes(self) -> int:
        """What the repository is read at most, if nothing is read twice."""
        sources = {source.digest: source.coded_bytes for step in self.steps for source in step.sources}
        return sum(step.fetch_bytes for step in self.steps) + sum(sources.values())

    @property
    def write_bytes(self) -> int:
        return sum(entry.size for entry in self.files)


def adopt(contents: dict[str, Content], source: Mapping[str, Content], digest: str) -> bool:
    """Takes `digest` and its bases over from another manifest; False if they would ask too much of readers.

    Where a base is located already the walk stops: mixing chains of two manifests could otherwise close a
    cycle.
    """
    added: dict[str, Content] = {}
    waiting = [digest]
    while waiting:
        following = waiting.pop()
        if following not in contents and following not in added:
            added[following] = source[following]
            waiting.extend(source[following].bases)
    both = ChainMap(added, contents)
    if not cost_of(both, digest).within(most_bases=MAX_ADOPTED_DEPTH - 1, most_work=MAX_ADOPTED_WORK):
        return False
    contents.update(added)
    return True


def _folder(path: str) -> str:
    return path.rpartition("/")[0]


def _parent_names(parent: Manifest) -> dict[tuple[str, str, str], str]:
    """Digests of the parent by kind, folder (or path, for headers) and name; tensors also by name alone."""
    names: dict[tuple[str, str, str], str] = {}
    for entry in parent.files:
        if entry.kind != "safetensors":
            continue
        names["header", entry.path, ""] = entry.parts[0]
        folder = _folder(entry.path)
        for name, digest in zip(entry.names, entry.parts[1:], strict=True):
            names["tensor", folder, name] = digest
            names.setdefault(("anywhere", "", name), digest)
    return names


def plan_push(
    files: Sequence[LocalFile],
    parent: Manifest | None,
    known: Iterable[Manifest],
    *,
    delta: bool = True,
    max_chain_depth: int = 8,
    recipes: Mapping[str, Recipe] | None = None,
) -> PushPlan:
    """Which contents are new, and the base each of them is coded against.

    A content that a manifest of `known` locates is reused. A new tensor's base is the tensor of the same
    name, dtype and size in `parent`; else what `recipes` has for it, by digest, of tensors of `parent`. Where a
    chain is full, its root takes its place. Deterministic in its arguments.
    """
    names = _parent_names(parent) if parent is not None and delta else {}
    sources: dict[str, Manifest] = {}
    for manifest in ([parent] if parent is not None else []) + list(known):
        for digest in manifest.contents:
            sources.setdefault(digest, manifest)
    contents: dict[str, Content] = {}
    objects: dict[str, int] = {}
    steps: dict[str, CodeStep] = {}

    def take_over(source: Manifest, digest: str) -> bool:
        if not adopt(contents, source.contents, digest):
            return False
        for link in closure(contents, [digest]).values():
            for extent in link.extents:
                if extent.object not in objects and extent.object in source.objects:
                    objects[extent.object] = source.objects[extent.object]
        return True

    def usable(base: Recipe | None, target: str, source: Manifest) -> bool:
        """Whether the base can be taken over, and does not stand on what is coded against it."""
        if base is None or not all(take_over(source, name) for name in base.source_sizes()):
            return False
        if target in closure(contents, base.source_sizes()):
            return False
        # Chains of other manifests may be longer than the parent's.
        return isinstance(base, Whole) or _affordable(cost_above(contents, base))

    bases = ParentBases(parent, max_chain_depth) if parent is not None else None
    for file in files:
        for position, part in enumerate(file.parts):
            if part.digest in contents or part.digest in steps:
                continue
            source = sources.get(part.digest)
            if source is not None and take_over(source, part.digest):
                continue
            base: Recipe | None = None
            if file.kind == "safetensors" and parent is not None and bases is not None:
                wanted = ("tensor", _folder(file.path), part.name) if position else ("header", file.path, "")
                found = names.get(wanted, names.get(("anywhere", "", part.name)) if position else None)
                base = bases.by_name(part, found) or bases.by_recipe((recipes or {}).get(part.digest))
                if not usable(base, part.digest, parent):
                    base = None
            steps[part.digest] = CodeStep(part, file.location, base)
    return PushPlan(tuple(map(file_entry, files)), tuple(steps.values()), contents, objects)


def _affordable(cost: BaseCost) -> bool:
    return cost.within(most_bases=MAX_ADOPTED_DEPTH, most_work=MAX_WORK)


class ParentBases:
    """The bases that a parent's contents give, none of them standing on too many others."""

    def __init__(self, parent: Manifest, max_chain_depth: int) -> None:
        self._contents = parent.contents
        self._most_turned_bytes = MAX_TURNED_WINDOWS * parent.window_bytes
        self._max_chain_depth = max_chain_depth
        self._costs: dict[str, BaseCost] = {}

    def by_name(self, part: LocalPart, found: str | None) -> Recipe | None:
        if found is None or found not in self._contents:
            return None
        if self._contents[found].size != part.size or self._contents[found].dtype != part.dtype:
            return None
        digest = self._at_most(found)
        return None if digest is None else Whole(digest, part.size)

    def by_recipe(self, recipe: Recipe | None) -> Recipe | None:
        if recipe is None:
            return None
        if isinstance(recipe, Transposed) and recipe.size_bytes > self._most_turned_bytes:
            return None
        sources = {digest: self._at_most(digest) for digest in recipe.source_sizes()}
        chosen = {digest: other for digest, other in sources.items() if other is not None}
        if chosen.keys() != sources.keys():
            return None
        if any(digest != other for digest, other in chosen.items()):
            recipe = with_sources(recipe, chosen)
        return recipe if _affordable(cost_above(self._contents, recipe, self._costs)) else None

    def _at_most(self, digest: str) -> str | None:
        """The content, or its chain's root if the chain is full; None if that stands on too much as well."""
        if digest not in self._contents:
            return None
        if self._has_room(digest):
            return digest
        root = chain_of(self._contents, digest)[-1].digest
        return root if self._has_room(root) else None

    def _has_room(self, digest: str) -> bool:
        return cost_of(self._contents, digest, self._costs).bases < self._max_chain_depth


def plan_pull(
    manifest: Manifest, held: Mapping[str, Held], *, skip: frozenset[str] = frozenset()
) -> PullPlan:
    """The cheapest road, by bytes read from the repository, to every file but those in `skip`.

    A content has one chain of bases, so the cheapest road starts at the nearest link that the machine holds;
    where it has none, each source of the recipe at the chain's end is a road of its own.
    """
    files = tuple(entry for entry in manifest.files if entry.path not in skip)
    targets: dict[str, list[tuple[int, int]]] = {}
    for number, entry in enumerate(files):
        offset = 0
        for digest in entry.parts:
            size = manifest.contents[digest].size
            if size:
                targets.setdefault(digest, []).append((number, offset))
            offset += size
    steps = (
        replace(pull_step(manifest.contents, digest, held), targets=tuple(places))
        for digest, places in targets.items()
    )
    return PullPlan(files, tuple(steps))


def pull_step(contents: Mapping[str, Content], digest: str, held: Mapping[str, Held]) -> PullStep:
    """The road to one content, which goes nowhere yet."""
    start: Held | None = None
    chain: list[Content] = []
    for link in chain_of(contents, digest):
        start = held.get(link.digest)
        if start is not None:
            break
        chain.append(link)
    sources: dict[str, Content] = {}
    from_files = False
    waiting = list(chain[-1].bases) if start is None else []
    while waiting:
        name = waiting.pop()
        if name in held:
            from_files = True
        elif name not in sources:
            sources[name] = contents[name]
            waiting.extend(contents[name].bases)
    return PullStep(contents[digest], start, tuple(reversed(chain)), (), tuple(sources.values()), from_files)
