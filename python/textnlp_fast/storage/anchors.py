"""Decides what the next version of a chain is stored against: its predecessor, an older version, or nothing.

Pure: data in, a decision with its reasons out. A snapshot now costs its bytes now and spares all later readers the
chain below it, so the future counts. It is forecast: some more versions like the last ones. For each base that the new
version may have, the cheapest way through that forecast is found exactly (`anchor_optimum`), and the cheapest of all
wins. At the next version everything is decided anew, from what became known.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from textnlp_fast.errors import InvalidInputError
from textnlp_fast.storage.anchor_costs import (
    MAX_VERSIONS,
    Prices,
    Readers,
    VersionSizes,
    check_bases,
    links_to,
)
from textnlp_fast.storage.anchor_optimum import Continuation, continuations

__all__ = ["AnchorDecision", "Candidate", "Forecast", "StoredVersion", "choose_base", "estimate_delta_bytes"]

_RECENT: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """How the future is pictured.

    `versions_ahead` more versions come, each as far from its predecessor as the median of the last five. A delta over
    several versions has the size (sum of d^(1/growth_exponent))^growth_exponent of the single ones d, but at most a
    snapshot's: 1 adds them up, 0.5 is a random walk; RL checkpoints were measured at 0.6 to 0.7.
    """

    versions_ahead: int = 16
    growth_exponent: float = 0.7

    def __post_init__(self) -> None:
        if not isinstance(self.versions_ahead, int) or not 0 <= self.versions_ahead < MAX_VERSIONS:
            raise InvalidInputError(
                f"versions_ahead is {self.versions_ahead!r}; it may be 0 to {MAX_VERSIONS - 1}"
            )
        if not 0 < self.growth_exponent <= 1:
            raise InvalidInputError(
                f"growth_exponent is {self.growth_exponent!r}; it may be above 0, up to 1"
            )


@dataclass(frozen=True, slots=True)
class StoredVersion:
    """A version that is published: its sizes, and the base it was stored against (None: whole)."""

    sizes: VersionSizes
    base: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A base that the new version may have, and what is to be expected then."""

    base: int | None
    stored_bytes: int
    estimated: bool
    """Whether `stored_bytes` is a guess, because the delta to this base is not known."""
    links: int
    """Links that a fresh reader of the new version decodes."""
    store_usd: float
    read_usd: float
    """All reads of the new version."""
    future_usd: float
    """Storing and reading the versions that are forecast, if they do their best with this choice."""

    @property
    def expected_usd(self) -> float:
        return self.store_usd + self.read_usd + self.future_usd


@dataclass(frozen=True, slots=True)
class AnchorDecision:
    """The base to use (None: store the version whole), every candidate, cheapest first, and why."""

    base: int | None
    candidates: tuple[Candidate, ...]
    reason: str


def estimate_delta_bytes(step_bytes: Sequence[float], snapshot_bytes: int, growth_exponent: float) -> int:
    """Size of a delta over several versions from those of the single steps (see `Forecast`), rounded up."""
    if not step_bytes or min(step_bytes) < 0 or snapshot_bytes < 0:
        raise InvalidInputError("an estimate takes the size of one step or more, none of them below 0")
    largest = max(step_bytes)
    if largest == 0:
        return 0
    # In units of the largest step, so that no power overflows.
    total = sum((size / largest) ** (1 / growth_exponent) for size in step_bytes)
    return min(snapshot_bytes, -int(-largest * total**growth_exponent // 1))


def choose_base(
    history: Sequence[StoredVersion],
    new: VersionSizes,
    prices: Prices,
    readers: Readers,
    *,
    forecast: Forecast | None = None,
    max_bases: int = MAX_VERSIONS - 1,
) -> AnchorDecision:
    """The base for version number len(history) whose expected cost is least, and the others beside it.

    Candidates are the predecessor, the versions below it in its chain, and none. Of a chain's versions and of `new`
    the delta to the predecessor has to be known; other deltas are taken from `delta_bytes` where they are there, and
    estimated where not. No version gets more than `max_bases` bases below it (the forecast is not held to that).
    A tie goes to the newer base. InvalidInputError where the data do not fit together.
    """
    forecast = forecast or Forecast()
    if not isinstance(max_bases, int) or not 0 <= max_bases < MAX_VERSIONS:
        raise InvalidInputError(f"max_bases is {max_bases!r}; it may be 0 to {MAX_VERSIONS - 1}")
    sizes = _Sizes(history, new, forecast)
    number = len(history)
    fixed = [version.base for version in history]

    def link(version: int, base: int | None) -> tuple[float, float]:
        stored = sizes.stored_bytes(version, base)
        return prices.store_usd(stored), prices.link_usd(stored, sizes.model_bytes(version))

    ways = continuations(fixed, number + 1 + forecast.versions_ahead, link, readers)
    candidates = []
    for way in ways:
        candidate = _candidate(way, number, sizes, prices, readers, fixed)
        if candidate.links <= max_bases + 1:
            candidates.append(candidate)
    ranked = tuple(sorted(candidates, key=lambda one: one.expected_usd))
    return AnchorDecision(ranked[0].base, ranked, _reason(number, ranked, forecast))


class _Sizes:
    """Sizes of links: measured where known, else estimated; of versions to come, forecast."""

    def __init__(self, history: Sequence[StoredVersion], new: VersionSizes, forecast: Forecast) -> None:
        check_bases([version.base for version in history])
        self._known = [version.sizes for version in history] + [new]
        self._exponent = forecast.growth_exponent
        for number, one in enumerate(self._known):
            outside = [base for base in one.delta_bytes if not 0 <= base < number]
            if outside:
                raise InvalidInputError(
                    f"version {number} has a delta to version {outside[0]}, which is not earlier"
                )
        links = links_to([version.base for version in history], len(history) - 1) if history else []
        self._first = links[-1] if links else 0
        self._steps: dict[int, int] = {
            number: self._known[number].bytes_against(number - 1)
            for number in range(self._first + 1, len(self._known))
        }
        recent = list(self._steps.values())[-_RECENT:]
        # After a first version, nothing is known of the next ones; as large as a snapshot is the cautious guess.
        self._usual = statistics.median(recent) if recent else float(new.snapshot_bytes)
        self._estimates: dict[tuple[int, int], int] = {}

    def model_bytes(self, version: int) -> int:
        return self._known[min(version, len(self._known) - 1)].model_bytes

    def is_known(self, version: int, base: int | None) -> bool:
        return version < len(self._known) and (base is None or base in self._known[version].delta_bytes)

    def stored_bytes(self, version: int, base: int | None) -> int:
        if self.is_known(version, base):
            return self._known[version].bytes_against(base)
        snapshot_bytes = self._known[min(version, len(self._known) - 1)].snapshot_bytes
        if base is None:
            return snapshot_bytes
        if (version, base) not in self._estimates:
            steps = [self._steps.get(number, self._usual) for number in range(base + 1, version + 1)]
            self._estimates[version, base] = estimate_delta_bytes(steps, snapshot_bytes, self._exponent)
        return self._estimates[version, base]


def _candidate(
    way: Continuation,
    number: int,
    sizes: _Sizes,
    prices: Prices,
    readers: Readers,
    fixed: Sequence[int | None],
) -> Candidate:
    bases = [*fixed, way.base]
    chain = links_to(bases, number)
    costs = [
        prices.link_usd(sizes.stored_bytes(version, bases[version]), sizes.model_bytes(version))
        for version in chain
    ]
    read_usd = sum(costs) * readers.reads_per_version
    for place, held in enumerate(chain[1:], start=1):
        read_usd -= sum(costs[place:]) * readers.reads_from(number - held)
    stored = sizes.stored_bytes(number, way.base)
    store_usd = prices.store_usd(stored)
    return Candidate(
        base=way.base,
        stored_bytes=stored,
        estimated=not sizes.is_known(number, way.base),
        links=len(chain),
        store_usd=store_usd,
        read_usd=read_usd,
        future_usd=way.usd - store_usd - read_usd,
    )


def _words(base: int | None, number: int) -> str:
    if base is None:
        return "whole"
    return (
        "against its predecessor" if base == number - 1 else f"against version {base}, {number - base} back"
    )


def _reason(number: int, ranked: Sequence[Candidate], forecast: Forecast) -> str:
    best = ranked[0]
    span = (
        f"over it and {forecast.versions_ahead} versions to come"
        if forecast.versions_ahead
        else "for it alone"
    )
    text = (
        f"Version {number} is stored {_words(best.base, number)}: {best.expected_usd:.4g} USD expected {span}, "
        f"{best.stored_bytes} bytes{' (estimated)' if best.estimated else ''}, "
        f"{best.links} link{'' if best.links == 1 else 's'} for a fresh reader"
    )
    others = {"whole": None, "against its predecessor": number - 1}
    told = [
        f"{one.expected_usd:.4g} {words}"
        for words, base in others.items()
        for one in ranked[1:]
        if one.base == base
    ]
    return f"{text}; it would be {' and '.join(told)}." if told else f"{text}."
