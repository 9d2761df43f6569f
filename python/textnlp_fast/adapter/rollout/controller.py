"""Carries out a rollout: look, decide, write down, act; again, until it has ended. Whoever is killed can be followed.

One controller works on a target at a time: it holds a lease, every write is on the condition of the one before, and
agents refuse whoever comes with a smaller fence than they have heard.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from textnlp_fast.adapter.rollout.acting import Actor, operation_id
from textnlp_fast.adapter.rollout.history import note_begin, note_end, served
from textnlp_fast.adapter.rollout.holding import HeldLease
from textnlp_fast.adapter.rollout.machine import begin, decide, heard, turn_back
from textnlp_fast.adapter.rollout.pool import Pace, Pool
from textnlp_fast.adapter.rollout.records import (
    RolloutRecord,
    lease_key,
    read_record,
    write_record,
)
from textnlp_fast.adapter.rollout.replicas import AgentClient, Health
from textnlp_fast.adapter.rollout.state import ENDED, Sight, Terms, terms_of
from textnlp_fast.adapter.rollout_settings import Rollout
from textnlp_fast.errors import (
    ConflictError,
    DeploymentNotFoundError,
    InvalidInputError,
    ProviderUnavailableError,
)
from textnlp_fast.objectstore import Version
from textnlp_fast.storage import Registry
from textnlp_fast.storage.names import now_utc

__all__ = ["Controller", "Pace", "Pool", "ask_back"]


class Controller:
    """Rolls out to one target. `told` hears what happens, in words; `pace` is for tests and hurried people.

    Every call raises ConflictError where another controller is at work, or took over; then nothing more is done here.
    """

    def __init__(
        self,
        registry: Registry,
        model: str,
        target: str,
        pool: Pool,
        settings: Rollout,
        *,
        pace: Pace | None = None,
        told: Callable[[str], None] = lambda words: None,
    ) -> None:
        self._registry = registry
        self._store = registry.repository.store
        self._model = model
        self._target = target
        self._pool = pool
        self._settings = settings
        self._pace = pace or Pace()
        self._told = told
        self._version: Version | None = None
        self._holder = f"{registry.actor} on {socket.gethostname()}, process {os.getpid()}"
        self._agents = AgentClient(pool.replicas, token=pool.token, timeout_s=self._pace.request_s)
        self._health = Health(settings.health, time.monotonic)
        self._trouble: dict[str, str] = {}

    # --- what can be asked for ------------------------------------------------------------------------------

    def apply(self, version: str, *, note: str = "") -> RolloutRecord:
        """Takes the target to a version; goes on with the rollout to it that is under way. Returns how it ended.

        `version` may be an alias or a stage. Raises InvalidInputError for terms that allow no step, ConflictError while
        another version is being rolled out, ProviderUnavailableError if a replica does not answer at the beginning.
        """
        new = self._registry.resolve(self._model, version)
        with self._lease() as lease:
            record, self._version = read_record(self._store, self._model, self._target)
            if record is not None and not record.closed:
                if record.terms.new != new:
                    raise ConflictError(
                        f"rollout {record.number} of {self._target} to {record.terms.new} is not over",
                        hint="Run `textnlp-fast deploy rollback` first, or apply that version to go on with it.",
                    )
                return self._go_on(lease, record)
            return self._go_on(lease, self._opened(record, new, "deploy", note))

    def rollback(self, *, to: str | None = None, note: str = "") -> RolloutRecord:
        """Turns back the rollout that is under way; else goes to the version that the target served before.

        Raises DeploymentNotFoundError if there is nothing to go back to.
        """
        with self._lease() as lease:
            record, self._version = read_record(self._store, self._model, self._target)
            if record is not None and not record.closed:
                self._write(replace(record, back=_asked_back(self._registry.actor, note)))
                record, self._version = read_record(self._store, self._model, self._target)
                assert record is not None
                return self._go_on(lease, record)
            new = self._before(to)
            return self._go_on(lease, self._opened(record, new, "rollback", note))

    def go_on(self) -> RolloutRecord | None:
        """Goes on with what another controller left; None if nothing is under way."""
        with self._lease() as lease:
            record, self._version = read_record(self._store, self._model, self._target)
            if record is None or record.closed:
                return record
            return self._go_on(lease, record)

    def is_at(self, version: str) -> bool:
        """Whether a rollout to a version would change nothing, by the registry and by every replica that serves.

        False where nothing was ever rolled out, and where the last rollout is not over or got stuck.
        """
        new = self._registry.resolve(self._model, version)
        last, _ = read_record(self._store, self._model, self._target)
        if last is None or not last.closed or last.state.phase == "stuck":
            return False
        if served(self._registry, self._model, self._target) != new:
            return False
        base, _ = self._sides(last)
        return all(
            sight.reachable and sight.ready and not sight.busy and sight.serving == new and not sight.prepared
            for sight, _ in self._agents.look(base).values()
        )

    def look(self) -> dict[str, Sight]:
        """What the agents of all replicas say now."""
        return {one: sight for one, (sight, _) in self._agents.look(self._agents.replicas).items()}

    # --- the beginning --------------------------------------------------------------------------------------

    def _lease(self) -> HeldLease:
        return HeldLease(
            self._store,
            lease_key(self._model, self._target),
            holder=self._holder,
            seconds=self._pace.lease_s,
            told=self._told,
        )

    def _before(self, to: str | None) -> str:
        deployed = self._registry.deployments(self._model).get(self._model, {}).get(self._target)
        previous = () if deployed is None else deployed.previous
        wanted = previous[0] if to is None and previous else to
        if deployed is None or wanted is None or wanted not in previous:
            raise DeploymentNotFoundError(
                f"{self._target} of {self._model} has not served {to or 'another version'} before",
                hint="`textnlp-fast deployments history` shows what it served; apply a version instead.",
            )
        return self._registry.resolve(self._model, wanted)

    def _opened(self, last: RolloutRecord | None, new: str, kind: str, note: str) -> RolloutRecord:
        """A record of a rollout that begins; written, with nothing done yet."""
        base, spares = self._sides(last)
        looks = self._agents.look((*base, *spares))
        spares = tuple(one for one in spares if looks[one][0].reachable)
        terms = terms_of(
            self._settings,
            old=served(self._registry, self._model, self._target),
            new=new,
            base=base,
            spares=spares,
        )
        pace = self._pace
        terms = replace(terms, lost_s=pace.lost_s, patience_s=pace.patience_s, operation_s=pace.operation_s)
        self._check_first({one: looks[one][0] for one in (*terms.base, *terms.extras)}, terms)
        # Who was kept out of the traffic at the end of the last one, or could not be put back, is out still.
        out = (
            set()
            if last is None
            else {one for one, held in last.state.replicas.items() if held.place != "in"}
        )
        record = RolloutRecord(
            model=self._model,
            target=self._target,
            number=1 if last is None else last.number + 1,
            kind=kind,
            fence=0 if last is None else last.fence,
            holder="",
            by=self._registry.actor,
            note=" ".join(note.split())[:400],
            begun_at=now_utc(),
            terms=terms,
            state=begin(terms, out=frozenset(out)),
            active=base,
            spares=tuple(one.name for one in self._pool.replicas if one.name not in base),
        )
        words = f"{terms.strategy} to {new}" + (f" from {terms.old}" if terms.old else "")
        self._told(words)
        return record.saying(words)

    def _sides(self, last: RolloutRecord | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Who serves, and who is spare: as the last rollout left them, and for new ones as the pool says."""
        names = [one.name for one in self._pool.replicas]
        if len(set(names)) < len(names):
            raise InvalidInputError(
                "a replica is named twice", hint="Each has a name, and an agent, of its own."
            )
        active = () if last is None else last.active
        spares = self._pool.spares if last is None else {*last.spares, *self._pool.spares}
        base = tuple(one for one in names if one in active or one not in spares)
        return base, tuple(one for one in names if one not in base)

    def _check_first(self, sights: Mapping[str, Sight], terms: Terms) -> None:
        silent = [f"{one} ({sight.why})" for one, sight in sights.items() if not sight.reachable]
        if silent:
            raise ProviderUnavailableError(
                f"{', '.join(silent)[:400]} cannot be reached", hint="Mend it, or take it out of the target."
            )
        swaps = [one for one, sight in sights.items() if sight.mode == "swap"]
        if swaps and not self._settings.hot_swap:
            raise InvalidInputError(
                f"{', '.join(swaps[:3])} can only be swapped in place, and rollout.hot_swap is off",
                hint="Set rollout.hot_swap: true, or run the engine under `textnlp-fast deploy agent`.",
            )
        broken = [one for one in terms.base if not sights[one].ready]
        if broken:
            raise ProviderUnavailableError(
                f"{', '.join(broken)[:400]} is not ready before anything was changed", hint="Mend it first."
            )

    # --- all the way ----------------------------------------------------------------------------------------

    def _go_on(self, lease: HeldLease, record: RolloutRecord) -> RolloutRecord:
        actor = Actor(self._agents, self._pool.traffic, drain_s=self._pool.drain_s, check=lease.check)
        names = (*record.terms.base, *record.terms.extras)
        missing = [one for one in names if one not in self._agents.replicas]
        if missing:
            raise InvalidInputError(
                f"rollout {record.number} is of replicas that are not among these: {', '.join(missing)[:300]}",
                hint="Name them with their agents until it is over.",
            )
        heard_fences = [fence for _, fence in self._agents.look(names).values()]
        record = replace(record, fence=max(record.fence, *heard_fences) + 1, holder=self._holder)
        if record.state.replicas and record.registered:
            record = record.saying(f"{self._holder} goes on")
        record = self._write(record)
        if not record.registered:
            record = self._begin(record)
            record = self._write(replace(record, registered=True))
        actor.announce(record)
        while record.state.phase not in ENDED:
            lease.check()
            record = self._pass(actor, record)
            if record.state.phase not in ENDED:
                time.sleep(self._pace.poll_s)
        lease.check()
        if record.state.phase == "stuck":
            record = self._park(actor, record)
        note_end(self._registry, record)
        return self._write(replace(record, closed=True))

    def _park(self, actor: Actor, record: RolloutRecord) -> RolloutRecord:
        """Keeps what could not go back out of the traffic, where others serve.

        Come back to life it would serve the version that was given up. The next rollout lets it in again.
        """
        terms, sights = record.terms, self._look(record)
        right = {
            one
            for one, held in record.state.replicas.items()
            if held.place == "in" and sights[one].whole and sights[one].serving == terms.old
        }
        for one, held in record.state.replicas.items():
            if not right or not held.lost or held.place != "in" or sights[one].serving == terms.old:
                continue
            if actor.shut_out(record, one, is_reachable=sights[one].reachable):
                words = f"{one} gets no requests until a rollout has brought it to its version"
                self._told(words)
                record = replace(record.saying(words), state=record.state.with_held(one, place="out"))
        return record

    def _begin(self, record: RolloutRecord) -> RolloutRecord:
        """Has the registry know that it begins; where the target serves something else by now, it never began."""
        try:
            note_begin(self._registry, record)
        except ConflictError as error:
            why = str(error.args[0])
            over = replace(record.state, phase="stuck", reason=f"nothing was done: {why}")
            self._write(replace(record.saying(why), state=over, closed=True))
            raise
        return record

    def _pass(self, actor: Actor, record: RolloutRecord) -> RolloutRecord:
        """One look, one decision, what follows of it."""
        record = self._heard_back(record)
        terms = record.terms
        sights = self._look(record)
        decision = decide(terms, record.state, sights, time.time())
        for words in decision.reasons:
            self._told(words)
        after = replace(record.saying(*decision.reasons), state=decision.state)
        if decision.state.phase in ENDED:
            green = decision.state.phase == "succeeded" and terms.strategy == "blue-green"
            active = terms.extras if green else terms.base
            names = dict.fromkeys((*record.active, *record.spares))
            spares = tuple(one for one in names if one not in active)
            after = replace(after, active=active, spares=spares)
        if after != record:
            record = self._write(after)
        state = record.state
        for action, wrong in actor.do(record, decision.actions).items():
            if wrong:
                if self._trouble.get(action.replica) != wrong:
                    self._told(f"{action.replica}: {wrong}")
                self._trouble[action.replica] = wrong
            else:
                self._trouble.pop(action.replica, None)
                state = heard(state, action)
        return replace(record, state=state)

    def _look(self, record: RolloutRecord) -> dict[str, Sight]:
        names = (*record.terms.base, *record.terms.extras)
        sights = {one: sight for one, (sight, _) in self._agents.look(names).items()}
        sights = self._health.judge(sights)
        return {
            one: replace(
                sight,
                operation=_own(record, sight.operation),
                why=self._trouble.get(one, sight.why) if sight.healthy is not False else sight.why,
            )
            for one, sight in sights.items()
        }

    def _heard_back(self, record: RolloutRecord) -> RolloutRecord:
        """The record, turned back if somebody asked for that. Raises ConflictError if another took over."""
        now, version = read_record(self._store, self._model, self._target)
        if now is None or (now.fence, now.number) != (record.fence, record.number):
            raise ConflictError(
                f"another controller took over the rollout of {self._target}",
                hint="`textnlp-fast deploy status` says how far it is.",
            )
        self._version = version
        if now.back and record.state.direction == "forward":
            state = turn_back(record.state, now.back)
            self._told(f"going back: {now.back}")
            return replace(record.saying(f"going back: {now.back}"), state=state, back=now.back)
        return replace(record, back=now.back)

    def _write(self, record: RolloutRecord) -> RolloutRecord:
        """Writes on the condition of what was read; what somebody asked for meanwhile is seen at the next look."""
        for left in (3, 2, 1, 0):
            try:
                self._version = write_record(self._store, record, self._version)
            except ConflictError:
                now, version = read_record(self._store, self._model, self._target)
                mine = now is not None and (now.fence, now.number) == (record.fence, record.number)
                if not mine or not left:
                    raise
                assert now is not None
                self._version, record = version, replace(record, back=now.back)
            else:
                return record
        raise AssertionError


def ask_back(registry: Registry, model: str, target: str, *, note: str = "") -> RolloutRecord | None:
    """Asks whoever rolls out to go back; None if nothing is under way. Does not wait for it."""
    for left in range(9, -1, -1):
        record, version = read_record(registry.repository.store, model, target)
        if record is None or record.closed or record.state.phase in ENDED:
            return None
        asked = replace(record, back=record.back or _asked_back(registry.actor, note))
        try:
            write_record(registry.repository.store, asked, version)
        except ConflictError:
            if not left:
                raise
            time.sleep(0.05)
        else:
            return asked
    raise AssertionError


def _asked_back(actor: str, note: str) -> str:
    return f"asked for by {actor}" + (f": {' '.join(note.split())}" if note.strip() else "")


def _own(record: RolloutRecord, operation: str) -> str:
    """The ask that an operation of an agent is, if it is of this rollout."""
    prefix = operation_id(record, "")
    return operation.removeprefix(prefix) if operation.startswith(prefix) else ""
