"""What versions cost under rules for their bases, beside the cheapest bases that could have been chosen.

A simulation: sizes follow bits per weight measured on trained checkpoints (docs/benchmarks.md), between them by
interpolation, with steps of uneven length; every rule is charged by the same function. Nothing is timed.

    python benches/anchors.py [--json] [--versions 40] [--seeds 2]
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise, product
from typing import TypeAlias

from measure import Results, machine
from textnlp_fast.storage.anchor_costs import Prices, Readers, VersionSizes, chain_cost, links_to
from textnlp_fast.storage.anchor_optimum import cheapest_bases
from textnlp_fast.storage.anchors import Forecast, StoredVersion, choose_base

Bases: TypeAlias = tuple["int | None", ...]
Rule: TypeAlias = Callable[[Sequence[VersionSizes], Prices, Readers], Bases]

WEIGHTS = 8_000_000_000
SNAPSHOT_BITS = 10.55
# Bits per weight by the number of steps between two versions: measured where there is a comment, else continued.
CURVES: Mapping[str, Sequence[tuple[float, float]]] = {
    # rl_0100 -> rl_0101, -> rl_0108, base -> rl_0100
    "rl": ((1, 0.049), (8, 0.194), (100, 0.488), (10_000, 2.0)),
    # base -> sft_0001, sft_0010, sft_0100; a version every ten steps
    "fine-tune": ((0.1, 0.095), (1, 2.094), (10, 4.608), (1000, 8.0)),
    # pre_0600 -> pre_0700; a version every hundred steps, then half a bit for each doubling
    "pre-training": ((1, 7.253), (100, 10.55)),
    # RL steps; every tenth version a fine-tune of a hundred steps comes between
    "mix": ((1, 0.049), (8, 0.194), (100, 0.488), (10_000, 4.608), (1_000_000, 9.0)),
}
PRICES = {
    "same region": Prices(
        usd_per_stored_gb_month=0.023,
        retention_months=3,
        usd_per_moved_gb=0,
        usd_per_restore_s=0.005,
        bandwidth_gb_per_s=1.25,
        decode_gb_per_s=10,
    ),
    "egress": Prices(
        usd_per_stored_gb_month=0.023,
        retention_months=3,
        usd_per_moved_gb=0.09,
        usd_per_restore_s=0.001,
        bandwidth_gb_per_s=0.25,
        decode_gb_per_s=5,
    ),
    "archive": Prices(
        usd_per_stored_gb_month=0.023,
        retention_months=36,
        usd_per_moved_gb=0.01,
        usd_per_restore_s=0.0001,
        bandwidth_gb_per_s=1,
        decode_gb_per_s=2,
    ),
    "waiting fleet": Prices(
        usd_per_stored_gb_month=0.023,
        retention_months=1,
        usd_per_moved_gb=0,
        usd_per_restore_s=0.1,
        bandwidth_gb_per_s=2.5,
        decode_gb_per_s=10,
    ),
}
READERS = {
    "followers": Readers(reads_per_version=16, behind=(0.95,)),
    "all fresh": Readers(reads_per_version=8),
    "mixed": Readers(reads_per_version=8, behind=(0.4, 0.1, 0.0, 0.1)),
    "rarely read": Readers(reads_per_version=0.1, behind=(0.5,)),
}


def bits_at(curve: Sequence[tuple[float, float]], steps: float) -> float:
    """Interpolated on logarithmic scales, continued at both ends, at most what a snapshot takes."""
    ends = next((pair for pair in pairwise(curve) if steps <= pair[1][0]), (curve[-2], curve[-1]))
    (x0, y0), (x1, y1) = ends
    share = math.log(steps / x0) / math.log(x1 / x0)
    return min(SNAPSHOT_BITS, math.exp(math.log(y0) + share * math.log(y1 / y0)))


def sequence(family: str, count: int, seed: int) -> list[VersionSizes]:
    """Sizes of `count` versions, each against every one before it."""
    draw = random.Random(f"{family} {seed}")
    steps = [draw.lognormvariate(0, 0.3) for _ in range(count)]
    if family == "mix":
        steps = [10_000.0 if number % 10 == 9 else step for number, step in enumerate(steps)]
    sizes = []
    for version in range(count):
        deltas = {
            base: int(bits_at(CURVES[family], sum(steps[base + 1 : version + 1])) * WEIGHTS / 8)
            for base in range(version)
        }
        whole = int(SNAPSHOT_BITS * WEIGHTS / 8)
        sizes.append(VersionSizes(model_bytes=2 * WEIGHTS, snapshot_bytes=whole, delta_bytes=deltas))
    return sizes


# --- rules ---


def every(period: int) -> Rule:
    """A snapshot each `period` versions, the others against their predecessors; 0: only the first."""

    def rule(sizes: Sequence[VersionSizes], _prices: Prices, _readers: Readers) -> Bases:
        whole = {0} if period == 0 else set(range(0, len(sizes), period))
        return tuple(None if version in whole else version - 1 for version in range(len(sizes)))

    return rule


def star(period: int) -> Rule:
    """A snapshot each `period` versions, the others against it."""

    def rule(sizes: Sequence[VersionSizes], _prices: Prices, _readers: Readers) -> Bases:
        return tuple(
            None if version % period == 0 else version - version % period for version in range(len(sizes))
        )

    return rule


def depth_then_root(sizes: Sequence[VersionSizes], _prices: Prices, _readers: Readers) -> Bases:
    """At most eight bases, then the chain's root: the planner's rule (`storage.planning`)."""
    bases: list[int | None] = []
    for version in range(len(sizes)):
        chain = links_to(bases, version - 1) if version else []
        bases.append(None if not chain else chain[0] if len(chain) <= 8 else chain[-1])
    return tuple(bases)


def policy(forecast: Forecast, *, older_known: bool = False, told: Readers | None = None) -> Rule:
    """`choose_base`, version by version; it sees no size of a later version, and of older bases only if told.

    `told`: the readers it believes in, in place of those who come.
    """

    def rule(sizes: Sequence[VersionSizes], prices: Prices, readers: Readers) -> Bases:
        history: list[StoredVersion] = []
        for version, one in enumerate(sizes):
            if older_known:
                shown = one
            else:
                deltas = {version - 1: one.delta_bytes[version - 1]} if version else {}
                shown = VersionSizes(
                    model_bytes=one.model_bytes, snapshot_bytes=one.snapshot_bytes, delta_bytes=deltas
                )
            decision = choose_base(history, shown, prices, told or readers, forecast=forecast)
            history.append(StoredVersion(shown, decision.base))
        return tuple(version.base for version in history)

    return rule


def rent_or_buy(sizes: Sequence[VersionSizes], prices: Prices, readers: Readers) -> Bases:
    """Predecessors, until readers have paid as much for the chain as a snapshot would have cost more to store."""
    bases: list[int | None] = []
    rent = 0.0
    for version, one in enumerate(sizes):
        base = version - 1 if version else None
        costs = []
        for choice in (base, None):
            tried = [*bases, choice]
            shares: list[tuple[int | None, float]] = [(None, readers.fresh)]
            shares += [(version - k, share) for k, share in enumerate(readers.behind, start=1)]
            links = [(share, link) for held, share in shares for link in links_to(tried, version, held)]
            costs.append(
                sum(
                    readers.reads_per_version
                    * share
                    * prices.link_usd(sizes[link].bytes_against(tried[link]), sizes[link].model_bytes)
                    for share, link in links
                )
            )
        rent += costs[0] - costs[1]
        if base is not None and rent >= prices.store_usd(one.snapshot_bytes - one.bytes_against(base)):
            base, rent = None, 0.0
        rent = max(rent, 0.0)
        bases.append(base)
    return tuple(bases)


FIXED: Mapping[str, Rule] = {
    "always snapshot": every(1),
    "always predecessor": every(0),
    **{f"snapshot every {period}": every(period) for period in (4, 8, 16, 32)},
    **{f"snapshot every {period}, others against it": star(period) for period in (8, 32)},
    "depth 8, then root": depth_then_root,
}


def policies() -> dict[str, Rule]:
    return {
        "rent or buy": rent_or_buy,
        "policy": policy(Forecast()),
        "policy, older deltas known": policy(Forecast(), older_known=True),
        "policy, 8 ahead": policy(Forecast(versions_ahead=8)),
        "policy, 0 ahead": policy(Forecast(versions_ahead=0)),
        "policy, told of mixed readers": policy(Forecast(), told=READERS["mixed"]),
        "policy, exponent 1": policy(Forecast(growth_exponent=1.0)),
    }


# --- the tables ---


def run(count: int, seeds: int) -> Results:
    results = Results("anchors", machine(["textnlp-fast"]))
    results.settings = {
        "versions": count,
        "seeds": seeds,
        "weights": WEIGHTS,
        "snapshot_bits": SNAPSHOT_BITS,
    }
    rules = {**FIXED, **policies()}
    ratios: dict[tuple[str, str, str, str, int], float] = {}
    best_fixed: list[float] = []
    for family, (priced, prices), (read, readers), seed in product(
        CURVES, PRICES.items(), READERS.items(), range(seeds)
    ):
        sizes = sequence(family, count, seed)
        least = chain_cost(sizes, cheapest_bases(sizes, prices, readers), prices, readers).usd
        for name, rule in rules.items():
            usd = chain_cost(sizes, rule(sizes, prices, readers), prices, readers).usd
            ratios[name, family, priced, read, seed] = usd / least
        fixed = min(ratios[name, family, priced, read, seed] for name in FIXED)
        best_fixed.append(ratios["policy", family, priced, read, seed] / fixed)

    def table(title: str, groups: Sequence[str], place: int) -> None:
        rows: list[list[object]] = []
        for name in rules:
            mine = {key: ratio for key, ratio in ratios.items() if key[0] == name}
            row: list[object] = [name]
            for group in groups:
                row.append(statistics.geometric_mean(r for key, r in mine.items() if key[place] == group))
            rows.append([*row, statistics.geometric_mean(mine.values()), max(mine.values())])
        results.add_table(title, ["rule", *groups, "all", "worst"], rows)

    table("Cost over the optimum's, by family (geometric means)", list(CURVES), 1)
    table("Cost over the optimum's, by prices", list(PRICES), 2)
    table("Cost over the optimum's, by readers", list(READERS), 3)
    results.paragraphs.append(
        f"The policy over the best fixed rule of each case: at most {max(best_fixed):.3f}, geometric mean "
        f"{statistics.geometric_mean(best_fixed):.3f}, least {min(best_fixed):.3f}."
    )
    return results


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--versions", type=int, default=40)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="also write benches/out/anchors.json")
    arguments = parser.parse_args()
    results = run(arguments.versions, arguments.seeds)
    results.show()
    if arguments.json:
        results.write()


if __name__ == "__main__":
    main()
