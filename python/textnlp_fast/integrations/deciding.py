"""Decisions that stand: each fleet's policy is asked once a period, and whoever asks in between is told what stands.

The engines that use this (KEDA, HPA) poll when they like. A policy is asked on its own clock instead, so that what it
learns of the traffic does not depend on who polls how often. One thread keeps the clock of all fleets, a few others
observe and decide; both end with `close`.

When a fleet cannot be observed, its last decision stands for `hold_s`: the policy is asked blindly, and what it says
counts only upwards. After that nothing stands, and the engine is told so; KEDA and HPA then hold, or do what their own
settings say for such a case. A fleet that nobody has asked about for `forget_after_s` is forgotten.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, NamedTuple

from textnlp_fast.errors import ProviderUnavailableError, QuotaError, TextnlpFastError
from textnlp_fast.gpu.scaling.decision import Decision
from textnlp_fast.gpu.scaling.observation import Observation
from textnlp_fast.gpu.scaling.policy import Policy, ScalingPolicy
from textnlp_fast.integrations.hpa import SYNC_S, shown

__all__ = ["DecisionBoard", "Entry", "Fleet", "Observer", "Standing"]

_log: Final = logging.getLogger(__name__)

#: Of one family: settings that are changed again and again do not crowd out the others.
_MOST_OF_A_FAMILY: Final = 8
_SWEEP_S: Final = 1.0

Observer = Callable[[], Observation]
"""Looks at a fleet once, within a time limit of its own. Whatever it raises counts as not observed."""


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """What is decided about, and how."""

    settings: ScalingPolicy
    policy: Policy
    observe: Observer
    tolerance: float
    """Of the HPA that follows."""
    hold_s: float = 600.0
    """How long the last decision stands while nothing can be observed."""


class Standing(NamedTuple):
    """What stands for a fleet."""

    decision: Decision
    replicas: int
    """What the engine is shown: the target, or a little more where an HPA's tolerance would swallow the difference."""
    observed_s: float
    """When the fleet was observed last, on the monotonic clock."""
    recent: tuple[tuple[float, int], ...]
    """What an HPA may have read and acted upon since it is known to have read: when it was shown last, and what."""
    error: str | None = None
    """Why the fleet could not be observed this time."""

    @property
    def active(self) -> bool:
        return self.decision.target > 0


class Entry:
    """One fleet on the board."""

    def __init__(self, key: Hashable, family: Hashable, fleet: Fleet) -> None:
        self.key = key
        self.family = family
        self.fleet = fleet
        self.asked_s = time.monotonic()
        self.watched = 0
        self.policy_lock = threading.Lock()
        self._changed = threading.Condition()
        self._standing: Standing | None = None
        self._error: str | None = None
        self._watchers: dict[int, Callable[[], None]] = {}
        self._numbers = itertools.count()

    def look(self) -> Standing | None:
        """What stands now; None: nothing yet, or nothing any more."""
        self.asked_s = time.monotonic()
        standing = self._standing
        if standing is None or self.asked_s - standing.observed_s > self.fleet.hold_s:
            return None
        return standing

    @property
    def failing(self) -> bool:
        """The last look was in vain."""
        return self._error is not None

    @property
    def decided(self) -> bool:
        """A first look has ended, well or not."""
        return self._standing is not None or self._error is not None

    def wait(self, timeout_s: float) -> Standing:
        """What stands, once the first look has ended. Raises ProviderUnavailableError."""
        with self._changed:
            self._changed.wait_for(lambda: self.look() is not None or self.failing, timeout_s)
        standing = self.look()
        if standing is None:
            raise self.nothing()
        return standing

    def nothing(self) -> ProviderUnavailableError:
        """The error that says that nothing stands, and why."""
        why = self._error or "the first look has not ended yet"
        return ProviderUnavailableError(
            f"no decision stands for this fleet: {why}",
            hint="Check that the metrics' address answers from here; the replicas stay as they are meanwhile.",
        )

    def watch(self, hear: Callable[[], None]) -> Callable[[], None]:
        """Calls `hear` after each decision, on a thread of the board's, until the returned function is called."""
        with self._changed:
            number = next(self._numbers)
            self._watchers[number] = hear
            self.watched += 1

        def stop() -> None:
            with self._changed:
                if self._watchers.pop(number, None) is not None:
                    self.watched -= 1
                    self.asked_s = time.monotonic()

        return stop

    def decide(self) -> None:
        """Observes and decides once. Only one thread at a time does it."""
        last, error = self._standing, None
        observed_s = time.monotonic()
        try:
            observation = self.fleet.observe()
        except Exception as failure:  # noqa: BLE001  (an observer is anybody's code; the failure is told and logged)
            error = _sentence(failure)
            _log.warning("fleet %s could not be observed: %s", self.key, error)
            if last is None:
                self._publish(None, error)
                return
            observation, observed_s = Observation(time_s=time.time(), ready=None), last.observed_s
        try:
            with self.policy_lock:
                decision = self.fleet.policy.decide(self._with_what_is_ordered(observation, last))
        except Exception as failure:  # noqa: BLE001  (a policy may be anybody's code, too)
            _log.exception("the policy of fleet %s failed", self.key)
            self._publish(last, _sentence(failure))
            return
        if error is not None and last is not None and decision.target < last.decision.target:
            decision = decision._replace(target=last.decision.target)
        self._publish(self._standing_for(decision, observation, last, observed_s, error), error)

    def _standing_for(
        self,
        decision: Decision,
        observation: Observation,
        last: Standing | None,
        observed_s: float,
        error: str | None,
    ) -> Standing:
        settings = self.fleet.settings
        target = min(max(decision.target, settings.min_instances), settings.max_instances)
        now_s = time.monotonic()
        recent = {count: at_s for at_s, count in (last.recent if last else ()) if now_s - at_s <= SYNC_S}
        seen = set() if observation.ready is None else {observation.ready + observation.starting}
        replicas = shown(target, among=seen | recent.keys(), tolerance=self.fleet.tolerance)
        recent[min(replicas, settings.max_instances)] = now_s
        shown_at = tuple((at_s, count) for count, at_s in recent.items())
        return Standing(decision._replace(target=target), replicas, observed_s, shown_at, error)

    def _with_what_is_ordered(self, observation: Observation, last: Standing | None) -> Observation:
        """Metrics of servers say nothing of replicas that do not serve yet; the HPA has ordered what it was shown."""
        if last is None or observation.ready is None:
            return observation
        ordered = min(last.replicas, self.fleet.settings.max_instances)
        return observation._replace(starting=max(observation.starting, ordered - observation.ready))

    def _publish(self, standing: Standing | None, error: str | None) -> None:
        with self._changed:
            self._standing, self._error = standing, error
            self._changed.notify_all()
            watchers = list(self._watchers.values())
        for hear in watchers:
            hear()


class DecisionBoard:
    """All fleets of one process. Use as a context manager, or call `close`."""

    def __init__(self, *, workers: int = 8, most_fleets: int = 1000, forget_after_s: float = 300.0) -> None:
        self._most, self._forget_after_s = most_fleets, forget_after_s
        self._entries: dict[Hashable, Entry] = {}
        self._due: list[tuple[float, int, Entry]] = []
        self._numbers = itertools.count()
        self._wake = threading.Condition()
        self._closed = False
        self._swept_s = time.monotonic()
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="textnlp-fast-decide")
        self._clock = threading.Thread(target=self._keep_time, name="textnlp-fast-clock", daemon=True)
        self._clock.start()

    def __enter__(self) -> DecisionBoard:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._entries)

    def close(self) -> None:
        """Stops deciding; a look that is under way may still end."""
        with self._wake:
            self._closed = True
            self._wake.notify_all()
        self._clock.join()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def enrol(self, key: Hashable, make: Callable[[], Fleet], *, family: Hashable = None) -> Entry:
        """The fleet of that key, made and decided about from now on if it is new.

        A fleet whose settings have changed has a new key; its policy goes on from the state of the newest one of the
        same `family`. Raises QuotaError when there are too many, and what `make` raises.
        """
        with self._wake:
            entry = self._entries.get(key)
        if entry is not None:
            entry.asked_s = time.monotonic()
            return entry
        fleet = make()
        with self._wake:
            if (entry := self._entries.get(key)) is not None:
                return entry
            self._make_room(family)
            if self._closed or len(self._entries) >= self._most:
                raise QuotaError(
                    f"{len(self._entries)} fleets are decided about here already",
                    hint="Run another scaler for the others, or raise --most-fleets.",
                )
            entry = Entry(key, family, fleet)
            self._inherit(entry)
            self._entries[key] = entry
            self._push(entry, time.monotonic())
        return entry

    def _inherit(self, entry: Entry) -> None:
        older = [
            one for one in self._entries.values() if one.family == entry.family and one.family is not None
        ]
        if not older:
            return
        newest = max(older, key=lambda one: one.asked_s)
        try:
            with newest.policy_lock:
                state = newest.fleet.policy.snapshot()
            entry.fleet.policy.restore(state)
        except TextnlpFastError as error:
            _log.warning("fleet %s starts without what was learned before: %s", entry.key, error)

    def _push(self, entry: Entry, due_s: float) -> None:
        heapq.heappush(self._due, (due_s, next(self._numbers), entry))
        self._wake.notify_all()

    def _make_room(self, family: Hashable) -> None:
        if len(self._entries) >= self._most:
            self._forget()
        relatives = [one for one in self._entries.values() if one.family == family and family is not None]
        if len(relatives) >= _MOST_OF_A_FAMILY:
            idle = [one for one in relatives if not one.watched] or relatives
            del self._entries[min(idle, key=lambda one: one.asked_s).key]

    def _forget(self) -> None:
        now = self._swept_s = time.monotonic()
        for key, entry in list(self._entries.items()):
            if not entry.watched and now - entry.asked_s > self._forget_after_s:
                del self._entries[key]

    def _keep_time(self) -> None:
        with self._wake:
            while not self._closed:
                now = time.monotonic()
                if now - self._swept_s >= _SWEEP_S:
                    self._forget()
                while self._due and self._due[0][0] <= now:
                    entry = heapq.heappop(self._due)[2]
                    # One that was crowded out before its first look has somebody who waits for it.
                    if self._entries.get(entry.key) is entry or not entry.decided:
                        self._pool.submit(self._run, entry)
                self._wake.wait(self._due[0][0] - now if self._due else None)

    def _run(self, entry: Entry) -> None:
        begun_s = time.monotonic()
        try:
            entry.decide()
        finally:
            with self._wake:
                if not self._closed:
                    # A look that takes longer than the period delays the next one; none are made up for.
                    self._push(entry, max(begun_s + entry.fleet.settings.period_s, time.monotonic()))


def _sentence(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__
