"""Decides what a push codes and what a pull reads. Pure: data in, data out; no file, no network, no clock."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from textnlp_fast.contents.entries import FileEntry
from textnlp_fast.contents.inventory import Held, LocalFile, LocalPart, file_entry
from textnlp_fast.storage.manifest import Content, Manifest, chain_of

__all__ = ["CodeStep", "PullPlan", "PullStep", "PushPlan", "adopt", "depth_of", "plan_pull", "plan_push"]

# A chain taken over from another manifest may join one that is there already; beyond this it is coded anew.
MAX_ADOPTED_DEPTH: Final = 32


@dataclass(frozen=True, slots=True)
class CodeStep:
    """A new content: read it from the local file, code it against `base` (None: by itself)."""

    part: LocalPart
    location: str
    base: str | None


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

    An empty chain means that the machine holds the content itself. `targets` are (file number, offset) pairs.
    """

    content: Content
    start: Held | None
    chain: tuple[Content, ...]
    targets: tuple[tuple[int, int], ...]

    @property
    def fetch_bytes(self) -> int:
        return sum(link.coded_bytes for link in self.chain)


@dataclass(frozen=True, slots=True)
class PullPlan:
    """`files` are the files to write; `steps` fill them."""

    files: tuple[FileEntry, ...]
    steps: tuple[PullStep, ...]

    @property
    def fetch_bytes(self) -> int:
        return sum(step.fetch_bytes for step in self.steps)

    @property
    def write_bytes(self) -> int:
        return sum(entry.size for entry in self.files)


def depth_of(contents: Mapping[str, Content], digest: str) -> int:
    """Number of bases below a content."""
    return len(chain_of(contents, digest)) - 1


def adopt(contents: dict[str, Content], source: Mapping[str, Content], digest: str) -> bool:
    """Takes `digest` and its bases over from another manifest; False if the chain would be too long.

    Where a base is located already the walk stops: mixing chains of two manifests could otherwise close a
    cycle.
    """
    added: list[Content] = []
    following: str | None = digest
    while following is not None and following not in contents:
        content = source[following]
        added.append(content)
        following = content.base
    below = 0 if following is None else depth_of(contents, following) + 1
    if below + len(added) > MAX_ADOPTED_DEPTH:
        return False
    contents.update((content.digest, content) for content in added)
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
        for name, digest in zip(entry.names, entry.parts[1:], strict=True):
            names["tensor", _folder(entry.path), name] = digest
            names.setdefault(("anywhere", "", name), digest)
    return names


def plan_push(
    files: Sequence[LocalFile],
    parent: Manifest | None,
    known: Iterable[Manifest],
    *,
    delta: bool = True,
    max_chain_depth: int = 8,
) -> PushPlan:
    """Which contents are new, and the base each of them is coded against.

    A content that a manifest of `known` locates is reused. A new tensor's base is the tensor of the same
    name, dtype and size in `parent`; where the chain below that is full, the chain's root. Deterministic in
    its arguments.
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
        for link in chain_of(contents, digest):
            for extent in link.extents:
                if extent.object not in objects and extent.object in source.objects:
                    objects[extent.object] = source.objects[extent.object]
        return True

    for file in files:
        for position, part in enumerate(file.parts):
            if part.digest in contents or part.digest in steps:
                continue
            source = sources.get(part.digest)
            if source is not None and take_over(source, part.digest):
                continue
            base = None
            if file.kind == "safetensors" and parent is not None:
                wanted = ("tensor", _folder(file.path), part.name) if position else ("header", file.path, "")
                found = names.get(wanted, names.get(("anywhere", "", part.name)) if position else None)
                base = _base_for(part, found, parent.contents, max_chain_depth)
                if base is not None and not take_over(parent, base):
                    base = None
                if base is not None and any(link.digest == part.digest for link in chain_of(contents, base)):
                    base = None
            steps[part.digest] = CodeStep(part, file.location, base)
    return PushPlan(tuple(map(file_entry, files)), tuple(steps.values()), contents, objects)


def _base_for(
    part: LocalPart, found: str | None, contents: Mapping[str, Content], max_chain_depth: int
) -> str | None:
    if found is None or found not in contents:
        return None
    if contents[found].size != part.size or contents[found].dtype != part.dtype:
        return None
    chain = chain_of(contents, found)
    return found if len(chain) <= max_chain_depth else chain[-1].digest


def plan_pull(
    manifest: Manifest, held: Mapping[str, Held], *, skip: frozenset[str] = frozenset()
) -> PullPlan:
    """The cheapest road, by bytes read from the repository, to every file but those in `skip`.

    A content has one chain of bases, so the cheapest road starts at the nearest link that the machine holds.
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
    steps = []
    for digest, places in targets.items():
        start: Held | None = None
        chain: list[Content] = []
        for link in chain_of(manifest.contents, digest):
            start = held.get(link.digest)
            if start is not None:
                break
            chain.append(link)
        steps.append(PullStep(manifest.contents[digest], start, tuple(reversed(chain)), tuple(places)))
    return PullPlan(files, tuple(steps))
