"""Policies of scaling on recorded and made traffic: what each attains for its replica-hours, and the criteria.

    python benches/autoscale.py                    14 days, three seeds, a made trace, Azure's hour: minutes
    python benches/autoscale.py --days 2           one seed: under a minute
    python benches/autoscale.py --plot FILE.png    the frontiers as a picture
    python benches/autoscale.py --json FILE        every point
    python benches/autoscale.py --grain            Azure's hour, by the second and request by request
    python benches/autoscale.py --policies ours --known FILE    the others' points from there

Each policy is swept over the one setting that trades replica-hours for misses (`runs.settings_of`), so that none is
judged by a default that somebody chose. Hours are given as multiples of the oracle's, which knows the future.
The recorded traces are read from ../shared/data/traces; without them all is run on the made trace alone.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import multiprocessing
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from textnlp_fast.gpu.scaling.simulator.events import Engine, simulate_requests
from textnlp_fast.gpu.scaling.simulator.fluid import simulate
from textnlp_fast.gpu.scaling.simulator.oracle import oracle_of
from textnlp_fast.gpu.scaling.simulator.runs import (
    Frontier,
    Point,
    frontier_of,
    made_policy,
    policy_names,
    run_policy,
    settings_of,
)
from textnlp_fast.gpu.scaling.simulator.seasons import made_trace
from textnlp_fast.gpu.scaling.simulator.traces import RateTrace, RequestTrace, read_trace
from textnlp_fast.gpu.scaling.simulator.traffic import ReplicaSpeed, Traffic

TRACES = Path(__file__).parents[2] / "shared" / "data" / "traces"
SERVEGEN, AZURE = "servegen_m_large_rate.csv", "azure_llm_2023_conv.csv"
COLD_STARTS_S = (180, 600)
ENOUGH = 0.9995
# The hour of conversations needs two to four replicas of the speed that is the default: too few to tell policies apart.
# These are a fifth as fast, as of a model five times as large on the same GPUs.
SLOW = ReplicaSpeed(prefill_tokens_per_s=1500.0, decode_tokens_per_s=200.0)
ATTAINMENT, CHEAPER, CHANGES = 0.999, 0.95, 3000
EQUAL_HOURS, POINTS, CPU_S = 1.29, 4.0, 5.0
CURVE = tuple(round(1.05 + 0.05 * k, 2) for k in range(16))


class Case(NamedTuple):
    """One traffic."""

    trace: str
    seed: int
    days: float | None

    @property
    def name(self) -> str:
        return f"{self.trace}, seed {self.seed}" if self.trace != "azure hour" else self.trace


class Swept(NamedTuple):
    """One policy's frontier on one case."""

    case: Case
    cold_start_s: int
    oracle_hours: float
    frontier: Frontier


@functools.lru_cache(maxsize=2)
def traffic_of(case: Case) -> Traffic:
    if case.trace == "made":
        return made_trace(days=case.days or 14.0, seed=case.seed).traffic(seed=case.seed)
    trace = read_trace(TRACES / (SERVEGEN if case.trace == "servegen/10" else AZURE))
    if isinstance(trace, RequestTrace):
        return trace.traffic(speed=SLOW)
    assert isinstance(trace, RateTrace)
    return trace.traffic(scale=0.1, days=case.days, seed=case.seed)


def sweep(job: tuple[Case, int, str]) -> Swept:
    case, cold_start_s, policy = job
    traffic = traffic_of(case)
    oracle = oracle_of(traffic, cold_start_s=cold_start_s)
    frontier = frontier_of(policy, traffic, cold_start_s=cold_start_s, enough=ENOUGH)
    return Swept(case, cold_start_s, oracle.replica_hours, frontier)


def cases_of(days: float | None, seeds: int | None) -> list[Case]:
    """The recorded traces, the made one; `days` and `seeds` make fewer of them."""
    count = seeds or (3 if days is None else 1)
    found = [Case("made", 1, days)]
    if (TRACES / SERVEGEN).exists():
        found = [
            *(Case("servegen/10", seed, days) for seed in range(1, count + 1)),
            *found,
            Case("azure hour", 0, None),
        ]
    else:
        print("The recorded traces are not here: the made one alone, and no verdicts.")
    return found


def swept(
    cases: Sequence[Case], policies: Sequence[str], processes: int, on_frontier: Callable[[list[Swept]], None]
) -> list[Swept]:
    jobs = [(case, cold, policy) for case in cases for cold in COLD_STARTS_S for policy in policies]
    found = []
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        for done, one in enumerate(pool.imap(sweep, jobs), 1):
            found.append(one)
            on_frontier(found)
            if sys.stderr.isatty():
                print(f"\r{done} of {len(jobs)} frontiers", end="\n" * (done == len(jobs)), file=sys.stderr)
    return found


# --- tables ----------------------------------------------------------------------------------------------------


def table(rows: Sequence[Swept]) -> None:
    """One case and cold start: each policy at 99.9 %, and what it attains at equal hours."""
    first = rows[0]
    print(
        f"\n{first.case.name}, cold start {first.cold_start_s} s; oracle {first.oracle_hours:.0f} replica-hours"
    )
    print(
        f"{'policy':14} {'99 %':>7} {'99.9 %':>7} {'changes':>8}   "
        + " ".join(f"{x:>7.2f}x" for x in CURVE[1:10])
    )
    for one in rows:
        if one.frontier.policy == "oracle":
            continue
        at = [one.frontier.at_attainment(share) for share in (0.99, ATTAINMENT)]
        hours = " ".join(
            f"{point.replica_hours / one.oracle_hours:6.3f}x" if point else f"{'-':>7}" for point in at
        )
        changes = f"{at[1].changes:8.0f}" if at[1] else f"{'-':>8}"
        attained = [one.frontier.at_hours(x * one.oracle_hours) for x in CURVE[1:10]]
        print(
            f"{one.frontier.policy:14} {hours} {changes}   "
            + " ".join(f"{100 * point.attainment:8.3f}" if point else f"{'-':>8}" for point in attained)
        )


def mean_point(points: Sequence[tuple[Point | None, float]]) -> Point | None:
    """The mean over seeds, hours as multiples of the oracle's; None where one has none."""
    if not points or any(point is None for point, _ in points):
        return None
    columns = zip(
        *(
            (one.setting, one.attainment, one.replica_hours / oracle, one.changes, one.usd)
            for one, oracle in points
            if one
        ),
        strict=True,
    )
    return Point(*(math.fsum(column) / len(points) for column in columns))


class Judged:
    """The frontiers of one kind of trace at one cold start, over its seeds."""

    def __init__(self, found: Sequence[Swept], trace: str, cold_start_s: int) -> None:
        self._rows = [one for one in found if (one.case.trace, one.cold_start_s) == (trace, cold_start_s)]
        self.rivals = sorted({one.frontier.policy for one in self._rows} - {"ours", "oracle"})

    def at_attainment(self, policy: str, attainment: float) -> Point | None:
        rows = [one for one in self._rows if one.frontier.policy == policy]
        return mean_point([(one.frontier.at_attainment(attainment), one.oracle_hours) for one in rows])

    def at_hours(self, policy: str, multiple: float) -> Point | None:
        rows = [one for one in self._rows if one.frontier.policy == policy]
        return mean_point(
            [(one.frontier.at_hours(multiple * one.oracle_hours), one.oracle_hours) for one in rows]
        )

    def cheapest_rival(self, attainment: float) -> tuple[str, Point] | None:
        found = [(name, point) for name in self.rivals if (point := self.at_attainment(name, attainment))]
        return min(found, key=lambda one: one[1].replica_hours, default=None)

    def best_rival(self, multiple: float) -> tuple[str, Point] | None:
        found = [(name, point) for name in self.rivals if (point := self.at_hours(name, multiple))]
        return max(found, key=lambda one: one[1].attainment, default=None)


def differences(judged: Judged, title: str) -> None:
    """Attainment at equal replica-hours, along the whole frontier: where ours gains, and where it loses."""
    print(f"\n{title}: requests within the SLO at equal replica-hours")
    print(f"{'x oracle':>8} {'ours':>9} {'best rival':>11}  {'':12} {'points':>8}")
    for multiple in CURVE:
        ours, best = judged.at_hours("ours", multiple), judged.best_rival(multiple)
        left = f"{100 * ours.attainment:8.3f}%" if ours else f"{'-':>9}"
        right = f"{100 * best[1].attainment:10.3f}%  {best[0]:12}" if best else f"{'-':>11}  {'':12}"
        gain = f"{100 * (ours.attainment - best[1].attainment):+8.3f}" if ours and best else f"{'-':>8}"
        print(f"{multiple:8.2f} {left} {right} {gain}")


# --- criteria --------------------------------------------------------------------------------------------------


def judge(found: Sequence[Swept], trace: str, days: float | None) -> bool:
    """Prints each criterion with its figures; True: all are met."""
    verdicts = []
    short = Judged(found, trace, 180)
    ours, rival = short.at_attainment("ours", ATTAINMENT), short.cheapest_rival(ATTAINMENT)
    if ours and rival:
        share = ours.replica_hours / rival[1].replica_hours
        most = CHANGES * (days or 14.0) / 14.0
        verdicts.append(
            (
                share <= CHEAPER and ours.changes <= most,
                f"cold start 180 s, 99.9 %: {ours.replica_hours:.3f}x the oracle against "
                f"{rival[1].replica_hours:.3f}x of {rival[0]}: {share:.3f} of its hours (at most {CHEAPER}); "
                f"{ours.changes:.0f} changes (at most {most:.0f})",
            )
        )
    else:
        verdicts.append((False, "cold start 180 s: ours or every rival does not come to 99.9 %"))
    long = Judged(found, trace, 600)
    ours, rival = long.at_hours("ours", EQUAL_HOURS), long.best_rival(EQUAL_HOURS)
    if ours and rival:
        gain = 100 * (ours.attainment - rival[1].attainment)
        verdicts.append(
            (
                gain >= POINTS,
                f"cold start 600 s, {EQUAL_HOURS}x the oracle: {100 * ours.attainment:.3f} % against "
                f"{100 * rival[1].attainment:.3f} % of {rival[0]}: {gain:+.3f} points (at least {POINTS:g})",
            )
        )
    else:
        verdicts.append(
            (False, f"cold start 600 s: ours or every rival costs more than {EQUAL_HOURS}x the oracle")
        )
    traffic = traffic_of(next(one.case for one in found if one.case.trace == trace))
    begin = time.process_time()
    run_policy("ours", traffic, cold_start_s=180)
    took, ran = time.process_time() - begin, traffic.steps * traffic.step_s / 86400
    limit = CPU_S * ran / 14
    verdicts.append(
        (took < limit, f"{ran:.1f} days at {traffic.step_s} s: {took:.2f} s of CPU (below {limit:.2f})")
    )
    print()
    for met, text in verdicts:
        print(f"{'met' if met else 'NOT MET':8} {text}")
    return all(met for met, _ in verdicts)


def document(found: Sequence[Swept]) -> list[dict]:
    return [
        {
            "trace": one.case.trace,
            "seed": one.case.seed,
            "cold_start_s": one.cold_start_s,
            "oracle_hours": one.oracle_hours,
            "policy": one.frontier.policy,
            "points": [point._asdict() for point in one.frontier.points],
        }
        for one in found
    ]


def grains(policies: Sequence[str]) -> None:
    """Azure's hour in both simulators: what the fluid one's seconds leave out."""
    trace = read_trace(TRACES / AZURE)
    assert isinstance(trace, RequestTrace)
    traffic = trace.traffic(speed=SLOW)
    print(f"{'policy':12} {'setting':>8} {'cold':>5}   {'by the second':>22}   {'by request':>22}")
    for cold in (0, *COLD_STARTS_S):
        for name in policies:
            every = settings_of(name)
            for setting in every[len(every) // 4 :: 3]:
                policy, initial = made_policy(name, setting, traffic, cold_start_s=cold)
                fluid = simulate(policy, traffic, cold_start_s=cold, initial=initial)
                policy, _ = made_policy(name, setting, traffic, cold_start_s=cold)
                single = simulate_requests(
                    policy, trace, engine=Engine.of_speed(SLOW), cold_start_s=cold, initial=fluid.ready[0]
                )
                told = [
                    f"{100 * one.attainment:9.3f} % {one.replica_hours:8.2f} h" for one in (fluid, single)
                ]
                print(f"{name:12} {setting:8g} {cold:5}   {told[0]:>22}   {told[1]:>22}")


def known_of(path: Path, cases: Sequence[Case], policies: Sequence[str]) -> list[Swept]:
    """What an earlier run wrote, of other policies and the same cases."""
    by_name = {(case.trace, case.seed): case for case in cases}
    return [
        Swept(
            by_name[one["trace"], one["seed"]],
            one["cold_start_s"],
            one["oracle_hours"],
            Frontier(one["policy"], tuple(Point(**point) for point in one["points"])),
        )
        for one in json.loads(path.read_text())
        if one["policy"] not in policies and (one["trace"], one["seed"]) in by_name
    ]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--days", type=float, help="only the first, with one seed")
    parser.add_argument(
        "--policies", help="some of them, with commas between; the verdicts need `ours` and a rival"
    )
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seeds", type=int, help="so many of three")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the frontiers")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every point")
    parser.add_argument(
        "--known", type=Path, metavar="FILE", help="take other policies from an earlier --json"
    )
    parser.add_argument(
        "--grain", action="store_true", help="Azure's hour in both simulators, and nothing else"
    )
    chosen = parser.parse_args()
    policies = (
        chosen.policies.split(",") if chosen.policies else [one for one in policy_names() if one != "oracle"]
    )
    if chosen.grain:
        grains(policies)
        return 0
    cases = cases_of(chosen.days, chosen.seeds)

    def keep(some: Sequence[Swept]) -> None:
        if chosen.json:
            chosen.json.write_text(json.dumps(document(some), indent=1) + "\n")

    found = swept(cases, policies, chosen.processes, keep)
    found += known_of(chosen.known, cases, policies) if chosen.known else []
    for case in cases:
        for cold in COLD_STARTS_S:
            table([one for one in found if (one.case, one.cold_start_s) == (case, cold)])
    keep(found)
    if chosen.plot:
        from autoscale_plot import draw  # noqa: PLC0415

        draw(document(found), chosen.plot)
    trace = cases[0].trace
    if not {"ours"} < {one.frontier.policy for one in found}:
        return 0
    for name in dict.fromkeys(case.trace for case in cases):
        for cold in COLD_STARTS_S:
            differences(Judged(found, name, cold), f"{name}, cold start {cold} s")
    return 0 if judge(found, trace, chosen.days) else 1


if __name__ == "__main__":
    sys.exit(main())
