"""Keeps journal and clouds in step: mends what crashes left, writes down what became of instances, ends them."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from textnlp_fast.errors import InstanceNotFoundError, InternalError, TextnlpFastError
from textnlp_fast.gpu.providers.contract import Instance, InstanceState, Provider
from textnlp_fast.gpu.resources.journal import Journal
from textnlp_fast.gpu.resources.processes import is_at_work
from textnlp_fast.gpu.resources.records import (
    InstanceRecord,
    LaunchRecord,
    Phase,
    failed,
    launched,
    observed,
    wanting,
)
from textnlp_fast.gpu.resources.settling import Settlement, settled
from textnlp_fast.telemetry import operation

__all__ = ["Keeper", "Place", "Problem"]

Place = tuple[str, str]
"""Provider and region."""

_VERBS: Final = {
    InstanceState.TERMINATED: "terminate",
    InstanceState.STOPPED: "stop",
    InstanceState.RUNNING: "start",
}


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A place that could not be looked at."""

    place: Place
    error: TextnlpFastError


class Keeper:
    """For the places that are registered; what lies in others stays as the journal has it."""

    def __init__(
        self,
        journal: Journal,
        providers: Mapping[Place, Provider],
        *,
        owner: str,
        now: Callable[[], datetime.datetime],
    ) -> None:
        self._journal = journal
        self._providers = providers
        self._owner = owner
        self._now = now

    # --- in step ----------------------------------------------------------------------------------------------

    def settle(self, places: Iterable[Place]) -> tuple[dict[Place, Settlement], list[Problem]]:
        """Looks at all instances of each place, and does what follows. Strays are left alone.

        Places that do not answer are told of and mended another time.
        """
        done: dict[Place, Settlement] = {}
        problems = []
        with operation("gpu.settle"):
            for place in places:
                try:
                    done[place] = self._settle(place)
                except TextnlpFastError as error:
                    problems.append(Problem(place=place, error=error))
        return done, problems

    def _settle(self, place: Place) -> Settlement:
        provider = self._providers[place]
        # In this order: a launch that begins between the two is in no record yet, and would look like a stray.
        instances = provider.list_instances()
        now = self._now()
        records = [one for one in self._journal.records() if (one.provider, one.region) == place]
        found = settled(
            records, instances, owner=self._owner, now=now, at_work=lambda one: is_at_work(one, now)
        )
        for record, seen in found.adopt:
            self._adopt(provider, record, seen)
        for record in found.fail:
            died = InternalError("the process that was to launch it ended before it did", hint="")
            self._journal.update(record.key, _while_intended(partial(failed, error=died)))
        for record, changes in found.observe:
            self._journal.update(record.key, partial(observed, seen=changes, at=now))
        if found.end:
            provider.terminate([one.instance_id for one in found.end])
            self._write_down_ends(records, {one.instance_id for one in found.end})
        return found

    def _adopt(self, provider: Provider, record: LaunchRecord, seen: list[Instance]) -> None:
        def change(current: LaunchRecord) -> LaunchRecord:
            if current.phase is Phase.INTENDED:
                return launched(current, seen, recovered=True)
            if current.phase is Phase.LAUNCHED:
                recorded = {one.instance_id for one in current.instances}
                more = [one for one in seen if one.instance_id not in recorded]
                fuller = launched(current, [*more], recovered=bool(more))
                return replace(fuller, instances=(*current.instances, *fuller.instances)) if more else current
            return current

        stored = self._journal.update(record.key, change)
        if stored.phase is not Phase.LAUNCHED:
            provider.terminate([one.instance_id for one in seen])

    def _write_down_ends(self, records: Iterable[LaunchRecord], ids: set[str]) -> None:
        for record in records:
            ended: dict[str, tuple[InstanceState, str | None]] = {
                one.instance_id: (InstanceState.TERMINATED, None)
                for one in record.instances
                if one.instance_id in ids and one.state.alive
            }
            if ended:
                self._journal.update(record.key, partial(observed, seen=ended, at=self._now()))

    def alive(self, record: LaunchRecord) -> list[InstanceRecord]:
        """The instances of a record that its provider shows as alive, or does not show yet."""
        provider = self._providers.get((record.provider, record.region))
        living = [
            one for one in record.instances if one.state.alive and one.wanted is not InstanceState.TERMINATED
        ]
        if provider is None or not living:
            return living
        shown = {one.instance_id: one for one in provider.describe([one.instance_id for one in living])}
        changes: dict[str, tuple[InstanceState, str | None]] = {
            one.instance_id: (one.state, one.reason) for one in shown.values()
        }
        stored = self._journal.update(record.key, lambda it: observed(it, changes, self._now()))
        ids = {one.instance_id for one in living}
        return [one for one in stored.instances if one.instance_id in ids and one.state.alive]

    # --- at will ----------------------------------------------------------------------------------------------

    def change(self, instance_ids: Sequence[str], wanted: InstanceState) -> list[str]:
        """Ends, stops or starts instances of the journal; returns those that were not in that state by it already.

        First the wish is written down, then the provider is told, then it is written down that it was: whoever dies
        in between has it done by the next settling. Raises InstanceNotFoundError for an id that no record has.
        """
        records = self._journal.records()
        homes = {one.instance_id: record for record in records for one in record.instances}
        unknown = [one for one in instance_ids if one not in homes]
        if unknown:
            raise InstanceNotFoundError(
                f"no launch in the journal has an instance {unknown[0]!r}",
                hint="`textnlp-fast gpu list` shows those it has, `gpu orphans` those of no launch.",
            )
        changed: list[str] = []
        by_record: dict[str, list[str]] = {}
        for one in dict.fromkeys(instance_ids):
            by_record.setdefault(homes[one].key, []).append(one)
        by_key = {record.key: record for record in records}
        with operation(f"gpu.{_VERBS[wanted]}"):
            for key, ids in by_record.items():
                record = by_key[key]
                states = {one.instance_id: one.state for one in record.instances}
                todo = [one for one in ids if states[one].alive]
                if not todo:
                    continue
                self._change(record, todo, wanted)
                changed += [one for one in todo if states[one] is not wanted]
        return changed

    def _change(self, record: LaunchRecord, ids: list[str], wanted: InstanceState) -> None:
        provider = self._providers.get((record.provider, record.region))
        if provider is None:
            raise InstanceNotFoundError(
                f"{ids[0]} is of {record.provider} in {record.region}, which is not registered",
                hint=f"Register it: register_provider({record.provider!r}, {record.region!r}).",
            )
        self._journal.update(record.key, lambda it: wanting(it, ids, wanted))
        getattr(provider, _VERBS[wanted])(ids)
        told: dict[str, tuple[InstanceState, str | None]] = dict.fromkeys(ids, (wanted, None))
        at = self._now()
        self._journal.update(record.key, lambda it: observed(it, told, at))


def _while_intended(change: Callable[[LaunchRecord], LaunchRecord]) -> Callable[[LaunchRecord], LaunchRecord]:
    return lambda record: change(record) if record.phase is Phase.INTENDED else record
