"""The policy: load, level, forecast, margin, step, bounds; each says what it wanted."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from textnlp_fast.errors import CorruptDataError
from textnlp_fast.gpu.scaling.decision import Alert, Decision, Reason
from textnlp_fast.gpu.scaling.engine.demand import DemandMeter, Reading
from textnlp_fast.gpu.scaling.engine.forecast import Forecast
from textnlp_fast.gpu.scaling.engine.level import Level
from textnlp_fast.gpu.scaling.engine.margin import chance_at, replicas_for
from textnlp_fast.gpu.scaling.engine.schedule import floor_at
from textnlp_fast.gpu.scaling.engine.slo import SloFeedback
from textnlp_fast.gpu.scaling.engine.steps import Steps
from textnlp_fast.gpu.scaling.numbers import number, number_or_none, whole
from textnlp_fast.gpu.scaling.observation import Observation
from textnlp_fast.gpu.scaling.policy import ScalingPolicy

__all__ = ["LLMPolicy"]

_BAND: Final = 10.0
"""Fewer replicas are borne until the chance of missing is so many times the one that is aimed at."""
_MOST_CHANCE: Final = 0.45
_WEIGHT: Final = 1.2
"""How fast the accepted chance falls with the load: a little more than in proportion, for a queue that has formed makes
all later requests late, too, and a large fleet's takes as long to clear."""
_LATE: Final = 30.0
"""Periods after which what was remembered of the traffic is no longer the traffic."""
_VERSION: Final = 1


class LLMPolicy:
    """How many replicas keep an LLM's queue within the SLO when those ordered now serve; see this package's docstring.

    `decide` bears anything: where an observation is missing, late or cannot be true, the last decision stands and an
    alert says why. Decisions are within the bounds of `settings`, which hold over everything else, the schedule's
    floors among them; a budget holds over all but `min_instances`.
    """

    name = "ours"

    def __init__(self, settings: ScalingPolicy | None = None) -> None:
        self.settings = settings or ScalingPolicy()
        s = self.settings
        self._most = s.max_instances
        if s.budget_usd_per_hour is not None and s.usd_per_hour is not None:
            self._most = max(s.min_instances, min(self._most, int(s.budget_usd_per_hour / s.usd_per_hour)))
        self.lead_s = max(s.cold_start.total_s, s.period_s)
        self._meter = DemandMeter(s.capacity)
        self._level, self._forecast = Level(), Forecast(self.lead_s)
        self._steps = Steps(s.scale_down_delay_s)
        self._slo = SloFeedback(s.slo_attainment)
        self._time_s: float | None = None
        self._last: int | None = None
        self._begun_s: float | None = None
        self._idle_since_s: float | None = None
        self._usual = 0.0
        self._panic_until_s = -math.inf

    # --- the decision ------------------------------------------------------------------------------------------------

    def decide(self, observation: Observation) -> Decision:
        """The number of replicas for this period, with reasons: the one that decided first."""
        now = observation.time_s
        if not isinstance(now, int | float) or not math.isfinite(now):
            return self._held(now, "metrics_invalid", "The observation carries no time.", observation)
        if self._time_s is not None and now <= self._time_s:
            text = f"The observation is {self._time_s - now:.0f} s older than the one before."
            return self._held(now, "metrics_late", text, observation)
        period = self.settings.period_s
        elapsed = period if self._time_s is None else now - self._time_s
        if observation.ready is None:
            return self._held(
                now, "metrics_missing", "The fleet could not be asked for its replicas.", observation
            )
        try:
            reading = self._meter.read(observation, min(elapsed, 60 * period))
        except (TypeError, ValueError, OverflowError) as error:
            return self._held(
                now, "metrics_invalid", f"An observation could not be read: {error}.", observation
            )
        starting = observation.starting
        if not 0 <= observation.ready < 10**9 or not isinstance(starting, int) or starting < 0:
            text = f"{observation.ready} replicas are said to be ready and {observation.starting} starting."
            return self._held(now, "metrics_invalid", text, observation)
        if reading.problem:
            return self._held(now, reading.problem, reading.text, observation)
        self._time_s = now
        return self._decided(observation, reading, observation.ready, now, elapsed)

    def _decided(
        self, observation: Observation, reading: Reading, ready: int, now: float, elapsed: float
    ) -> Decision:
        settings, level, forecast = self.settings, self._level, self._forecast
        alerts: tuple[Alert, ...] = ()
        if elapsed > _LATE * settings.period_s:
            alerts = (Alert("metrics_late", f"Nothing was observed for {elapsed:.0f} s."),)
            elapsed = _LATE * settings.period_s
        scatter = level.scatter
        level.follow(reading.load, min(elapsed, settings.period_s), forecast.variance * elapsed / self.lead_s)
        load = level.replicas
        forecast.look(now, level.log or 0.0, elapsed)
        self._usual += (load - self._usual) * (0.001 if self._usual else 1.0)
        if self._begun_s is None:
            self._begun_s = now
        if now - self._begun_s > 2.0 * self.lead_s:
            # Before, what was ordered here could not serve yet: misses say nothing of the margin.
            self._slo.observe(observation.slo_attainment, elapsed, min(2.0, load / max(self._usual, 1e-3)))
        expected = load * math.exp(forecast.change)
        chance = chance_at(expected, self._slo.price, _WEIGHT)
        wait_s = settings.queue_wait_s
        burst = scatter * expected
        needed = replicas_for(expected, forecast.sigma, burst, chance, wait_s)
        part, at_least = "forecast", 0.0
        if expected < load:
            reactive = replicas_for(load, 0.0, scatter * load, chance, wait_s)
            if reactive > needed:
                part, needed, at_least = "reactive", reactive, reactive - 0.5
        utilisation = settings.target_utilisation
        if utilisation is not None and load / utilisation > needed:
            part, needed = "reactive", load / utilisation
            at_least = needed - 0.5
        there = self._steps.target
        if there is not None and needed > there:
            # What is clearly too few; nobody asks where there are enough.
            band = min(_MOST_CHANCE, _BAND * chance)
            at_least = max(at_least, replicas_for(expected, forecast.sigma, burst, band, wait_s))
        panic = reading.backlog > max(1, ready) * wait_s or level.surprised
        if panic:
            self._panic_until_s = now + self.lead_s
            # What is asked now, without the filter's patience.
            rush = replicas_for(max(reading.load, load), 0.0, scatter * load, chance, wait_s)
            if rush > needed:
                part, needed, at_least = "panic", rush, max(at_least, rush - 0.5)
        done = self._steps.take(
            now,
            needed,
            at_least,
            expected,
            there=ready + observation.starting,
            may_fall=now >= self._panic_until_s,
        )
        wanted = self._steps.target or 0
        reason = Reason(
            part, needed, _TEXTS[part], (("load", load), ("expected", expected), ("lead", self.lead_s))
        )
        return self._bounded(now, wanted, observation, reading, done, reason, alerts, expected, load)

    def _bounded(
        self,
        now: float,
        wanted: int,
        observation: Observation,
        reading: Reading,
        done: str,
        reason: Reason,
        alerts: tuple[Alert, ...],
        expected: float,
        load: float,
    ) -> Decision:
        settings = self.settings
        target = wanted
        reasons: tuple[Reason, ...] = (reason,)
        if done == "hold" and math.ceil(reason.replicas) != wanted:
            reasons = (
                Reason("hold", wanted, "{replicas:.0f} replicas are kept: the need has not left them"),
                reason,
            )
        floor = floor_at(settings.schedule, now)
        if floor > target:
            target = floor
            reasons = (Reason("schedule", floor, "a floor of {replicas:.0f} is scheduled for now"), *reasons)
        if settings.min_instances == 0 and self._idle(now, reading, observation):
            target = floor
            reasons = (Reason("idle", target, f"nobody asked for {settings.idle_to_zero_s:.0f} s"), *reasons)
        elif target < max(1, settings.min_instances):
            target = max(1, settings.min_instances)
            reasons = (Reason("minimum", target, "{replicas:.0f} is the least that is set"), *reasons)
        price, budget_usd = settings.usd_per_hour, settings.budget_usd_per_hour
        if price is not None and budget_usd is not None and settings.min_instances * price > budget_usd:
            text = (
                f"min_instances costs {settings.min_instances * price:g} USD/h, the budget is {budget_usd:g}."
            )
            alerts = (*alerts, Alert("budget_below_minimum", text))
        if target > self._most:
            budget = self._most < settings.max_instances
            name = "budget_reached" if budget else "at_max_instances"
            text = f"{target} replicas are needed, and {self._most} are allowed by " + (
                "the budget." if budget else "max_instances."
            )
            alerts = (*alerts, Alert(name, text))
            target = self._most
            limit = Reason(
                "budget" if budget else "limit", target, "{replicas:.0f} is the most that is allowed"
            )
            reasons = (limit, *reasons)
        self._last = target
        return Decision(now, target, reasons, alerts, expected, load)

    def _idle(self, now: float, reading: Reading, observation: Observation) -> bool:
        """Whether nobody has asked for so long that the last replica may go."""
        asked = (
            reading.load > 0.0
            or (observation.waiting_requests or 0) > 0
            or (observation.running_requests or 0) > 0
        )
        if asked:
            self._idle_since_s = None
            return False
        if self._idle_since_s is None:
            self._idle_since_s = now
        return now - self._idle_since_s >= self.settings.idle_to_zero_s

    def _held(self, now: float, name: str, text: str, observation: Observation) -> Decision:
        """The last decision again; before the first, what is there."""
        target = self._last
        if target is None:
            ready = observation.ready
            there = ready if isinstance(ready, int) and 0 <= ready < 10**9 else 0
            target = max(there, self.settings.min_instances, 1 if self.settings.min_instances else 0)
            target = max(self.settings.min_instances, min(self._most, target))
            if there:
                # What was seen once is kept also where the next look sees nothing.
                self._last = target
        reason = Reason(
            "hold", target, "{replicas:.0f} replicas are kept: the observation is not to be trusted"
        )
        return Decision(now, target, (reason,), (Alert(name, text),), None, None)

    # --- the state ---------------------------------------------------------------------------------------------------

    def snapshot(self) -> Mapping[str, Any]:
        return {
            "version": _VERSION,
            "time_s": self._time_s,
            "last": self._last,
            "begun_s": self._begun_s,
            "idle_since_s": self._idle_since_s,
            "usual": self._usual,
            "panic_until_s": self._panic_until_s if math.isfinite(self._panic_until_s) else None,
            "meter": self._meter.snapshot(),
            "level": self._level.snapshot(),
            "forecast": self._forecast.snapshot(),
            "steps": self._steps.snapshot(),
            "slo": self._slo.snapshot(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from a snapshot of a policy with these settings; one of other bounds is cut to these."""
        fresh = LLMPolicy(self.settings)
        try:
            if whole(state["version"]) != _VERSION:
                raise ValueError(f"version {state['version']!r}")
            for part in ("meter", "level", "forecast", "steps", "slo"):
                getattr(fresh, f"_{part}").restore(state[part])
            fresh._time_s = number_or_none(state["time_s"])
            last = state["last"]
            fresh._last = (
                None if last is None else max(self.settings.min_instances, min(self._most, whole(last)))
            )
            fresh._begun_s = number_or_none(state["begun_s"])
            fresh._idle_since_s = number_or_none(state["idle_since_s"])
            fresh._usual = number(state["usual"])
            panic = number_or_none(state["panic_until_s"])
            fresh._panic_until_s = -math.inf if panic is None else panic
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
            raise CorruptDataError(
                f"the autoscaler's state cannot be read: {error!r}",
                hint="Remove it: the policy begins anew, and knows the traffic again after some hours.",
            ) from None
        self.__dict__.update(fresh.__dict__)


_TEXTS: Final = {
    "forecast": "{expected:.2f} replicas of load are expected in {lead:.0f} s, and {replicas:.2f} keep the SLO",
    "reactive": "the load of {load:.2f} replicas needs {replicas:.2f} now",
    "panic": "the load has jumped or a queue has formed: {replicas:.2f} replicas are needed at once",
}
