"""What a push settles before it codes anything: which version its new tensors go against, and what is at hand of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from textnlp_fast.contents.entries import FileEntry
from textnlp_fast.contents.inventory import Held, LocalFile, take_inventory
from textnlp_fast.errors import VersionExistsError
from textnlp_fast.objectstore import ObjectStore
from textnlp_fast.storage.anchoring import Choice, choose_anchor
from textnlp_fast.storage.config import TransferOptions
from textnlp_fast.storage.manifest import Manifest
from textnlp_fast.storage.matching import find_recipes, needs_recipes
from textnlp_fast.storage.planning import PushPlan
from textnlp_fast.storage.surroundings import Surroundings, intact, missing_objects
from textnlp_fast.storage.version_manager import VersionManager

if TYPE_CHECKING:
    from textnlp_fast.storage.push import PushRequest

__all__ = ["base_inventory", "held_of", "refuse_other_files", "settle"]


def settle(
    store: ObjectStore,
    versions: VersionManager,
    around: Surroundings,
    plan: PushPlan,
    held: Mapping[str, Held],
    *,
    existing: Manifest | None,
    free: bool,
) -> tuple[PushPlan, Choice | None]:
    """The plan to carry out, and why it goes against what it does, if that was decided (where it is `free`).

    A new layout goes against the parent whatever that costs: prices are asked about tensors that kept theirs.
    """
    parent, options = around.parent, around.options
    if parent is None or not around.delta:
        return plan, None
    # A version that was decided by prices had no recipes: a repeated push must not find any either.
    if needs_recipes(plan) and (existing is None or existing.anchor is None):
        recipes = find_recipes(store, intact(parent, around.missing), plan, around.files, held, options)
        if recipes:
            return around.plan(parent, recipes), None
    if existing is not None or not free:
        return plan, None
    choice = choose_anchor(store, versions.find, parent, plan, held, options)
    if choice is None or choice.base is parent:
        return plan, choice
    unasked = [one for one in (choice.base,) if all(one is not other for other in around.known)]
    missing = around.missing | missing_objects(store, unasked, options.thread_count, around.publication)
    return replace(around, known=[parent, *around.known], missing=missing).plan(choice.base), choice


def refuse_other_files(existing: Manifest, files: Sequence[FileEntry]) -> None:
    """Raises VersionExistsError if these are not the files of the version that is there."""
    if not existing.same_files(replace(existing, files=tuple(files))):
        raise VersionExistsError(
            f"{existing.model}@{existing.version} is published already, with other files"
        )


def base_inventory(
    request: PushRequest, parent: Manifest | None, plan: PushPlan, options: TransferOptions
) -> list[LocalFile]:
    """What the caller has of the parent, if the plan has any use for it."""
    if request.base_path is None or parent is None:
        return []
    if not needs_recipes(plan) and not any(step.base for step in plan.steps):
        return []
    return take_inventory(request.base_path, threads=options.thread_count)


def held_of(files: Sequence[LocalFile]) -> dict[str, Held]:
    """Where the contents of local files are, by digest."""
    return {part.digest: Held(file.location, part.offset) for file in files for part in file.parts}
