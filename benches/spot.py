"""Spot and on demand on recorded zones: our mix, SpotHedge over its over-provision, and the bound of perfect foresight.

    python benches/spot.py FOLDER                 the frontiers, for both cold starts and both readings of the traces
    python benches/spot.py FOLDER --checks        other targets, prices, a part held out, notices, made-up zones
    python benches/spot.py FOLDER --plot OUT.png  three days of replicas by kind

FOLDER holds the traces, a JSON file a zone (textnlp_fast/gpu/scaling/spot/traces.py says where they are from); without
one, made-up zones are used. Everything is deterministic: machine and load do not matter.

`at target` is the share of ticks with as many replicas serving as wanted; `cost` is against all on demand.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from textnlp_fast.gpu.scaling.spot.hedge import SpotHedge
from textnlp_fast.gpu.scaling.spot.mix import SpotMix
from textnlp_fast.gpu.scaling.spot.oracle import oracle_usd
from textnlp_fast.gpu.scaling.spot.settings import SpotSettings
from textnlp_fast.gpu.scaling.spot.simulate import Costs, Outcome, simulate
from textnlp_fast.gpu.scaling.spot.traces import Traces, read_traces, synthetic

LEVELS = (0.9, 0.99, 0.995, 0.999, 0.9993, 0.9995)
EXTRAS = (0, 1, 2, 3, 4, 6)
# Of p3.2xlarge, USD an hour: on demand, and three tenths of it on spot; then what a list of 2024 says for each region.
FLAT = Costs(on_demand=3.06, spot=0.918)
LISTED = Costs(on_demand=3.06, spot={"us-east-1": 1.02, "us-east-2": 1.02, "us-west-2": 0.7708})
FIRST_DAYS = 20


class AllSpot(SpotHedge):
    """SpotHedge's placement, and nothing on demand."""

    name = "all spot"  # type: ignore[assignment]

    def __init__(self) -> None:
        super().__init__(extra=0, spread=True)

    def decide(self, observation):  # type: ignore[no-untyped-def]
        return super().decide(observation)._replace(on_demand=0)


def run(policy: object, traces: Traces, **how: object) -> Outcome:
    return simulate(policy, traces, **how)  # type: ignore[arg-type]


def ours(traces: Traces, level: float, *, cold_start_s: float, **how: object) -> Outcome:
    policy = SpotMix(SpotSettings(availability=level, cold_start_s=cold_start_s))
    return run(policy, traces, cold_start_s=cold_start_s, **how)


def row(name: str, found: Outcome) -> str:
    on_demand = found.on_demand_usd / found.usd if found.usd else 0.0
    return (
        f"  {name:22} {found.availability:9.5f} {found.cost:7.4f} {1 - found.cost:7.1%} {on_demand:6.1%}"
        f" {found.launches:6} {found.preempted:6} {found.most:4}"
    )


HEAD = f"  {'policy':22} {'at target':>9} {'cost':>7} {'saved':>7} {'on dem':>6} {'launch':>6} {'taken':>6} {'most':>4}"


def beaten(peers: Sequence[Outcome], own: Sequence[Outcome]) -> str:
    """How many of the peer's points have one of ours that serves no less and costs no more."""
    hit = sum(any(o.availability >= p.availability and o.cost <= p.cost for o in own) for p in peers)
    return (
        f"  of SpotHedge's {len(peers)} points {hit} have one of ours that serves no less and costs no more"
    )


def frontiers(traces: Traces, target: int, cold_start_s: float, machines: int | None, costs: Costs) -> None:
    limited = traces.limited(machines)
    how = {"target": target, "costs": costs}
    room = "any number" if machines is None else f"at most {machines}"
    print(
        f"\ntarget {target}, cold start {cold_start_s:.0f} s, a zone that is up gives {room}\n{HEAD}",
        flush=True,
    )
    cold = {"cold_start_s": cold_start_s, **how}
    on_demand = run(SpotMix(SpotSettings(spot=False, cold_start_s=cold_start_s)), limited, **cold)
    print(row("all on demand", on_demand), flush=True)
    print(row("all spot", run(AllSpot(), limited, **cold)), flush=True)
    peers = []
    for extra in EXTRAS:
        # Where all prices are one, the fewest replicas come first in either reading of the paper.
        for spread in (True,) if isinstance(costs.spot, float) else (False, True):
            found = run(SpotHedge(extra=extra, spread=spread), limited, **cold)
            peers.append(found)
            print(row(found.policy, found), flush=True)
    own = []
    for level in LEVELS:
        own.append(ours(limited, level, **cold))  # type: ignore[arg-type]
        print(row(f"ours {level:g}", own[-1]), flush=True)
    usd = oracle_usd(limited, target=target, cold_start_s=cold_start_s, costs=costs)
    share = usd / (target * traces.ticks * traces.gap_s / 3600 * costs.on_demand)
    print(f"  {'foresight (any number)':22} {'1':>9} {share:7.4f} {1 - share:7.1%}")
    print(beaten(peers, own), flush=True)


def checks(traces: Traces) -> None:
    day = round(86400 / traces.gap_s)
    made_up = synthetic(seed=20261130, ticks=10_000)
    cases = [
        *((f"target {n}", traces, {"target": n, "costs": FLAT}) for n in (1, 8, 16)),
        ("spot at 0.15", traces, {"target": 4, "costs": Costs(on_demand=3.06, spot=0.459)}),
        ("spot at 0.5", traces, {"target": 4, "costs": Costs(on_demand=3.06, spot=1.53)}),
        ("prices by region", traces, {"target": 4, "costs": LISTED if len(traces.zones) == 9 else FLAT}),
        ("the first 20 days", traces.between(0, FIRST_DAYS * day), {"target": 4}),
        ("the other 25 days", traces.between(FIRST_DAYS * day), {"target": 4}),
        ("notice of 120 s", traces, {"target": 4, "notice_s": 120.0}),
        ("made-up zones", made_up, {"target": 4}),
    ]
    for name, where, how in cases:
        print(f"\n{name}, cold start 180 s, any number\n{HEAD}", flush=True)
        limited = where.limited(None)
        peers = [run(SpotHedge(extra=extra, spread=True), limited, **how) for extra in (0, 2, 4)]
        own = [ours(limited, level, cold_start_s=180.0, **how) for level in (0.99, 0.999)]  # type: ignore[arg-type]
        for found in peers:
            print(row(found.policy, found))
        for level, found in zip((0.99, 0.999), own, strict=True):
            print(row(f"ours {level:g}", found), flush=True)


def plot(traces: Traces, path: Path, begin_day: float, days: float) -> None:
    import matplotlib as mpl  # noqa: PLC0415

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    limited = traces.limited(None)
    runs = [
        run(SpotHedge(extra=2, spread=True), limited, target=4, keep_history=True),
        ours(limited, 0.999, cold_start_s=180.0, target=4, keep_history=True),
    ]
    day = 86400 / traces.gap_s
    window = slice(round(begin_day * day), round((begin_day + days) * day))
    figure, axes = plt.subplots(3, 1, figsize=(10, 7.5), sharex=True, height_ratios=(1.2, 2, 2))
    hours = [tick / day for tick in range(traces.ticks)][window]
    for at, zone in enumerate(traces.zones):
        up = zone.capacity[window]
        axes[0].fill_between(
            hours, at + 0.1, [at + 0.1 + 0.8 * bool(one) for one in up], step="post", color="#5a7d9a", lw=0
        )
    axes[0].set_yticks(
        [at + 0.5 for at in range(len(traces.zones))], [one.zone for one in traces.zones], fontsize=7
    )
    axes[0].set_title("Zones that had spot", loc="left", fontsize=10)
    for axis, found in zip(axes[1:], runs, strict=True):
        seen = found.history[window]
        parts = [
            [one.on_demand_ready for one in seen],
            [one.spot_ready for one in seen],
            [one.spot_starting + one.on_demand_starting for one in seen],
        ]
        axis.stackplot(
            hours,
            parts,
            labels=["on demand", "spot", "starting"],
            colors=["#c0504d", "#5a7d9a", "#d9d9d9"],
            step="post",
        )
        axis.axhline(4, color="black", lw=0.8, ls="--")
        name = "Ours, 0.999" if found.policy == "ours" else "SpotHedge, 2 extra"
        axis.set_title(
            f"{name}: at target {found.availability:.2%} of all ticks, {1 - found.cost:.1%} below on demand",
            loc="left",
            fontsize=10,
        )
        axis.set_ylabel("machines")
        axis.set_ylim(0, 13)
    axes[1].legend(loc="upper right", ncols=3, fontsize=8, frameon=False)
    axes[2].set_xlabel("day of the trace")
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--target", type=int, default=4)
    parser.add_argument("--checks", action="store_true")
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--from-day", type=float, default=15.0)
    parser.add_argument("--days", type=float, default=5.0)
    options = parser.parse_args()
    traces = synthetic(seed=20261130, ticks=20_000) if options.folder is None else read_traces(options.folder)
    print(f"{len(traces.zones)} zones, {traces.ticks} ticks of {traces.gap_s:.0f} s")
    if options.plot is not None:
        plot(traces, options.plot, options.from_day, options.days)
    elif options.checks:
        checks(traces)
    else:
        for machines in (None, 2):
            for cold_start_s in (180.0, 600.0):
                frontiers(traces, options.target, cold_start_s, machines, FLAT)


if __name__ == "__main__":
    main()
