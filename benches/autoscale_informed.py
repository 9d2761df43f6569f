"""What one would attain who knew all but the noise that is to come: how much room others have at most, about.

    python benches/autoscale_informed.py                 three seeds, 14 days: some minutes
    python benches/autoscale_informed.py --seeds 1 --days 3

The traffic of `benches/autoscale.py` is a recorded rate times slow noise (an Ornstein-Uhlenbeck process), with Poisson
arrivals. The informed policy is told at each step the noise of this second without that of arrivals, the law by which
it moves on, and the recorded rates to come. It orders the quantile of what a cold start later brings; a dead band says
how seldom it changes. Both are swept. A policy that sees arrivals has to estimate the first, and to guess the last. It
is no proven bound: better ways to use that knowledge may exist.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from textnlp_fast.gpu.scaling.decision import Decision
from textnlp_fast.gpu.scaling.observation import Observation
from textnlp_fast.gpu.scaling.simulator.fluid import simulate
from textnlp_fast.gpu.scaling.simulator.oracle import oracle_of
from textnlp_fast.gpu.scaling.simulator.runs import Frontier, Point
from textnlp_fast.gpu.scaling.simulator.traces import RateTrace, read_trace
from textnlp_fast.gpu.scaling.simulator.traffic import Bursts, Traffic, slow_noise

TRACE = Path(__file__).parents[2] / "shared" / "data" / "traces" / "servegen_m_large_rate.csv"
SCALE = 0.1
DEVIATIONS = (1.0, 1.4, 1.8, 2.2, 2.6, 3.0, 3.4, 3.8)
# Up when the need is this much above what was ordered last, down when it is that much below it, in replicas.
BANDS = ((0.0, 1.0), (0.0, 1.5), (0.3, 1.3), (0.5, 2.5), (0.7, 3.5))
COLD_STARTS_S = (180, 600)
ATTAINMENT, EQUAL_HOURS, CHANGES = 0.999, 1.29, 3000


class Found(NamedTuple):
    """One dead band's frontier over the deviations."""

    seed: int
    cold_start_s: int
    band: tuple[float, float]
    oracle_hours: float
    frontier: Frontier


class Informed:
    """Orders what the traffic's own law says will be enough, `deviations` above what is expected."""

    name = "informed"

    def __init__(self, need: npt.NDArray[np.float64], band: tuple[float, float]) -> None:
        self._need, self._band = need, band
        self._step = 0
        self._last = math.ceil(need[0])

    def decide(self, observation: Observation) -> Decision:
        need = float(self._need[min(self._step, len(self._need) - 1)])
        self._step += 1
        above, below = self._band
        if need > self._last + above:
            self._last = math.ceil(need - above)
        elif need < self._last - below:
            self._last = math.ceil(need)
        return Decision(observation.time_s, max(1, self._last))

    def snapshot(self) -> Mapping[str, Any]:
        raise NotImplementedError("it lives in benches, and is never restarted")

    def restore(self, state: Mapping[str, Any]) -> None:
        raise NotImplementedError


def needs(
    trace: RateTrace, traffic: Traffic, seed: int, cold_start_s: float, deviations: float
) -> npt.NDArray[np.float64]:
    """Replicas that are enough a cold start after each step's end, with the chance that `deviations` stand for."""
    bursts, seconds = Bursts(), len(traffic.requests)
    noise = slow_noise(np.random.default_rng(seed), seconds, bursts)
    times = np.asarray(trace.times_s)
    rates = np.interp(times[0] + np.arange(seconds) + 0.5, times, np.asarray(trace.rates)) * SCALE
    now = np.minimum((np.arange(traffic.steps) + 1) * traffic.step_s, seconds - 1)
    then = np.minimum(now + int(cold_start_s), seconds - 1)
    kept = math.exp(-cold_start_s / bursts.correlation_s)
    spread = bursts.sigma * math.sqrt(1.0 - kept * kept)
    level = noise[now] * kept + deviations * spread - bursts.sigma**2 / 2.0
    return np.asarray(rates[then] * traffic.mean_work_s * np.exp(level), dtype=np.float64)


def swept(job: tuple[int, int, float | None]) -> list[Found]:
    """All settings on one seed and cold start."""
    seed, cold_start_s, days = job
    trace = read_trace(TRACE)
    assert isinstance(trace, RateTrace)
    traffic = trace.traffic(scale=SCALE, seed=seed, days=days)
    oracle = oracle_of(traffic, cold_start_s=cold_start_s).replica_hours
    need = {each: needs(trace, traffic, seed, cold_start_s, each) for each in DEVIATIONS}
    found = []
    for band in BANDS:
        points = []
        for deviations in DEVIATIONS:
            run = simulate(Informed(need[deviations], band), traffic, cold_start_s=cold_start_s)
            points.append(Point(deviations, run.attainment, run.replica_hours, run.changes))
        found.append(Found(seed, cold_start_s, band, oracle, Frontier(Informed.name, tuple(points))))
    return found


def report(found: Sequence[Found], seeds: int) -> None:
    for cold_start_s in COLD_STARTS_S:
        print(f"\nservegen/10, cold start {cold_start_s} s, mean of {seeds} seeds")
        print(f"{'dead band':>12} {'hours at 99.9 %':>16} {'changes':>8} {'attained at 1.29x':>18}")
        for band in BANDS:
            rows = []
            for one in found:
                if one[1:3] == (cold_start_s, band):
                    enough = one.frontier.at_attainment(ATTAINMENT)
                    equal = one.frontier.at_hours(EQUAL_HOURS * one.oracle_hours)
                    rows.append(
                        (
                            enough.replica_hours / one.oracle_hours if enough else math.nan,
                            enough.changes if enough else math.nan,
                            equal.attainment if equal else math.nan,
                        )
                    )
            hours, changes, attained = (float(one) for one in np.mean(rows, axis=0))
            few = "" if changes <= CHANGES else "  more changes than are allowed"
            print(
                f"{f'+{band[0]:g} -{band[1]:g}':>12} {hours:>15.3f}x {changes:>8.0f} {100 * attained:>16.2f} %{few}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--days", type=float)
    parser.add_argument("--processes", type=int, default=2)
    chosen = parser.parse_args()
    if not TRACE.exists():
        parser.exit(message="The recorded trace is not here.\n")
    seeds = range(1, chosen.seeds + 1)
    jobs = [(seed, cold, chosen.days) for seed in seeds for cold in COLD_STARTS_S]
    with multiprocessing.get_context("spawn").Pool(chosen.processes) as pool:
        found = [one for many in pool.map(swept, jobs) for one in many]
    report(found, len(seeds))


if __name__ == "__main__":
    main()
