"""What the repository has that a push can build on, and what of it is missing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from textnlp_fast.contents.inventory import LocalFile
from textnlp_fast.contents.windows import DATA_ERRORS
from textnlp_fast.delta.recipe import Recipe
from textnlp_fast.errors import ModelNotFoundError, VersionNotFoundError
from textnlp_fast.objectstore import ObjectStore, local_folder
from textnlp_fast.storage.config import TransferOptions
from textnlp_fast.storage.extents import is_whole
from textnlp_fast.storage.manifest import Manifest, closure
from textnlp_fast.storage.planning import PushPlan, plan_push
from textnlp_fast.storage.publication import Publication
from textnlp_fast.storage.version_manager import VersionManager
from textnlp_fast.telemetry import adopting

if TYPE_CHECKING:
    from textnlp_fast.storage.push import PushRequest

__all__ = ["Surroundings", "found_by", "intact", "known_manifests", "missing_objects", "readable_manifests"]

# Manifests that are searched for contents the repository has already.
_KNOWN_VERSIONS = 64
_KNOWN_MODELS = 256
# So few objects of a folder are looked at one after the other.
_FEW = 16


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What plans are made from. Nothing new may be built on `missing` objects."""

    files: Sequence[LocalFile]
    parent: Manifest | None
    known: Sequence[Manifest]
    missing: set[str]
    options: TransferOptions
    publication: Publication

    @property
    def delta(self) -> bool:
        return self.options.delta and self.options.compression

    def plan(self, base: Manifest | None, recipes: Mapping[str, Recipe] | None = None) -> PushPlan:
        return plan_push(
            self.files,
            _without(base, self.missing),
            [intact(manifest, self.missing) for manifest in self.known],
            delta=self.delta,
            max_chain_depth=self.options.max_chain_depth,
            recipes=recipes,
        )


def known_manifests(versions: VersionManager, request: PushRequest) -> Iterator[Manifest]:
    """Manifests whose contents need not be stored again: this model's, and the newest of the others."""
    models = versions.models()
    own = reversed(models.pop(request.name, [])[-_KNOWN_VERSIONS:])
    wanted = [(request.name, version) for version in own if version != request.version]
    wanted += [(name, models[name][-1]) for name in list(models)[:_KNOWN_MODELS]]
    yield from readable_manifests(versions, wanted)


def readable_manifests(versions: VersionManager, wanted: Iterable[tuple[str, str]]) -> Iterator[Manifest]:
    """Those that can be read: to know them only saves space; `verify` names what is damaged, others may be deleted."""
    for name, version in wanted:
        with suppress(*DATA_ERRORS, VersionNotFoundError, ModelNotFoundError):
            yield versions.manifest(name, version)


def found_by(existing: Manifest) -> Manifest:
    """The version without what its own push stored: coding that again makes the same objects again."""
    found = {
        digest: content
        for digest, content in existing.contents.items()
        if not any(extent.object in existing.new_objects for extent in content.extents)
    }
    return replace(existing, contents=closure(existing.contents, found))


def missing_objects(
    store: ObjectStore,
    manifests: Sequence[Manifest | None],
    threads: int,
    publication: Publication,
) -> set[str]:
    """Objects that the repository lacks, has in another size than manifests say, or is about to delete.

    Nothing new may be built on those.
    """
    named = {pair for manifest in manifests if manifest is not None for pair in manifest.objects.items()}
    gone = publication.gone(digest for digest, _ in named)
    return gone | _absent(store, {pair for pair in named if pair[0] not in gone}, threads)


def _absent(store: ObjectStore, named: set[tuple[str, int]], threads: int) -> set[str]:
    if len(named) > 4096:  # one listing is cheaper than so many questions
        present = {(meta.key.rpartition("/")[2], meta.size) for meta in store.list("objects")}
        return {digest for digest, _ in named - present}
    if len(named) <= _FEW and local_folder(store.url) is not None:
        # A look at a file takes less than handing it to a thread.
        return {digest for digest, size in named if not is_whole(store, digest, size)}
    with ThreadPoolExecutor(min(32, 4 * threads), initializer=adopting()) as pool:
        ordered = sorted(named)
        found = pool.map(lambda pair: is_whole(store, *pair), ordered)
        return {digest for (digest, _), whole in zip(ordered, found, strict=True) if not whole}


def intact(manifest: Manifest, missing: set[str]) -> Manifest:
    """The manifest without the contents that need a missing object."""
    if not missing & manifest.objects.keys():
        return manifest
    whole = {
        digest: content
        for digest, content in manifest.contents.items()
        if not any(
            extent.object in missing
            for link in closure(manifest.contents, [digest]).values()
            for extent in link.extents
        )
    }
    return replace(manifest, contents=whole)


def _without(manifest: Manifest | None, missing: set[str]) -> Manifest | None:
    return None if manifest is None else intact(manifest, missing)
