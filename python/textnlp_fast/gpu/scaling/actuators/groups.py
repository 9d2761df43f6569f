"""What the actuators of groups have in common: what is there, who has to go, and what of it is a state of the fleet.

A group is told one number by its cloud's own API and makes or ends machines until it has them. That number counts the
ones that are draining, too, until each is taken out together with its place. So a fleet of `count` replicas is a group
that was told `count` and those that drain.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from textnlp_fast.errors import InvalidInputError
from textnlp_fast.gpu.scaling.actuators.contract import FleetState, Replica

__all__ = [
    "DRAINING_TAG",
    "GroupView",
    "Member",
    "checked_count",
    "checked_decision",
    "fleet_state",
    "mark_of",
    "newest_first",
    "replica_of",
]

DRAINING_TAG: Final = "textnlp-fast-draining"
"""Tag, label or annotation of a member that has to go: since when, in seconds since the epoch. It survives us."""

_MOST: Final = 10_000


@dataclass(frozen=True, kw_only=True)
class Member:
    """One member of a group, as its cloud last described it."""

    member_id: str
    state: Literal["starting", "ready", "leaving"]
    """leaving: its cloud or its group ends it already, and it is no part of what the group was told."""
    marked_at_s: float | None = None
    """Since when it is draining."""
    created_at_s: float = 0.0
    zone: str | None = None
    spot: bool = False
    address: str | None = None
    owner: str | None = None
    """The part of the group that it is of, where there are several."""
    protected: bool = True
    """False for one that serves and that the group might end by itself."""
    version: str | None = None
    """What the cloud takes as the condition of a change, where it does."""

    @property
    def present(self) -> bool:
        return self.state != "leaving"


@dataclass(frozen=True, kw_only=True)
class GroupView:
    """A group at one moment."""

    told: int
    """What the group was told last, with those that are draining."""
    members: tuple[Member, ...]
    min_size: int | None = None
    max_size: int | None = None
    version: str | None = None

    @property
    def staying(self) -> list[Member]:
        """Who is there and is no draining one."""
        return [one for one in self.members if one.present and one.marked_at_s is None]

    @property
    def draining(self) -> list[Member]:
        """Who is there and drains, the longest first."""
        marked = [one for one in self.members if one.present and one.marked_at_s is not None]
        return sorted(marked, key=lambda one: (one.marked_at_s or 0.0, one.member_id))

    def within(self, count: int) -> int:
        """`count`, cut to the group's own bounds."""
        least = 0 if self.min_size is None else self.min_size
        return max(least, count if self.max_size is None else min(count, self.max_size))

    def with_marks(self, marks: Mapping[str, float]) -> GroupView:
        """The same with marks that were set a moment ago, and may not be seen everywhere yet."""
        members = tuple(
            replace(one, marked_at_s=marks[one.member_id])
            if one.marked_at_s is None and one.member_id in marks
            else one
            for one in self.members
        )
        return replace(self, members=members)


def newest_first(members: Sequence[Member]) -> list[Member]:
    """In the order in which they should go: what does not serve yet, then what has served for the shortest time."""
    return sorted(members, key=lambda one: (one.state != "starting", -one.created_at_s, one.member_id))


def replica_of(member: Member) -> Replica:
    draining = member.marked_at_s is not None or not member.present
    return Replica(
        replica_id=member.member_id,
        state="draining" if draining else member.state,
        zone=member.zone,
        spot=member.spot,
        address=member.address,
    )


def fleet_state(view: GroupView) -> FleetState:
    """The view as every actuator reports it: a draining member is neither ready nor a part of what is desired."""
    replicas = tuple(replica_of(one) for one in view.members)
    states = [one.state for one in replicas]
    return FleetState(
        desired=max(0, view.told - len(view.draining)),
        ready=states.count("ready"),
        starting=states.count("starting"),
        draining=states.count("draining"),
        min_size=view.min_size,
        max_size=view.max_size,
        replicas=replicas,
    )


def mark_of(text: str | None) -> float | None:
    """The moment that a mark names; a mark that somebody else wrote counts as one that was set long ago."""
    if text is None:
        return None
    try:
        return max(0.0, float(int(text.split()[0])))
    except (ValueError, IndexError, OverflowError):
        return 0.0


def checked_count(count: object) -> int:
    if not isinstance(count, int) or isinstance(count, bool) or not 0 <= count <= _MOST:
        raise InvalidInputError(f"a fleet has 0 to {_MOST} replicas, not {count!r:.40}")
    return count


def checked_decision(decision_id: object) -> str:
    if not isinstance(decision_id, str) or not 0 < len(decision_id) <= 200 or not decision_id.isprintable():
        raise InvalidInputError(f"a decision's id has 1 to 200 printable characters, not {decision_id!r:.60}")
    return decision_id
