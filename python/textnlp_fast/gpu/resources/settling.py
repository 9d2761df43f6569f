"""What the journal says against what the clouds show: what to adopt, to end, to write down. Pure."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from textnlp_fast.gpu.providers.contract import OWNER_TAG, Instance, InstanceState
from textnlp_fast.gpu.resources.records import InstanceRecord, LaunchRecord, Phase, vanished

__all__ = ["LOOKS_FOR", "Settlement", "settled"]

#: A launch whose process died is looked for this long: clouds show late what they have done.
LOOKS_FOR: Final = datetime.timedelta(minutes=5)


@dataclass(kw_only=True)
class Settlement:
    """What follows for one provider's region."""

    adopt: list[tuple[LaunchRecord, list[Instance]]] = field(default_factory=list)
    """Launches that came off without their process learning of it."""
    fail: list[LaunchRecord] = field(default_factory=list)
    """Launches that were never asked for."""
    end: list[Instance] = field(default_factory=list)
    """Instances that nobody wants: of launches that were given up, or told to end."""
    observe: list[tuple[LaunchRecord, dict[str, tuple[InstanceState, str | None]]]] = field(
        default_factory=list
    )
    """States to write down."""
    strays: list[Instance] = field(default_factory=list)
    """Alive, with our tag, and in no record."""
    lost: list[tuple[LaunchRecord, InstanceRecord]] = field(default_factory=list)
    """Alive by the journal, and not there."""


def settled(
    records: Iterable[LaunchRecord],
    instances: Iterable[Instance],
    *,
    owner: str,
    now: datetime.datetime,
    at_work: Callable[[LaunchRecord], bool],
) -> Settlement:
    """Compares the records of one provider's region with all instances that it lists."""
    found = Settlement()
    by_launch: dict[str, list[Instance]] = {}
    for instance in instances:
        by_launch.setdefault(instance.launch_id or "", []).append(instance)
    known: set[str] = set()
    for record in records:
        known.add(record.launch_id)
        seen = [one for one in by_launch.get(record.launch_id, ()) if one.tags.get(OWNER_TAG) == record.owner]
        alive = [one for one in seen if one.state.alive]
        if record.phase is Phase.INTENDED:
            if at_work(record):
                continue
            if seen:
                found.adopt.append((record, seen))
            elif now - record.created_at > LOOKS_FOR:
                found.fail.append(record)
        elif record.phase is Phase.LAUNCHED:
            _compare(found, record, seen, now)
        else:
            found.end.extend(alive)
    found.strays = [
        one
        for launch, members in by_launch.items()
        if launch not in known
        for one in members
        if one.state.alive and one.tags.get(OWNER_TAG) == owner
    ]
    return found


def _compare(found: Settlement, record: LaunchRecord, seen: list[Instance], now: datetime.datetime) -> None:
    """A launch that came off: what its instances became since they were last looked at."""
    states = {one.instance_id: one for one in seen}
    recorded = {one.instance_id for one in record.instances}
    fresh = [one for one in seen if one.instance_id not in recorded and one.state.alive]
    if fresh:
        found.adopt.append((record, seen))
    changes: dict[str, tuple[InstanceState, str | None]] = {}
    for one in record.instances:
        shown = states.get(one.instance_id)
        if not one.state.alive:
            if shown is not None and shown.state.alive and one.wanted is InstanceState.TERMINATED:
                found.end.append(shown)
            continue
        if shown is None:
            if vanished(record, one, now):
                found.lost.append((record, one))
                changes[one.instance_id] = (
                    InstanceState.TERMINATED,
                    "its provider does not know it any more",
                )
            continue
        if one.wanted is InstanceState.TERMINATED and shown.state.alive:
            found.end.append(shown)
        elif shown.state is not one.state:
            changes[one.instance_id] = (shown.state, shown.reason)
            if not shown.state.alive:
                found.lost.append((record, one))
    if changes:
        found.observe.append((record, changes))
