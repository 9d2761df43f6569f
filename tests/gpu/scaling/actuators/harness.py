"""What an actuator's tests hand to the contract's cases: a fleet that can be broken, and that says what is true."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import pytest

from textnlp_fast.errors import TextnlpFastError
from textnlp_fast.gpu.scaling.actuators.contract import Actuator, FleetState, Replica

__all__ = ["GroupHarness", "Streams", "settled"]


class Streams:
    """The replicas' own word on their streams, as a `Drain`. `asked` are those that were told to take no more."""

    def __init__(self, busy: Iterable[str] = ()) -> None:
        self.busy = set(busy)
        self.all_busy = False
        self.asked: list[str] = []
        self.left_s: list[float] = []
        self.error: Exception | None = None

    def __call__(self, replica: Replica, within_s: float) -> bool:
        self.asked.append(replica.replica_id)
        self.left_s.append(within_s)
        if self.error is not None:
            raise self.error
        return not self.all_busy and replica.replica_id not in self.busy


class GroupHarness(ABC):
    """A fleet for one test, with `ready` replicas at its beginning. A fault lasts until `heal`.

    `told` and `alive` ask the server itself, not the actuator: they are what the cases believe.
    """

    kind: ClassVar[str]
    sdk: ClassVar[str | None] = None
    """A module of a cloud's SDK: nothing may import it before an actuator is made."""
    cannot: ClassVar[Mapping[str, str]] = {}
    """What this kind has no notion of, and why: bounds, chosen victims, starting, new names, missing, throttling."""
    death: ClassVar[type[BaseException]] = TextnlpFastError
    """How an actuator ends that `crash_after` has killed."""

    @abstractmethod
    def actuator(self, **options: Any) -> Actuator:
        """A new actuator of the same fleet, as another process would make it."""

    @abstractmethod
    def actuator_of_nothing(self) -> Actuator:
        """An actuator of a fleet that does not exist."""

    @abstractmethod
    def told(self) -> int:
        """What the group is told, draining ones included."""

    @abstractmethod
    def alive(self) -> set[str]:
        """Ids of all replicas that are not ended or ending."""

    @abstractmethod
    def pass_time(self) -> None:
        """What the group does by itself is done."""

    @abstractmethod
    def heal(self) -> None:
        """All faults are gone."""

    def begin_anew(self, actuator: Actuator) -> Actuator:
        """Three replicas again, after a case has changed them; the actuator to go on with."""
        settled(self, actuator, 3, decision_id=f"back-{self.requests()}")
        return actuator

    def needs(self, *notions: str) -> None:
        for notion in notions:
            if notion in self.cannot:
                pytest.skip(f"{self.kind}: {self.cannot[notion]}")

    # --- what happens to replicas -----------------------------------------------------------------------------

    def set_bounds(self, least: int, most: int) -> None:
        raise NotImplementedError

    def one_that_may_go(self) -> str:
        """One of those among which the actuator chooses."""
        return sorted(self.alive())[1]

    def hold_back(self, replica_id: str) -> None:
        """The replica is there, and does not serve yet."""
        raise NotImplementedError

    @abstractmethod
    def vanish(self, replica_id: str) -> None:
        """The machine is gone, and nobody asked for it. Its group may put another in its place."""

    # --- faults -----------------------------------------------------------------------------------------------

    @abstractmethod
    def throttle(self, times: int) -> None:
        """The next `times` requests are throttled."""

    @abstractmethod
    def lose_answer(self, verb: str) -> None:
        """The server does it, the connection is cut. Once. `verb`: tell, mark or end."""

    @abstractmethod
    def crash_after(self, requests: int, *, heard: bool) -> None:
        """So many requests go well; the next is heard or not, and not answered; no other reaches the server."""

    @abstractmethod
    def expire_credentials(self) -> None:
        """What the caller logs in with does no more."""

    @abstractmethod
    def requests(self) -> int:
        """How many requests the server has heard of or was to hear of."""


def settled(harness: GroupHarness, actuator: Actuator, count: int, *, decision_id: str = "d-1") -> FleetState:
    """Says the number until the fleet has it, as a loop does."""
    for _ in range(12):
        actuator.scale_to(count, decision_id=decision_id)
        harness.pass_time()
        state = actuator.read()
        if state.desired == len(harness.alive()) == harness.told() and not state.draining:
            return state
    raise AssertionError(f"still {state} with {sorted(harness.alive())}, told {harness.told()}")
