"""What a push does with a model's bytes, and what else it could do: sizes, seconds, dollars. Pure.

A push picks by itself: what the repository has is not stored again; a tensor that a version before has is coded against
that; others by themselves; what would not get smaller is stored as it is; files that are no tensors are cut by content;
and all of it is packed into objects.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from textnlp_fast.delta.recipe import Whole
from textnlp_fast.storage.anchor_costs import Prices, Readers
from textnlp_fast.storage.config import TransferOptions
from textnlp_fast.storage.manifest import closure
from textnlp_fast.storage.plain_contents import LEAST_SAVING
from textnlp_fast.storage.planning import CodeStep, PushPlan

__all__ = [
    "Feature",
    "FeatureUse",
    "Forecast",
    "Option",
    "Speeds",
    "choose",
    "feature_of",
    "features_of",
    "options_of",
    "reason_for",
    "stored_by_feature",
]

Feature = Literal["deduplicate", "delta", "layout", "standalone", "plain", "chunks", "shard"]

_GB: Final = 1e9


@dataclass(frozen=True, slots=True)
class FeatureUse:
    """What was done in one way: how many contents of how many bytes, what they take stored, and why.

    For "shard" the contents are the objects that all others were packed into.
    """

    feature: Feature
    contents: int
    raw_bytes: int
    stored_bytes: int
    reason: str


@dataclass(frozen=True, slots=True)
class Option:
    """One way to store a version's new contents: what it would take. Dollars are those of keeping and restoring it.

    `allowed` is False where the configuration rules it out.
    """

    name: Literal["delta", "standalone", "plain"]
    stored_bytes: int
    seconds: float
    usd: float
    allowed: bool = True


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a push would do. Sizes in bytes, estimated on samples; nothing was written.

    `options` are what it could do, `chosen` is what it will; `cheapest` is the least dear of those that are allowed,
    by itself: what is chosen also minds the versions to come, and `reason` says how.
    """

    model: str
    version: str
    parent: str | None
    base: str | None
    raw_bytes: int
    new_bytes: int
    stored_bytes: int
    seconds: float
    usd: float
    features: tuple[FeatureUse, ...]
    options: tuple[Option, ...]
    chosen: str
    reason: str
    already_there: bool = False

    @property
    def cheapest(self) -> str | None:
        return choose(self.options).name if self.options else None


def choose(options: Sequence[Option]) -> Option:
    """The option that costs least; of equals the one that takes less space. One at least is allowed."""
    return min((one for one in options if one.allowed), key=lambda one: (one.usd, one.stored_bytes))


def feature_of(step: CodeStep, plain: frozenset[str]) -> Feature:
    """What is done with a new content."""
    if step.base is not None:
        return "delta" if isinstance(step.base, Whole) else "layout"
    if step.part.digest in plain:
        return "plain"
    return "standalone" if step.part.name else "chunks"


def stored_by_feature(plan: PushPlan, plain: frozenset[str], sizes: Sequence[int]) -> dict[Feature, int]:
    """What the contents of each kind take; `sizes` are those of the plan's steps as they are stored."""
    stored: dict[Feature, int] = {}
    for step, size in zip(plan.steps, sizes, strict=True):
        feature = feature_of(step, plain)
        stored[feature] = stored.get(feature, 0) + size
    return stored


def features_of(
    plan: PushPlan,
    plain: frozenset[str],
    stored: Mapping[Feature, int],
    options: TransferOptions,
    *,
    raw_bytes: int,
    objects: int,
) -> tuple[FeatureUse, ...]:
    """What becomes of a model of `raw_bytes`; `stored` are the bytes that contents of each kind take."""
    found: dict[Feature, list[CodeStep]] = {}
    for step in plan.steps:
        found.setdefault(feature_of(step, plain), []).append(step)
    new_bytes = sum(step.part.size for step in plan.steps)
    uses: list[FeatureUse] = []
    if raw_bytes > new_bytes:
        parts = sum(len(entry.parts) for entry in plan.files)
        reason = reason_for("deduplicate", options)
        uses.append(FeatureUse("deduplicate", parts - len(plan.steps), raw_bytes - new_bytes, 0, reason))
    order: tuple[Feature, ...] = ("delta", "layout", "standalone", "plain", "chunks")
    for feature in order:
        steps = found.get(feature)
        if steps:
            raw = sum(step.part.size for step in steps)
            uses.append(
                FeatureUse(feature, len(steps), raw, stored.get(feature, 0), reason_for(feature, options))
            )
    total = sum(use.stored_bytes for use in uses)
    if total:
        uses.append(FeatureUse("shard", objects, new_bytes, total, reason_for("shard", options)))
    return tuple(uses)


def reason_for(feature: Feature, options: TransferOptions) -> str:
    """Why contents are treated so, in a line."""
    if feature == "plain":
        if not options.compression:
            return "compression is off"
        return f"on samples, coding saves less than {LEAST_SAVING:.0%}"
    if feature == "shard":
        if not options.sharding:
            return "an object for each coded window: sharding is off"
        return f"small ones share objects of up to {options.shard_bytes / 1e6:.0f} MB"
    if feature == "standalone" and not options.delta:
        return "coded by themselves: versioning is off"
    return {
        "deduplicate": "the repository has them, or the model has them twice",
        "delta": "an earlier version has a tensor of this name, type and size",
        "layout": "made of tensors of the parent: fused, split, renamed, grown, transposed or cast",
        "standalone": "no earlier tensor to code them against, or that would cost more",
        "chunks": "no tensors: cut by content, so that parts that stay are found again",
    }[feature]


@dataclass(frozen=True, slots=True)
class Speeds:
    """Bytes of the model a second, measured on samples or assumed: coding, and copying."""

    coding: float
    plain: float = 2e9


def options_of(
    plan: PushPlan,
    sizes: Mapping[str, int],
    speeds: Speeds,
    prices: Prices,
    readers: Readers,
    *,
    delta_allowed: bool,
    coding_allowed: bool,
) -> tuple[Option, ...]:
    """The ways to store the new contents. `sizes` are their bytes stored as "delta" (if they can be), "standalone" and
    "plain"."""
    new_bytes = sum(step.part.size for step in plan.steps)
    bases = closure(
        plan.reused,
        (name for step in plan.steps if step.base is not None for name in step.base.source_sizes()),
    )
    below = sum(content.coded_bytes for content in bases.values())
    depth = sum(content.size for content in bases.values())

    def option(name: Literal["delta", "standalone", "plain"], allowed: bool) -> Option:
        stored = sizes[name]
        speed = speeds.plain if name == "plain" else speeds.coding
        seconds = new_bytes / speed + stored / _GB / prices.bandwidth_gb_per_s
        decoded = 0 if name == "plain" else new_bytes
        usd = prices.store_usd(stored) + readers.reads_per_version * prices.link_usd(stored, decoded)
        if name == "delta":  # who holds nothing fetches and decodes what it stands on as well
            usd += readers.reads_per_version * readers.fresh * prices.link_usd(below, depth)
        return Option(name, stored, seconds, usd, allowed)

    found = [option("standalone", coding_allowed), option("plain", True)]
    if "delta" in sizes:
        found.insert(0, option("delta", delta_allowed and coding_allowed))
    if not coding_allowed:
        return tuple(found)
    # Plain is for what does not get smaller; for a whole version it is only there to compare with.
    return tuple(replace(one, allowed=one.allowed and one.name != "plain") for one in found)
