"""A rollout as it is written down: one sealed document a target, changed by compare-and-swap only.

`docs/format.md` states every field. The document of the last rollout stays: which replicas serve, and how often the
target changed hands, begin from there.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final, TypeVar, get_args

from textnlp_fast.adapter.rollout.state import Ask, Held, Phase, Place, State, Terms
from textnlp_fast.adapter.rollout_settings import Strategy
from textnlp_fast.contents.documents import Broken, parse_document, seal_document, take, take_size
from textnlp_fast.errors import CorruptDataError, InvalidInputError, MissingObjectError
from textnlp_fast.objectstore import ObjectStore, Version
from textnlp_fast.storage.names import check_name, check_version, now_utc
from textnlp_fast.storage.registry.grammar import check_target

__all__ = ["Event", "RolloutRecord", "lease_key", "read_record", "record_key", "write_record"]

MOST_REPLICAS: Final = 1000
_LIMIT_BYTES: Final = 4 << 20
_MOST_EVENTS: Final = 200
_MOST_TEXT: Final = 1000
_BETWEEN: Final = "_"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened, in words."""

    at: str
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutRecord:
    """The last rollout of a target, under way or over."""

    model: str
    target: str
    number: int
    """Counts the target's rollouts from 1."""
    kind: str
    """`deploy`, or `rollback` where it leads to a version that the target served before."""
    fence: int
    """Grows whenever a controller takes over; agents refuse who comes with a smaller one."""
    holder: str
    by: str
    note: str
    begun_at: str
    terms: Terms
    state: State
    active: tuple[str, ...]
    """Replicas that serve when nothing is under way."""
    spares: tuple[str, ...] = ()
    """Those that do not."""
    registered: bool = False
    """Whether the registry knows that it began."""
    closed: bool = False
    """Whether the registry knows how it ended, and nothing is left to do."""
    back: str = ""
    """Why somebody asked for the way back; empty if nobody did."""
    events: tuple[Event, ...] = field(default=())

    def saying(self, *words: str) -> RolloutRecord:
        """The record with more that happened; the oldest of many are let go."""
        at = now_utc()
        told = tuple(Event(at, what[:_MOST_TEXT]) for what in words)
        return replace(self, events=(*self.events, *told)[-_MOST_EVENTS:])


def record_key(model: str, target: str) -> str:
    """Where the record of a target is. Both names may have slashes; no target has a `~`, and no model a word `_`."""
    return f"rollouts/{check_name(model)}/{_BETWEEN}/{check_target(target).replace('/', '~')}.json"


def lease_key(model: str, target: str) -> str:
    """Where the lease of whoever rolls out is."""
    return f"leases/{record_key(model, target)}"


def read_record(store: ObjectStore, model: str, target: str) -> tuple[RolloutRecord | None, Version | None]:
    """The record and its version for a later write; None and None if the target never had one."""
    key = record_key(model, target)
    try:
        data, version = store.get_versioned(key, limit_bytes=_LIMIT_BYTES)
    except MissingObjectError:
        return None, None
    what = f"{key} in {store.url}"
    document = parse_document(data, what)
    try:
        record = _record(document)
    except (Broken, InvalidInputError, TypeError, ValueError) as error:
        raise CorruptDataError(
            f"{what} is no record of a rollout: {error}",
            hint="If nothing is being rolled out, delete it: the next rollout begins a new one.",
        ) from None
    if (record.model, record.target) != (model, target):
        raise CorruptDataError(f"{what} is of {record.model} on {record.target}")
    return record, version


def write_record(store: ObjectStore, record: RolloutRecord, expected: Version | None) -> Version:
    """Writes the record if nobody else did since. Raises ConflictError, StorageUnavailableError."""
    key = record_key(record.model, record.target)
    document = {"format": 1, "write_id": secrets.token_hex(16), **_in_milliseconds(asdict(record))}
    return store.compare_and_swap(key, seal_document(document), expected)


def _in_milliseconds(value: Any) -> Any:
    """Seconds as whole milliseconds, for sealed documents have no other numbers."""
    if not isinstance(value, dict):
        return value
    return {
        (f"{key.removesuffix('_s')}_ms" if key.endswith("_s") else key): (
            round(1000 * each) if key.endswith("_s") and each is not None else _in_milliseconds(each)
        )
        for key, each in value.items()
    }


# --- reading -----------------------------------------------------------------------------------------------------


def _record(document: Mapping[str, Any]) -> RolloutRecord:
    where = "the record"
    terms = _terms(take(document, "terms", dict, where))
    state = _state(take(document, "state", dict, where), terms)
    events = [
        Event(_text(one, "at", "an event"), _text(one, "what", "an event"))
        for one in take(document, "events", list, where)[-_MOST_EVENTS:]
    ]
    kind = _text(document, "kind", where)
    if kind not in ("deploy", "rollback"):
        raise Broken(f"kind is {kind!r:.40}")
    return RolloutRecord(
        model=check_name(_text(document, "model", where)),
        target=check_target(_text(document, "target", where)),
        number=take_size(document, "number", where),
        kind=kind,
        fence=take_size(document, "fence", where),
        holder=_text(document, "holder", where),
        by=_text(document, "by", where),
        note=_text(document, "note", where),
        begun_at=_text(document, "begun_at", where),
        terms=terms,
        state=state,
        active=_names(document, "active", where),
        spares=_names(document, "spares", where),
        registered=take(document, "registered", bool, where),
        closed=take(document, "closed", bool, where),
        back=_text(document, "back", where),
        events=tuple(events),
    )


def _terms(document: Mapping[str, Any]) -> Terms:
    where = "terms"
    old = document.get("old")
    steps = take(document, "steps", list, where)
    if not steps or any(isinstance(one, bool) or not isinstance(one, int) for one in steps):
        raise Broken("steps are no numbers")
    numbers = {
        f"{name}_s": _seconds(document, f"{name}_ms", where)
        for name in ("bake", "lost", "patience", "operation")
    }
    terms = Terms(
        strategy=_one_of(document, "strategy", get_args(Strategy), where),
        old=None if old is None else check_version(str(old)),
        new=check_version(_text(document, "new", where)),
        base=_names(document, "base", where),
        extras=_names(document, "extras", where),
        max_unavailable=take_size(document, "max_unavailable", where),
        steps=tuple(steps),
        tries=max(1, take_size(document, "tries", where)),
        **numbers,
    )
    if not terms.base or len({*terms.base, *terms.extras}) < len(terms.base) + len(terms.extras):
        raise Broken("replicas are missing or named twice")
    return terms


def _state(document: Mapping[str, Any], terms: Terms) -> State:
    where = "state"
    replicas = take(document, "replicas", dict, where)
    if set(replicas) != {*terms.base, *terms.extras}:
        raise Broken("the state is of other replicas than the terms")
    baking = document.get("baking_since_ms")
    step = take_size(document, "step", where)
    if step > len(terms.steps):
        raise Broken(f"there is no step {step}")
    phase: Phase = _one_of(document, "phase", get_args(Phase), where)
    return State(
        phase=phase,
        direction=_one_of(document, "direction", ("forward", "back"), where),
        reason=_text(document, "reason", where),
        step=step,
        switched=take(document, "switched", bool, where),
        baking_since_s=None if baking is None else _seconds(document, "baking_since_ms", where),
        asked=take_size(document, "asked", where),
        replicas={one: _held(replicas[one], f"replica {one}") for one in (*terms.base, *terms.extras)},
    )


def _held(document: Any, where: str) -> Held:
    if not isinstance(document, dict):
        raise Broken(f"{where} is no object")
    ask = document.get("ask")
    if ask is not None and not isinstance(ask, dict):
        raise Broken(f"the ask of {where} is no object")
    return Held(
        place=_one_of(document, "place", get_args(Place), where),
        weight=take_size(document, "weight", where, 100),
        ask=None
        if ask is None
        else Ask(
            id=_text(ask, "id", where),
            verb=_one_of(ask, "verb", ("prepare", "commit", "abort"), where),
            version=_text(ask, "version", where),
        ),
        tries=take_size(document, "tries", where),
        run=_text(document, "run", where),
        mark=_text(document, "mark", where),
        since_s=_seconds(document, "since_ms", where),
        deaths=take_size(document, "deaths", where),
        lost=_text(document, "lost", where),
        still=take(document, "still", bool, where),
    )


def _text(document: Any, key: str, where: str) -> str:
    if not isinstance(document, dict):
        raise Broken(f"{where} is no object")
    text: str = take(document, key, str, where)
    if len(text) > 4 * _MOST_TEXT:
        raise Broken(f"{key} of {where} is too long")
    return text


def _names(document: Mapping[str, Any], key: str, where: str) -> tuple[str, ...]:
    names = take(document, key, list, where)
    if len(names) > MOST_REPLICAS or not all(isinstance(one, str) and 0 < len(one) <= 300 for one in names):
        raise Broken(f"{key} of {where} are no names of replicas")
    return tuple(names)


def _seconds(document: Mapping[str, Any], key: str, where: str) -> float:
    return take_size(document, key, where) / 1000


def _one_of(document: Mapping[str, Any], key: str, known: tuple[T, ...], where: str) -> T:
    value: Any = document.get(key)
    if value not in known:
        raise Broken(f"{key} of {where} is {value!r:.60}")
    return value  # type: ignore[no-any-return]
