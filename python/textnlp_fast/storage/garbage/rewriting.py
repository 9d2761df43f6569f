"""Stores published versions anew: the same files, other objects. The manifest gives way to one that names those.

`docs/decisions/0020-manifests-that-give-way.md` says why a manifest may, and what readers see of it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from textnlp_fast.contents.windows import ProgressCallback
from textnlp_fast.errors import MissingObjectError
from textnlp_fast.objectstore import ObjectStore
from textnlp_fast.storage.anchor_costs import Prices
from textnlp_fast.storage.config import DEFAULT_PRICES, TransferOptions
from textnlp_fast.storage.garbage.rebasing import Proposal, propose
from textnlp_fast.storage.garbage.usage import Usage, VersionFacts
from textnlp_fast.storage.names import precedence
from textnlp_fast.storage.pull import pull_model
from textnlp_fast.storage.push import PushRequest, rewrite_model
from textnlp_fast.storage.version_manager import VersionManager

__all__ = ["carry_out", "proposals"]


def proposals(
    versions: VersionManager,
    usage: Usage,
    staying: list[VersionFacts],
    sizes: dict[str, int],
    prices: Prices | None,
) -> Iterator[Proposal]:
    """What to store anew once only `staying` versions are there; `sizes` are those of the stored objects."""
    by_model: dict[str, list[VersionFacts]] = {}
    for facts in staying:
        by_model.setdefault(facts.model, []).append(facts)
    for model, group in sorted(by_model.items()):
        elsewhere = [facts.objects for facts in staying if facts.model != model]
        shared = frozenset().union(*elsewhere, *(intent.objects for intent in usage.intents))
        group.sort(key=lambda facts: precedence(facts.version))
        try:
            manifests = [versions.load_fresh(model, facts.version) for facts in group]
        except MissingObjectError:
            continue  # one was deleted meanwhile: the next run sees to it
        proposal = propose(manifests, sizes, shared, prices or DEFAULT_PRICES)
        if proposal is not None:
            yield proposal


def carry_out(
    store: ObjectStore,
    versions: VersionManager,
    options: TransferOptions,
    proposal: Proposal,
    alive: Callable[[], None],
    progress: ProgressCallback | None = None,
) -> int:
    """Stores the versions anew, each by way of a folder of temporary files; returns the bytes that it added.

    Stopped in between, each version is as it was or as it is to be.
    """
    added = 0
    for version in proposal.versions:
        alive()
        with tempfile.TemporaryDirectory(prefix="textnlp-fast-gc-") as folder:
            try:
                manifest = versions.load_fresh(proposal.model, version)
            except MissingObjectError:
                continue  # deleted meanwhile
            pull_model(store, manifest, Path(folder) / "model", options, progress=progress)
            request = PushRequest(path=Path(folder) / "model", name=proposal.model, version=version)
            report = rewrite_model(store, versions, request, options, proposal.unwanted, progress)
            added += report.uploaded_bytes
    return added
