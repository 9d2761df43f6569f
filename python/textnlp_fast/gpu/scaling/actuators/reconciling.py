"""From a number to a group that has it: look, mark who has to go, tell the group, let go who is empty.

Each call makes one pass and waits for nobody. What a pass does follows from the group as it is now, with its marks, so
that a pass that was cut off anywhere is taken up by the next one, in whatever process.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Final

from textnlp_fast.errors import ConflictError, InvalidInputError, ProviderUnavailableError, TextnlpFastError
from textnlp_fast.gpu.providers.calling import Patience, at_once
from textnlp_fast.gpu.scaling.actuators.contract import Actuator, Drain, FleetState
from textnlp_fast.gpu.scaling.actuators.groups import (
    GroupView,
    Member,
    checked_count,
    checked_decision,
    fleet_state,
    newest_first,
    replica_of,
)

__all__ = ["AnswerLostError", "GroupActuator"]

_log = logging.getLogger(__name__)
_MOST_PASSES: Final = 6


class AnswerLostError(ProviderUnavailableError):
    """Whether a request that must not be made twice was heard is not known: only a new look can tell."""


class GroupActuator(Actuator):
    """A group whose size its cloud keeps.

    `drain` is called for each replica that has to go, once a call of `scale_to`, with the seconds that are left of
    `drain_s`; it should answer at once, and bring a deadline of its own. The replica is ended when it says True.
    Without it nobody knows when a replica is empty, and it is ended `drain_s` after it was marked. `give_up_s`: it is
    ended so long after it was marked, streams or not; None: never.
    """

    chooses = True
    """Whether it is said here who goes. Where not, the group is told the number and ends whom it likes, in its way."""

    overshoots = False
    """Whether the group has more than it was told for a while, which it ends by itself and does not count."""

    def __init__(
        self,
        *,
        patience: Patience,
        drain: Drain | None = None,
        drain_s: float = 600.0,
        give_up_s: float | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        for name, value in (("drain_s", drain_s), ("give_up_s", give_up_s)):
            if value is not None and not 0 <= value < math.inf:
                raise InvalidInputError(f"{name}={value!r} is no number of seconds")
        self._patience = patience
        self._drain = drain
        self._drain_s = drain_s
        self._give_up_s = give_up_s
        self._clock = clock
        self._lock = threading.Lock()
        self._decision = ""
        """The decision that is being carried out; set under the lock."""

    # --- what each kind of group does -------------------------------------------------------------------------

    @abstractmethod
    def _look(self, until: float) -> GroupView:
        """The group now. Raises ObjectNotFoundError where there is none of the name."""

    @abstractmethod
    def _tell(self, view: GroupView, told: int, until: float) -> None:
        """Tells the group its number, where it is as in the view. ConflictError: it is not."""

    @abstractmethod
    def _mark(self, members: Sequence[Member], at_s: float, until: float) -> None:
        """Marks members as draining, where that survives this process. Those that are gone are passed over."""

    @abstractmethod
    def _end(self, member: Member, *, told: int, shrink: bool, until: float) -> None:
        """Ends a member and takes its place out of the group's number; without `shrink`, the group may fill the place.

        `told` is the number before. Raises AnswerLostError where it is not known whether it happened. A member that is
        gone is passed over.
        """

    def _is_there(self, member: Member, until: float) -> bool:
        """Whether a member is still one, by a new look: after a refusal or a lost answer."""
        return any(one.member_id == member.member_id and one.present for one in self._look(until).members)

    def _guard(self, view: GroupView, until: float) -> None:
        """Keeps the group from ending by itself whom it should not."""

    def _surplus(self, view: GroupView, count: int) -> int:
        """How many of those who stay have to be marked."""
        surplus = len(view.staying) - count
        return min(surplus, view.told - len(view.draining) - count) if self.overshoots else surplus

    def _victims(self, view: GroupView, surplus: int, count: int) -> list[Member]:
        """Who of those who stay should go, so that `count` are left."""
        return newest_first(view.staying)[:surplus]

    def _endable(self, view: GroupView, empty: Sequence[Member]) -> list[Member]:
        """Which of the empty members can be ended now, in which order."""
        return list(empty)

    def _renewable(self, view: GroupView, empty: Sequence[Member]) -> list[Member]:
        """Which of the empty members can never be ended where they stand, and are begun anew."""
        return []

    def _renew(self, member: Member, until: float) -> None:
        """Begins a member anew, which then drains no more."""
        raise NotImplementedError

    def _may_lower(self, view: GroupView, told: int) -> bool:
        """Whether the group may be told less when nobody is there for the places: it must end no one of its choice."""
        return True

    # --- the contract -----------------------------------------------------------------------------------------

    def read(self) -> FleetState:
        return fleet_state(self._look(self._patience.until()))

    def scale_to(self, count: int, *, decision_id: str) -> FleetState:
        """One pass towards `count`, cut to the group's own bounds; the state says them.

        The number is absolute and the marks are in the cloud, so that a decision that is said again does nothing twice.
        """
        checked_count(count)
        _log.debug("%s: %d replicas by decision %s", self.kind, count, checked_decision(decision_id))
        until = self._patience.until()
        pause = self._patience.pauses(until=until)
        with self._lock:
            self._decision = decision_id
            passes = 0
            while True:
                passes += 1
                try:
                    return self._towards(count, until)
                except (ConflictError, AnswerLostError):
                    # Somebody else was there, or a request is in doubt: the group itself says how it stands.
                    if passes == _MOST_PASSES or not pause():
                        raise

    # --- one pass ---------------------------------------------------------------------------------------------

    def _towards(self, count: int, until: float) -> FleetState:
        seen = view = self._look(until)
        count = view.within(count)
        if not self.chooses:
            if view.told == count:
                return fleet_state(view)
            self._tell(view, count, until)
            return fleet_state(self._look(until))
        self._guard(view, until)
        surplus = self._surplus(view, count)
        if surplus > 0:
            now_s = self._clock()
            victims = self._victims(view, surplus, count)
            self._mark(victims, now_s, until)
            # Looked at again, for what was starting may serve by now, and others may be gone.
            view = self._look(until).with_marks({one.member_id: now_s for one in victims})
        told = view.told
        wanted = view.within(count + len(view.draining))
        there = len(view.staying) + len(view.draining)
        if wanted > told or (wanted < told and there <= wanted and self._may_lower(view, wanted)):
            self._tell(view, wanted, until)
            told = wanted
        ended = self._let_go(view, count, told, until)
        return fleet_state(self._look(until) if ended or told != seen.told or view is not seen else view)

    def _let_go(self, view: GroupView, count: int, told: int, until: float) -> int:
        """Ends or begins anew who is empty, and says how many."""
        draining = view.draining
        answers = at_once(self._empty, draining)
        empty = [one for one, yes in zip(draining, answers, strict=True) if yes]
        gone, renewed = self._endable(view, empty), self._renewable(view, empty)
        for one in renewed:
            self._renew(one, until)
        self._end_all(gone, told=told, count=count, until=until)
        return len(gone) + len(renewed)

    def _end_all(self, gone: Sequence[Member], *, told: int, count: int, until: float) -> None:
        for one in gone:
            self._end(one, told=told, shrink=told > count, until=until)
            told -= told > count

    def _empty(self, member: Member) -> bool:
        """Whether a draining member may be ended."""
        if member.state == "starting":
            return True
        since_s = max(0.0, self._clock() - (member.marked_at_s or 0.0))
        if self._give_up_s is not None and since_s >= self._give_up_s:
            return True
        left_s = max(0.0, self._drain_s - since_s)
        if self._drain is None:
            return left_s == 0.0
        try:
            return self._drain(replica_of(member), left_s)
        except (TextnlpFastError, OSError) as error:
            # Who cannot be asked may still stream.
            _log.warning("%s: %s does not say whether it is empty: %s", self.kind, member.member_id, error)
            return False
