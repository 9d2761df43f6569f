"""Asks the policy (`anchors`) what a push should code a new version against, with what manifests tell it.

The policy thinks of whole versions, a repository stores tensors. What counts are those that the push codes: their
chain in the parent's manifest is dealt out among the parent's ancestors, each content to the oldest that has it. So
the links add up to what a reader fetches and decodes for those tensors, however they came to be stored that way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from textnlp_fast.contents.inventory import Held
from textnlp_fast.contents.windows import DATA_ERRORS
from textnlp_fast.errors import InvalidInputError
from textnlp_fast.objectstore import ObjectStore
from textnlp_fast.storage.anchor_costs import Prices, Readers, VersionSizes
from textnlp_fast.storage.anchors import AnchorDecision, StoredVersion, choose_base
from textnlp_fast.storage.config import TransferOptions
from textnlp_fast.storage.manifest import Anchor, Content, Manifest, closure
from textnlp_fast.storage.planning import PushPlan
from textnlp_fast.storage.sampling import SampledSizes, based_steps, sample_sizes

__all__ = ["MAX_LINEAGE", "Choice", "choose_anchor", "decide", "read_lineage", "stored_versions"]

MAX_LINEAGE: Final = 32
"""Manifests that a decision looks at, the parent's among them: most a push has read already, to find what is stored."""

# No sum of sizes that a manifest claims may leave what prices can be multiplied by.
_LARGEST: Final = 1 << 56

FindManifest = Callable[[str, str], "Manifest | None"]


@dataclass(frozen=True, slots=True)
class Choice:
    """The version to code against (None: the new one is stored whole), and what the manifest says of it."""

    base: Manifest | None
    anchor: Anchor


def choose_anchor(
    store: ObjectStore,
    find: FindManifest,
    parent: Manifest,
    plan: PushPlan,
    held: Mapping[str, Held],
    options: TransferOptions,
) -> Choice | None:
    """What to code against instead of `parent`, for which `plan` was made, or `parent` itself.

    None where there is nothing to decide: without prices, if no new tensor has a base, or if the parent's bytes are
    damaged, which coding against it will say better.
    """
    if options.prices is None:
        return None
    try:
        sampled = sample_sizes(store, plan, held, parent.window_bytes, options)
    except DATA_ERRORS:
        return None
    if sampled is None:
        return None
    needed = closure(plan.reused, (base for _, base in based_steps(plan)))
    lineage = read_lineage(find, parent, needed)
    decision = decide(
        lineage, needed, sampled, options.prices, options.readers, max_bases=options.max_chain_depth
    )
    base = None if decision.base is None else lineage[decision.base]
    anchor = Anchor(
        base=None if base is None else (base.model, base.version),
        whole_bytes=sampled.whole_bytes,
        delta_bytes=sampled.delta_bytes,
        reason=_reason(decision, lineage),
    )
    return Choice(base, anchor)


def read_lineage(find: FindManifest, parent: Manifest, needed: Iterable[str]) -> list[Manifest]:
    """`parent` and the versions before it, oldest first, until they have all contents of `needed` among them.

    At most `MAX_LINEAGE`; ends before a version that is not there or cannot be read.
    """
    lineage = [parent]
    seen = {(parent.model, parent.version)}
    missing = set(needed) - parent.wanted()
    while missing and len(lineage) < MAX_LINEAGE:
        name = lineage[-1].parent
        if name is None or name in seen:
            break
        seen.add(name)
        try:
            older = find(*name)
        except (*DATA_ERRORS, InvalidInputError):
            break  # damaged, or no name at all; `verify` tells, and without it the chain only looks shorter
        if older is None:
            break
        lineage.append(older)
        missing -= older.wanted()
    return lineage[::-1]


def decide(
    lineage: Sequence[Manifest],
    needed: Mapping[str, Content],
    sampled: SampledSizes,
    prices: Prices,
    readers: Readers,
    *,
    max_bases: int,
) -> AnchorDecision:
    """The policy's decision for the version after `lineage`; bases are places in it. Pure."""
    new = VersionSizes(
        model_bytes=sampled.tensor_bytes,
        snapshot_bytes=sampled.whole_bytes,
        delta_bytes={len(lineage) - 1: sampled.delta_bytes},
    )
    return choose_base(stored_versions(lineage, needed), new, prices, readers, max_bases=max_bases)


def stored_versions(lineage: Sequence[Manifest], needed: Mapping[str, Content]) -> list[StoredVersion]:
    """How the contents of `needed` are stored, as the policy sees it: versions in the order of `lineage`.

    The chain are the first version, the last, and those between that bring contents of `needed`. What no version of
    the lineage has lies below all of them, with the first.
    """
    brought: list[set[str]] = []
    left = set(needed)
    for manifest in lineage:
        brought.append(left & manifest.wanted())
        left -= brought[-1]
    brought[0] |= left
    history: list[StoredVersion] = []
    below = 0
    for number, (manifest, own) in enumerate(zip(lineage, brought, strict=True)):
        coded = min(sum(needed[digest].coded_bytes for digest in own), _LARGEST)
        decoded = min(sum(needed[digest].size for digest in own), _LARGEST)
        if number == 0:
            history.append(StoredVersion(VersionSizes(model_bytes=decoded, snapshot_bytes=coded), None))
            continue
        deltas = {number - 1: _step_bytes(manifest)}
        base = number - 1
        if own or number == len(lineage) - 1:
            base, below = below, number
            deltas[base] = coded
        sizes = VersionSizes(model_bytes=decoded, snapshot_bytes=coded, delta_bytes=deltas)
        history.append(StoredVersion(sizes, base))
    return history


def _step_bytes(manifest: Manifest) -> int:
    """What the version takes, or would have taken, as a delta to the one before it."""
    known = manifest.anchor.delta_bytes if manifest.anchor is not None else manifest.stored_bytes
    return min(known, _LARGEST)


def _reason(decision: AnchorDecision, lineage: Sequence[Manifest]) -> str:
    """One line for people: what was chosen, and what the nearest other choice would have cost."""
    parent = lineage[-1]

    def against(place: int | None) -> str:
        if place is None:
            return "whole"
        one = lineage[place]
        return f"against {one.version if one.model == parent.model else f'{one.model}@{one.version}'}"

    best = decision.candidates[0]
    last = len(lineage) - 1
    other = next((one for one in decision.candidates[1:] if one.base in {None, last}), None)
    if other is None:
        return f"stored {against(best.base)}: no other base is near enough"
    return (
        f"stored {against(best.base)}: storing and restoring it and what follows would cost "
        f"{_times(other.expected_usd, best.expected_usd)} {against(other.base)}"
    )


def _times(other_usd: float, best_usd: float) -> str:
    """How much more, as people say it."""
    if other_usd <= best_usd:
        return "as much"
    if other_usd >= 2 * best_usd:
        return f"{other_usd / best_usd:.1f} times as much" if best_usd else "more"
    percent = 100 * (other_usd / best_usd - 1)
    return f"{percent:.1f} % more" if percent >= 0.05 else "hardly more"
