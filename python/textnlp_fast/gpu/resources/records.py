"""What is remembered of a launch: what was wanted, at which price, and what came of it.

A record is written before its launch is asked for, and changes by the functions here alone, which take a record and
return one.
"""

from __future__ import annotations

import datetime
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal, InvalidOperation
from enum import Enum
from typing import Any, Final

from textnlp_fast.contents.documents import Broken, parse_document, seal_document, take
from textnlp_fast.errors import CorruptDataError
from textnlp_fast.gpu.providers.contract import Instance, InstanceState
from textnlp_fast.gpu.types import Market

__all__ = [
    "Alternative",
    "InstanceRecord",
    "LaunchRecord",
    "Period",
    "Phase",
    "abandoned",
    "failed",
    "launched",
    "observed",
    "parse_record",
    "record_document",
    "vanished",
    "wanting",
]

_UTC: Final = datetime.timezone.utc
_LEAST_AGE_TO_VANISH: Final = datetime.timedelta(minutes=10)


class Phase(str, Enum):
    """How far a launch has come."""

    INTENDED = "intended"
    """It may have been asked for, and what came of it is not known yet."""
    LAUNCHED = "launched"
    FAILED = "failed"
    """It launched nothing."""
    ABANDONED = "abandoned"
    """What came of it is not known, and nobody wants it: whatever shows up is to be ended."""

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, kw_only=True)
class Period:
    """Time for which an instance is paid."""

    began: datetime.datetime
    ended: datetime.datetime | None = None


@dataclass(frozen=True, kw_only=True)
class InstanceRecord:
    """One instance of a launch. `state` is what was last known, `wanted` what it was last told to be."""

    instance_id: str
    zone: str | None
    state: InstanceState
    wanted: InstanceState
    periods: tuple[Period, ...]
    why: str | None = None


@dataclass(frozen=True, kw_only=True)
class Alternative:
    """Another instance type that a launch may come off with, at its own prices."""

    instance_type: str
    usd_per_hour: Decimal
    on_demand_usd_per_hour: Decimal | None


@dataclass(frozen=True, kw_only=True)
class LaunchRecord:
    """One attempt of an acquisition. Prices are USD per hour of one instance."""

    acquisition: str
    number: int
    owner: str
    phase: Phase
    provider: str
    region: str
    zone: str | None
    market: Market
    instance_type: str
    gpu_type: str
    gpu_count: float
    count: int
    min_count: int
    usd_per_hour: Decimal
    on_demand_usd_per_hour: Decimal | None
    max_usd_per_hour: float | None
    image: str | None
    disk_gib: int
    user_data_digest: str | None
    tags: Mapping[str, str] = field(default_factory=dict)
    created_at: datetime.datetime
    process: str
    """Which process is at it: machine, id and start."""
    error: str | None = None
    """The class of the error that it ended with."""
    why: str | None = None
    refused: bool = False
    """True if it failed before a cloud was asked to launch anything: nothing can have come of it."""
    recovered: bool = False
    """True if the process that launched it died, and what it launched was found."""
    instances: tuple[InstanceRecord, ...] = ()
    alternatives: tuple[Alternative, ...] = ()
    """What the cloud may take in place of `instance_type`; once it came off, type and prices are of what came."""

    @property
    def most_usd_per_hour(self) -> Decimal:
        """What one instance may cost."""
        return max([self.usd_per_hour, *(one.usd_per_hour for one in self.alternatives)])

    @property
    def launch_id(self) -> str:
        """The client token."""
        return f"{self.acquisition}-{self.number}"

    @property
    def key(self) -> str:
        """Where it lies in the journal."""
        return f"launches/{self.acquisition}/{self.number:06d}.json"


# --- how records change -----------------------------------------------------------------------------------------


def launched(record: LaunchRecord, instances: Iterable[Instance], *, recovered: bool = False) -> LaunchRecord:
    """It came off. Each instance is paid from when its provider says that it was launched."""
    instances = list(instances)
    record = _of_what_came(record, instances)
    known = {one.instance_id: one for one in record.instances}
    found = tuple(
        known.get(one.instance_id)
        or InstanceRecord(
            instance_id=one.instance_id,
            zone=one.zone,
            state=one.state,
            wanted=InstanceState.RUNNING,
            periods=(Period(began=one.launched_at, ended=None if one.state.alive else one.launched_at),),
            why=one.reason if not one.state.alive else None,
        )
        for one in instances
    )
    return replace(record, phase=Phase.LAUNCHED, instances=found, recovered=record.recovered or recovered)


def _of_what_came(record: LaunchRecord, instances: Iterable[Instance]) -> LaunchRecord:
    """With type and prices of the alternative that the cloud took: all instances of a launch are of one type."""
    came = {one.instance_type for one in instances}
    taken = next((one for one in record.alternatives if one.instance_type in came), None)
    if taken is None or record.instance_type in came:
        return replace(record, alternatives=())
    return replace(
        record,
        instance_type=taken.instance_type,
        usd_per_hour=taken.usd_per_hour,
        on_demand_usd_per_hour=taken.on_demand_usd_per_hour,
        alternatives=(),
    )


def failed(record: LaunchRecord, error: BaseException, *, refused: bool = False) -> LaunchRecord:
    """It launched nothing, for this reason; `refused`: nor was it asked to."""
    why = str(error.args[0]) if error.args else type(error).__name__
    return replace(record, phase=Phase.FAILED, error=type(error).__name__, why=why[:1000], refused=refused)


def abandoned(record: LaunchRecord, error: BaseException) -> LaunchRecord:
    """Nobody knows what came of it, and nobody wants it any more."""
    return replace(failed(record, error), phase=Phase.ABANDONED)


def wanting(record: LaunchRecord, instance_ids: Iterable[str], wanted: InstanceState) -> LaunchRecord:
    """Written before a provider is told to stop, start or end them."""
    ids = set(instance_ids)
    return replace(
        record,
        instances=tuple(
            replace(one, wanted=wanted) if one.instance_id in ids and one.state.alive else one
            for one in record.instances
        ),
    )


def observed(
    record: LaunchRecord, seen: Mapping[str, tuple[InstanceState, str | None]], at: datetime.datetime
) -> LaunchRecord:
    """The record after instances were seen (or told) to be in a state, with the reason for it.

    A stopped or ended one is paid until `at`, the moment at which that was told or first seen.
    """
    return replace(
        record,
        instances=tuple(
            _seen(one, *seen[one.instance_id], at) if one.instance_id in seen else one
            for one in record.instances
        ),
    )


def _seen(
    one: InstanceRecord, state: InstanceState, why: str | None, at: datetime.datetime
) -> InstanceRecord:
    if not one.state.alive or state is one.state:
        return one  # what has ended stays ended
    pays = state in (InstanceState.PENDING, InstanceState.RUNNING)
    last = one.periods[-1] if one.periods else None
    periods = one.periods
    if not pays and last is not None and last.ended is None:
        periods = (*periods[:-1], replace(last, ended=max(at, last.began)))
    elif pays and (last is None or last.ended is not None):
        periods = (*periods, Period(began=at if last is None or last.ended is None else max(at, last.ended)))
    return replace(one, state=state, periods=periods, why=why if not pays else one.why)


def vanished(record: LaunchRecord, one: InstanceRecord, at: datetime.datetime) -> bool:
    """Whether an instance that its provider does not know has ended: new ones are only not shown yet."""
    return bool(one.periods) and at - record.created_at > _LEAST_AGE_TO_VANISH


# --- as documents -----------------------------------------------------------------------------------------------


def record_document(record: LaunchRecord) -> bytes:
    """The record as it is stored, with a write id: two writers never write the same bytes."""
    return seal_document(
        {
            "format": 1,
            "write_id": secrets.token_hex(16),
            "acquisition": record.acquisition,
            "number": record.number,
            "owner": record.owner,
            "phase": str(record.phase),
            "provider": record.provider,
            "region": record.region,
            "zone": record.zone,
            "market": str(record.market),
            "instance_type": record.instance_type,
            "gpu_type": record.gpu_type,
            "gpu_count": record.gpu_count,
            "count": record.count,
            "min_count": record.min_count,
            "usd_per_hour": str(record.usd_per_hour),
            "on_demand_usd_per_hour": _text(record.on_demand_usd_per_hour),
            "max_usd_per_hour": record.max_usd_per_hour,
            "image": record.image,
            "disk_gib": record.disk_gib,
            "user_data_digest": record.user_data_digest,
            "tags": dict(record.tags),
            "created_at": record.created_at.isoformat(),
            "process": record.process,
            "error": record.error,
            "why": record.why,
            "refused": record.refused,
            "recovered": record.recovered,
            "alternatives": [
                [one.instance_type, str(one.usd_per_hour), _text(one.on_demand_usd_per_hour)]
                for one in record.alternatives
            ],
            "instances": [
                {
                    "instance_id": one.instance_id,
                    "zone": one.zone,
                    "state": str(one.state),
                    "wanted": str(one.wanted),
                    "why": one.why,
                    "periods": [
                        [p.began.isoformat(), _text(p.ended and p.ended.isoformat())] for p in one.periods
                    ],
                }
                for one in record.instances
            ],
        }
    )


def parse_record(data: bytes, what: str) -> LaunchRecord:
    """Reads a stored record. Raises CorruptDataError, UnsupportedFormatError for one of a newer version."""
    document = parse_document(data, what)
    try:
        return LaunchRecord(
            acquisition=take(document, "acquisition", str, "it"),
            number=take(document, "number", int, "it"),
            owner=take(document, "owner", str, "it"),
            phase=Phase(take(document, "phase", str, "it")),
            provider=take(document, "provider", str, "it"),
            region=take(document, "region", str, "it"),
            zone=_optional(document, "zone"),
            market=Market(take(document, "market", str, "it")),
            instance_type=take(document, "instance_type", str, "it"),
            gpu_type=take(document, "gpu_type", str, "it"),
            gpu_count=_number(document["gpu_count"]),
            count=take(document, "count", int, "it"),
            min_count=take(document, "min_count", int, "it"),
            usd_per_hour=_money(document["usd_per_hour"]),
            on_demand_usd_per_hour=None
            if document["on_demand_usd_per_hour"] is None
            else _money(document["on_demand_usd_per_hour"]),
            max_usd_per_hour=None
            if document["max_usd_per_hour"] is None
            else _number(document["max_usd_per_hour"]),
            image=_optional(document, "image"),
            disk_gib=take(document, "disk_gib", int, "it"),
            user_data_digest=_optional(document, "user_data_digest"),
            tags={str(key): str(value) for key, value in take(document, "tags", dict, "it").items()},
            created_at=_moment(document["created_at"]),
            process=take(document, "process", str, "it"),
            error=_optional(document, "error"),
            why=_optional(document, "why"),
            # Records from before there was this word do not say.
            refused=document.get("refused") is True,
            recovered=take(document, "recovered", bool, "it"),
            instances=tuple(_instance(one) for one in take(document, "instances", list, "it")),
            alternatives=tuple(_alternative(*one) for one in document.get("alternatives", ())),
        )
    except (Broken, KeyError, ValueError, TypeError, InvalidOperation) as error:
        raise CorruptDataError(
            f"{what} is no record of a launch: {error}",
            hint="Restore it from a backup; `textnlp-fast gpu orphans` finds what it was about.",
        ) from None


def _instance(document: Any) -> InstanceRecord:
    if not isinstance(document, dict):
        raise Broken("an instance is no object")
    return InstanceRecord(
        instance_id=take(document, "instance_id", str, "an instance"),
        zone=_optional(document, "zone"),
        state=InstanceState(take(document, "state", str, "an instance")),
        wanted=InstanceState(take(document, "wanted", str, "an instance")),
        why=_optional(document, "why"),
        periods=tuple(
            Period(began=_moment(began), ended=None if ended is None else _moment(ended))
            for began, ended in take(document, "periods", list, "an instance")
        ),
    )


def _alternative(instance_type: Any, usd: Any, listed: Any) -> Alternative:
    if not isinstance(instance_type, str):
        raise Broken("an alternative has no instance type")
    return Alternative(
        instance_type=instance_type,
        usd_per_hour=_money(usd),
        on_demand_usd_per_hour=None if listed is None else _money(listed),
    )


def _optional(document: Mapping[str, Any], key: str) -> str | None:
    value = document[key]
    if value is not None and not isinstance(value, str):
        raise Broken(f"{key} is no text")
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise Broken(f"{value!r} is no number")
    return float(value)


def _money(value: Any) -> Decimal:
    number = Decimal(value) if isinstance(value, str) else Decimal("NaN")
    if not number.is_finite() or number < 0:
        raise Broken(f"{value!r} is no price")
    return number


def _moment(value: Any) -> datetime.datetime:
    moment = datetime.datetime.fromisoformat(value)
    if moment.tzinfo is None:
        raise Broken(f"{value!r} has no time zone")
    return moment.astimezone(_UTC)


def _text(value: object) -> str | None:
    return None if value is None else str(value)
