"""One period of one fleet: look, decide, write down, tell. Any of it may fail; then what was decided last stands."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeVar

from textnlp_fast.errors import ConflictError, StorageUnavailableError, TextnlpFastError
from textnlp_fast.gpu.scaling.actuators.contract import Actuator, FleetState
from textnlp_fast.gpu.scaling.autoscaler.book import Book
from textnlp_fast.gpu.scaling.autoscaler.cold_starts import ColdStarts
from textnlp_fast.gpu.scaling.autoscaler.records import DecisionRecord, State, record_of
from textnlp_fast.gpu.scaling.decision import Alert, Decision, Reason
from textnlp_fast.gpu.scaling.observation import Observation
from textnlp_fast.gpu.scaling.policy import Policy, ScalingPolicy
from textnlp_fast.gpu.scaling.signals.contract import Observer
from textnlp_fast.telemetry import operation, phase

__all__ = ["FleetLoop", "Tallies"]

_log = logging.getLogger("textnlp_fast.gpu.autoscaler")
_Value = TypeVar("_Value")
_STEP_S: Final = 30.0
_RELEARN: Final = 0.2
_MOST_FORECASTS: Final = 2000


@dataclass(slots=True)
class Tallies:
    """What metrics tell of one fleet, since its loop was made."""

    target: int | None = None
    fleet: FleetState | None = None
    observation: Observation | None = None
    decision: Decision | None = None
    forecast_error: float | None = None
    """The last forecast whose time has come, less the demand then, in replicas."""
    parts: dict[str, int] = field(default_factory=dict)
    alerts: dict[str, int] = field(default_factory=dict)
    periods: int = 0


class FleetLoop:
    """What a period needs to know. `held` says whether this process may still act; the loop asks before it does.

    The actuator and the book are called on threads, one call at a time each; a call that takes longer than
    `step_timeout_s` is left alone, and nothing else is asked of the same one until it has ended.
    """

    def __init__(
        self,
        *,
        settings: ScalingPolicy,
        make_policy: Callable[[ScalingPolicy], Policy],
        actuator: Actuator,
        observer: Observer,
        book: Book,
        clock: Callable[[], float],
        holder: str,
        dry_run: bool = False,
        step_timeout_s: float = _STEP_S,
    ) -> None:
        self.settings = settings
        self.book = book
        self.actuator = actuator
        self.tallies = Tallies()
        self.state = State()
        self.cold_starts = ColdStarts()
        self.alerts: tuple[Alert, ...] = ()
        """Of the last period."""
        self._make_policy = make_policy
        self._policy = make_policy(settings)
        self._observer = observer
        self._clock = clock
        self._holder = holder
        self._dry_run = dry_run
        self._step_s = step_timeout_s
        self._busy: dict[str, asyncio.Future[Any]] = {}
        self._forecasts: list[tuple[float, float]] = []
        self._found: list[Alert] = []

    async def take_over(self, token: int) -> None:
        """Reads the state, makes it this holder's, and says again what may not have been heard.

        Raises ConflictError where another wrote meanwhile, CorruptDataError, StorageUnavailableError.
        """
        state = await self._call("store", self.book.load)
        self.cold_starts.restore(state.cold_starts)
        self._relearn()
        if state.policy is not None and state.policy_name == self._policy.name:
            try:
                self._policy.restore(state.policy)
            except TextnlpFastError as error:
                _log.warning("the policy begins anew: %s", error)
        if self._dry_run:
            self.state = state
            return
        self.state = await self._write(replace(state, token=token))

    async def again(self, held: Callable[[], bool]) -> None:
        """Carries out what a process before this one decided, and may not have told."""
        pending = self.state.pending
        if pending is None or self._dry_run:
            return
        outcome = await self._act(pending, held)
        self.state = self.state.with_outcome(outcome)

    async def period(self, held: Callable[[], bool]) -> DecisionRecord | None:
        """One decision, as it was carried out; None where there was nothing that could be done.

        Raises ConflictError where another holder has written: this one has to stop.
        """
        with operation("gpu.autoscale"):
            self._found = []
            with phase("observe"):
                fleet = await self._read()
                observation = await self._observe(fleet)
            with phase("decide"):
                decision = self._decide(observation, fleet)
            record = None
            if decision is not None:
                with phase("act"):
                    record = await self._carry_out(decision, observation, fleet, held)
            self.alerts = tuple(self._found)
            self.tallies.periods += 1
            for alert in self.alerts:
                self.tallies.alerts[alert.name] = self.tallies.alerts.get(alert.name, 0) + 1
            return record

    async def finish(self) -> None:
        """Writes down what came of the last decision. Raises as `period`."""
        if not self._dry_run and self.state.recent and self.state.recent[-1].outcome != "intended":
            self.state = await self._write(self.state)

    # --- the steps ----------------------------------------------------------------------------------------------

    async def _read(self) -> FleetState | None:
        try:
            fleet = await self._call("actuator", self.actuator.read)
        except Exception as error:  # noqa: BLE001 - whatever the fleet's owner answers, the loop goes on
            self._alert("fleet_unread", f"the fleet could not be read: {_in_a_line(error)}")
            self.tallies.fleet = None
            return None
        self.tallies.fleet = fleet
        self.cold_starts.seen(self._clock(), fleet.ready)
        self._relearn()
        return fleet

    async def _observe(self, fleet: FleetState | None) -> Observation:
        time_s = self._clock()
        try:
            observation = await asyncio.wait_for(self._observer.observe(fleet, time_s=time_s), self._step_s)
            for trouble in self._observer.trouble[:5]:
                self._alert("replica_unheard", trouble)
        except Exception as error:  # noqa: BLE001
            self._alert("metrics_missing", f"the fleet could not be observed: {_in_a_line(error)}")
            ready, starting = (fleet.ready, fleet.starting) if fleet is not None else (None, 0)
            observation = Observation(time_s, ready, starting)
        self.tallies.observation = observation
        return observation

    def _decide(self, observation: Observation, fleet: FleetState | None) -> Decision | None:
        stands = self.state.target if self.state.target is not None else fleet.desired if fleet else None
        try:
            decision = self._policy.decide(observation)
            if isinstance(decision.target, bool) or not isinstance(decision.target, int):
                raise TypeError(f"the policy wants {decision.target!r} replicas")
        except Exception as error:  # noqa: BLE001
            _log.exception("the policy failed")
            self._alert("policy_failed", f"the policy failed, and what stood stands: {_in_a_line(error)}")
            if stands is None:
                return None
            reason = Reason("hold", stands, "the policy failed; {replicas:.0f} replicas stand")
            decision = Decision(observation.time_s, stands, (reason,))
        if fleet is None and self.state.target is None:
            self._alert(
                "fleet_unknown", "nothing is known of the fleet yet: nothing is done until it can be read"
            )
            return None
        self._found += decision.alerts
        self._score(decision, observation)
        self.tallies.decision = decision
        part = decision.reasons[0].part if decision.reasons else "none"
        self.tallies.parts[part] = self.tallies.parts.get(part, 0) + 1
        return decision

    async def _carry_out(
        self, decision: Decision, observation: Observation, fleet: FleetState | None, held: Callable[[], bool]
    ) -> DecisionRecord:
        before = self.state.target
        wanted = decision.target
        if before is None and fleet is not None:
            # Rates show in the second observation: until then a fleet that is taken over is not made smaller.
            wanted = max(wanted, fleet.desired)
        target = self._bounded(wanted, fleet)
        number = self.state.number + 1
        record = record_of(
            decision,
            observation,
            number=number,
            decision_id=f"{self.book.name}-{number}"[-120:],
            target=target,
            before=before,
            alerts=tuple((one.name, one.text) for one in self._found),
            horizon_s=self.settings.cold_start.total_s,
            holder=self._holder,
        )
        self.tallies.target = target
        if self._dry_run:
            return replace(record, outcome="dry run")
        was = fleet.desired if before is None and fleet is not None else before
        if was is not None and target != was:
            self.cold_starts.ordered(observation.time_s, was, target)
        intended = replace(
            self.state,
            number=number,
            target=target,
            policy=dict(self._policy.snapshot()),
            policy_name=self._policy.name,
            cold_starts=self.cold_starts.document(),
            recent=(*self.state.recent, record),
        )
        try:
            self.state = await self._write(intended)
        except (StorageUnavailableError, TimeoutError, asyncio.TimeoutError) as error:
            # Nobody is told what is not written down: another process could not go on from there.
            self._alert("store_unavailable", f"the decision could not be written down: {_in_a_line(error)}")
            raise ConflictError(
                f"the state of {self.book.name} may or may not have been written",
                hint="It is read again as soon as the store answers.",
            ) from error
        outcome = await self._act(record, held)
        self.state = self.state.with_outcome(outcome)
        if target != before:
            await self.finish()
        return self.state.recent[-1]

    async def _act(self, record: DecisionRecord, held: Callable[[], bool]) -> str:
        if not held():
            raise ConflictError("the lease is over: another may be at work")
        try:
            await self._call(
                "actuator", lambda: self.actuator.scale_to(record.target, decision_id=record.decision_id)
            )
        except Exception as error:  # noqa: BLE001
            text = f"the fleet was not told {record.target}: {_in_a_line(error)}"
            self._alert("actuator_failed", text)
            return f"failed: {_in_a_line(error)}"
        return "told"

    def _bounded(self, target: int, fleet: FleetState | None) -> int:
        """Within the user's bounds, and within those of the group, which would refuse or cut it."""
        least, most = self.settings.min_instances, self.settings.max_instances
        bounded = min(max(target, least), most)
        if fleet is not None:
            group = bounded
            if fleet.max_size is not None:
                group = min(group, fleet.max_size)
            if fleet.min_size is not None:
                group = max(group, fleet.min_size)
            if group != bounded:
                text = (
                    f"the group's own bounds make {group} of {bounded} replicas: change them, or the policy's"
                )
                self._alert("group_bounds", text)
            bounded = group
        return bounded

    # --- inside -------------------------------------------------------------------------------------------------

    async def _write(self, state: State) -> State:
        return await self._call("store", lambda: self.book.write(state))

    async def _call(self, what: str, function: Callable[[], _Value]) -> _Value:
        """A call on a thread, with a deadline. A thread cannot be ended: while one hangs, no other joins it."""
        busy = self._busy.get(what)
        if busy is not None and not busy.done():
            raise TimeoutError(f"the {what} still hangs in a call of an earlier period")
        future = asyncio.ensure_future(asyncio.to_thread(function))
        self._busy[what] = future
        try:
            return await asyncio.wait_for(asyncio.shield(future), self._step_s)
        except (TimeoutError, asyncio.TimeoutError):
            if future.done():
                return future.result()
            future.add_done_callback(_heard)
            raise TimeoutError(f"the {what} did not answer within {self._step_s:g} s") from None

    def _alert(self, name: str, text: str) -> None:
        self._found.append(Alert(name, text[:400]))

    def _score(self, decision: Decision, observation: Observation) -> None:
        """Holds forecasts whose time has come against the demand."""
        due = [one for one in self._forecasts if one[0] <= observation.time_s]
        if due and decision.demand is not None and math.isfinite(decision.demand):
            self.tallies.forecast_error = due[-1][1] - decision.demand
        self._forecasts = [one for one in self._forecasts if one[0] > observation.time_s][-_MOST_FORECASTS:]
        if decision.forecast is not None and math.isfinite(decision.forecast):
            self._forecasts.append((observation.time_s + self.settings.cold_start.total_s, decision.forecast))

    def _relearn(self) -> None:
        """Gives the policy the cold start that was measured, where it is another than it counts on."""
        measured_s = self.cold_starts.expected_s()
        cold = self.settings.cold_start
        if measured_s is None or abs(measured_s - cold.total_s) <= max(
            _RELEARN * cold.total_s, self.settings.period_s
        ):
            return
        # What the caller said of weights and warm-up stays; where all took less than those, they are cut, too.
        rest_s = cold.weights_s + cold.warm_up_s
        scale = 1.0 if measured_s >= rest_s else measured_s / rest_s
        learned = replace(
            cold,
            provisioning_s=max(0.0, measured_s - rest_s),
            weights_s=cold.weights_s * scale,
            warm_up_s=cold.warm_up_s * scale,
        )
        settings = replace(self.settings, cold_start=learned)
        snapshot = self._policy.snapshot()
        policy = self._make_policy(settings)
        try:
            policy.restore(snapshot)
        except TextnlpFastError:
            _log.warning("the policy keeps the cold start that it was told: its state does not fit another")
            return
        _log.info("replicas take %.0f s to serve, not %.0f s", measured_s, cold.total_s)
        self.settings, self._policy = settings, policy


def _heard(future: asyncio.Future[Any]) -> None:
    if not future.cancelled() and (error := future.exception()) is not None:
        _log.warning("a call that was given up failed: %s", _in_a_line(error))


def _in_a_line(error: BaseException) -> str:
    said = str(error.args[0]) if isinstance(error, TextnlpFastError) and error.args else str(error)
    return " ".join(said.split())[:300] or type(error).__name__
