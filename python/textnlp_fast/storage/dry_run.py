"""What a push would do, found out as a push does it, and nothing written."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Final

from textnlp_fast.contents.inventory import Held, take_inventory
from textnlp_fast.contents.windows import BufferPool, OpenFiles, ProgressCallback
from textnlp_fast.delta import codec
from textnlp_fast.errors import RepositoryNotFoundError
from textnlp_fast.objectstore import ObjectStore
from textnlp_fast.storage.anchoring import Choice
from textnlp_fast.storage.config import DEFAULT_PRICES, TransferOptions
from textnlp_fast.storage.features import (
    Feature,
    Forecast,
    Speeds,
    feature_of,
    features_of,
    options_of,
)
from textnlp_fast.storage.manifest import Manifest
from textnlp_fast.storage.parents import parent_of
from textnlp_fast.storage.plain_contents import plain_contents
from textnlp_fast.storage.planning import CodeStep, PushPlan, plan_push
from textnlp_fast.storage.publication import Publication
from textnlp_fast.storage.push import PushRequest
from textnlp_fast.storage.sampling import SampledSizes, sample_sizes
from textnlp_fast.storage.settling import base_inventory, held_of, settle
from textnlp_fast.storage.surroundings import Surroundings, known_manifests, missing_objects
from textnlp_fast.storage.version_manager import VersionManager, check_name, check_version

__all__ = ["forecast_push"]

_SLICE_BYTES: Final = 1 << 20
# Of contents that are coded by themselves: up to this much is coded to see what all of them take.
_MOST_BYTES: Final = 32 << 20
# What coding does where nothing was there to measure it on.
_USUAL_SPEED: Final = 1e9
_GOLDEN: Final = 0x9E3779B97F4A7C15


def forecast_push(
    store: ObjectStore,
    versions: VersionManager,
    request: PushRequest,
    options: TransferOptions,
    progress: ProgressCallback | None = None,
) -> Forecast:
    """What pushing the files at `request.path` would store, in which way and why. Nothing is written.

    A repository that is not there yet is taken for an empty one. Raises what a push raises before it uploads.
    """
    check_name(request.name)
    check_version(request.version)
    started = time.monotonic()
    files = take_inventory(request.path, threads=options.thread_count, progress=progress)
    hashing_s = time.monotonic() - started
    held: Mapping[str, Held] = {}
    parent: Manifest | None = None
    choice: Choice | None = None
    existing: Manifest | None = None
    try:
        window_bytes = versions.info().window_bytes
    except RepositoryNotFoundError:
        window_bytes = versions.new_window_bytes
        plan = plan_push(files, None, [])
    else:
        publication = Publication(store, versions, request.name, request.version)
        existing = publication.existing
        parent = parent_of(versions, request, existing, [])
        known = [existing] if existing is not None else list(known_manifests(versions, request))
        missing = missing_objects(store, [*known, parent], options.thread_count, publication)
        around = Surroundings(files, parent, known, missing, options, publication)
        plan = around.plan(parent)
        publication.refuse_other_files(plan.files)
        if existing is None:
            held = held_of(base_inventory(request, parent, plan, options))
            free = request.parent == "auto"
            plan, choice = settle(store, versions, around, plan, held, existing=None, free=free)
    plain = plain_contents(plan.steps, options)
    sampled = sample_sizes(store, plan, held, window_bytes, options)
    return _forecast(request, plan, plain, sampled, options, parent, choice, existing, hashing_s)


def _forecast(
    request: PushRequest,
    plan: PushPlan,
    plain: frozenset[str],
    sampled: SampledSizes | None,
    options: TransferOptions,
    parent: Manifest | None,
    choice: Choice | None,
    existing: Manifest | None,
    hashing_s: float,
) -> Forecast:
    groups: dict[Feature, list[CodeStep]] = defaultdict(list)
    for step in plan.steps:
        groups[feature_of(step, plain)].append(step)
    stored: dict[Feature, int] = {}
    whole = 0
    coding = _Coding()
    for feature, steps in groups.items():
        size = sum(step.part.size for step in steps)
        if feature == "plain":
            stored[feature] = size
        elif feature == "delta" and sampled is not None:
            # Bases that end in a recipe are not sampled: taken for as much alike as the others.
            stored[feature] = -(-sampled.delta_bytes * size // max(1, sampled.tensor_bytes))
            whole += -(-sampled.whole_bytes * size // max(1, sampled.tensor_bytes))
            continue
        else:
            stored[feature] = coding.estimate(steps)
        whole += stored[feature]
    new_bytes = sum(step.part.size for step in plan.steps)
    total = sum(stored.values())
    sizes = {"standalone": whole, "plain": new_bytes}
    if groups.get("delta") or groups.get("layout"):
        sizes["delta"] = total
    ways = options_of(
        plan,
        sizes,
        Speeds(coding.bytes_per_s * options.thread_count),
        options.prices or DEFAULT_PRICES,
        options.readers,
        delta_allowed=options.delta,
        coding_allowed=options.compression,
    )
    chosen = "delta" if "delta" in sizes else "standalone" if options.compression else "plain"
    taken = next(one for one in ways if one.name == chosen)
    raw_bytes = sum(entry.size for entry in plan.files)
    objects = len(plan.steps) if not options.sharding else -(-total // options.shard_bytes)
    base = choice.anchor.base if choice is not None else (parent.model, parent.version) if parent else None
    return Forecast(
        model=request.name,
        version=request.version,
        parent=f"{parent.model}@{parent.version}" if parent is not None else None,
        base="@".join(base) if base and chosen == "delta" else None,
        raw_bytes=raw_bytes,
        new_bytes=new_bytes,
        stored_bytes=total,
        seconds=hashing_s + taken.seconds if new_bytes else hashing_s,
        usd=taken.usd if new_bytes else 0.0,
        features=features_of(plan, plain, stored, options, raw_bytes=raw_bytes, objects=objects),
        options=ways if new_bytes else (),
        chosen=chosen if new_bytes else "nothing",
        reason=_reason(choice, ways, chosen, new_bytes),
        already_there=existing is not None and not new_bytes,
    )


def _reason(choice: Choice | None, ways: Sequence[object], chosen: str, new_bytes: int) -> str:
    if not new_bytes:
        return "the repository has all of it"
    if choice is not None:
        return choice.anchor.reason
    if chosen == "plain":
        return "stored as it is: compression is off"
    if chosen == "delta":
        return "coded against the parent"
    return "stored whole: there is nothing to code it against"


class _Coding:
    """Codes slices of contents by themselves, to see how much they take and how long it does."""

    def __init__(self) -> None:
        self._read = BufferPool(_SLICE_BYTES)
        self._out = BufferPool(codec.encode_bound(_SLICE_BYTES))
        self._seconds = 0.0
        self._bytes = 0

    @property
    def bytes_per_s(self) -> float:
        return self._bytes / self._seconds if self._seconds > 0 and self._bytes else _USUAL_SPEED

    def estimate(self, steps: Sequence[CodeStep]) -> int:
        """What contents take: all of them coded if that is little, else slices spread over their bytes."""
        total = sum(step.part.size for step in steps)
        if not total:
            return 0
        seen = coded = 0
        with OpenFiles() as files:
            for step, begin, size in _spread(steps, total):
                coded += self._code(files, step, begin, size)
                seen += size
        return -(-coded * total // seen)

    def _code(self, files: OpenFiles, step: CodeStep, begin: int, size: int) -> int:
        with self._read.borrow() as buffer, self._out.borrow() as out:
            target = buffer[:size]
            files.read(step.location, target, step.part.offset + begin)
            started = time.perf_counter()
            length = codec.encode_into(target, out, None, dtype=step.part.coded_as, threads=1)
            self._seconds += time.perf_counter() - started
            self._bytes += size
            return length


def _spread(steps: Sequence[CodeStep], total: int) -> list[tuple[CodeStep, int, int]]:
    slices = [
        (step, begin, min(_SLICE_BYTES, step.part.size - begin))
        for step in steps
        for begin in range(0, step.part.size, _SLICE_BYTES)
    ]
    if total <= _MOST_BYTES:
        return slices
    chosen: dict[int, tuple[CodeStep, int, int]] = {}
    seen = 0
    for number in range(len(slices)):
        # Multiples of the golden ratio keep no step with layers that repeat.
        place = (number * _GOLDEN % (1 << 64)) * len(slices) >> 64
        if place not in chosen:
            chosen[place] = slices[place]
            seen += slices[place][2]
        if seen >= _MOST_BYTES:
            break
    return list(chosen.values())
