"""One period as it is written down, and the state of an autoscaler: values, and their JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from textnlp_fast.errors import CorruptDataError, UnsupportedFormatError
from textnlp_fast.gpu.scaling.decision import Decision
from textnlp_fast.gpu.scaling.observation import Observation

__all__ = ["DecisionRecord", "State", "parse_records", "parse_state", "records_document", "state_document"]

_FORMAT: Final = 1
_MOST_TEXT: Final = 400
_MOST_LINES: Final = 40


@dataclass(frozen=True, kw_only=True)
class DecisionRecord:
    """A decision: what was seen, what was said and why, and what came of it."""

    number: int
    """Counts up by one, over all restarts."""
    decision_id: str
    time_s: float
    """Since the epoch."""
    target: int
    before: int | None
    """The target of the decision before; None: there was none."""
    wanted: int
    """What the policy said, before bounds that are not its own."""
    reasons: tuple[tuple[str, float, str], ...] = ()
    """Part, replicas, and the sentence. The first decided."""
    alerts: tuple[tuple[str, str], ...] = ()
    observed: Mapping[str, float] = field(default_factory=dict)
    """The fields of the observation that were measured."""
    demand: float | None = None
    forecast: float | None = None
    horizon_s: float = 0.0
    """How far ahead the forecast looks."""
    holder: str = ""
    outcome: str = "intended"
    """intended (written before the actuator was told), told, or why not."""


@dataclass(frozen=True, kw_only=True)
class State:
    """What the next process needs in order to go on, and the newest decisions."""

    token: int = 0
    """Of the lease of whoever wrote it: grows with every new holder."""
    number: int = 0
    target: int | None = None
    policy: Mapping[str, Any] | None = None
    """The policy's snapshot."""
    policy_name: str = ""
    cold_starts: Mapping[str, Any] | None = None
    recent: tuple[DecisionRecord, ...] = ()
    """Those that are in no segment of the log yet; the last may still be carried out."""

    @property
    def pending(self) -> DecisionRecord | None:
        """The decision that may not have reached the actuator; None: the last one did."""
        return self.recent[-1] if self.recent and self.recent[-1].outcome == "intended" else None

    def with_outcome(self, outcome: str) -> State:
        """The same, with what came of the last decision."""
        return replace(
            self, recent=(*self.recent[:-1], replace(self.recent[-1], outcome=outcome[:_MOST_TEXT]))
        )


def record_of(
    decision: Decision,
    observation: Observation,
    *,
    number: int,
    decision_id: str,
    target: int,
    before: int | None,
    alerts: tuple[tuple[str, str], ...],
    horizon_s: float,
    holder: str,
) -> DecisionRecord:
    """What is written of a decision, bounded in size whatever a policy says."""
    seen = {
        name: float(value)
        for name, value in observation._asdict().items()
        if name != "time_s" and value is not None and math.isfinite(value)
    }
    return DecisionRecord(
        number=number,
        decision_id=decision_id,
        time_s=observation.time_s,
        target=target,
        before=before,
        wanted=decision.target,
        reasons=tuple(
            (one.part, _number(one.replicas), one.text[:_MOST_TEXT]) for one in decision.reasons[:_MOST_LINES]
        ),
        alerts=alerts[:_MOST_LINES],
        observed=seen,
        demand=_finite(decision.demand),
        forecast=_finite(decision.forecast),
        horizon_s=horizon_s,
        holder=holder,
    )


def state_document(state: State, write_id: str) -> bytes:
    document = {
        "format": _FORMAT,
        "write_id": write_id,
        "token": state.token,
        "number": state.number,
        "target": state.target,
        "policy": state.policy,
        "policy_name": state.policy_name,
        "cold_starts": state.cold_starts,
        "recent": [_record_json(one) for one in state.recent],
    }
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def parse_state(data: bytes, where: str) -> State:
    """Raises CorruptDataError, or UnsupportedFormatError for one that a newer version wrote."""
    try:
        document = json.loads(data)
        if document["format"] != _FORMAT:
            raise UnsupportedFormatError(f"{where} has format {document['format']}")
        target = document["target"]
        return State(
            token=int(document["token"]),
            number=int(document["number"]),
            target=None if target is None else int(target),
            policy=document["policy"],
            policy_name=str(document["policy_name"]),
            cold_starts=document["cold_starts"],
            recent=tuple(_record(one) for one in document["recent"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _corrupt(where, error) from None


def records_document(records: tuple[DecisionRecord, ...]) -> bytes:
    """A segment of the log: the same records give the same bytes, whoever writes them."""
    document = {"format": _FORMAT, "decisions": [_record_json(one) for one in records]}
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def parse_records(data: bytes, where: str) -> tuple[DecisionRecord, ...]:
    """Raises CorruptDataError, UnsupportedFormatError."""
    try:
        document = json.loads(data)
        if document["format"] != _FORMAT:
            raise UnsupportedFormatError(f"{where} has format {document['format']}")
        return tuple(_record(one) for one in document["decisions"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _corrupt(where, error) from None


def _corrupt(where: str, error: Exception) -> CorruptDataError:
    return CorruptDataError(
        f"{where} cannot be read: {type(error).__name__}: {error}"[:300],
        hint="Restore it from a copy, or delete it: the autoscaler then begins anew from the fleet as it is.",
    )


def _record_json(one: DecisionRecord) -> dict[str, Any]:
    return {
        "number": one.number,
        "id": one.decision_id,
        "time_s": one.time_s,
        "target": one.target,
        "before": one.before,
        "wanted": one.wanted,
        "reasons": [list(reason) for reason in one.reasons],
        "alerts": [list(alert) for alert in one.alerts],
        "observed": dict(one.observed),
        "demand": one.demand,
        "forecast": one.forecast,
        "horizon_s": one.horizon_s,
        "holder": one.holder,
        "outcome": one.outcome,
    }


def _record(document: Mapping[str, Any]) -> DecisionRecord:
    before = document["before"]
    return DecisionRecord(
        number=int(document["number"]),
        decision_id=str(document["id"]),
        time_s=float(document["time_s"]),
        target=int(document["target"]),
        before=None if before is None else int(before),
        wanted=int(document["wanted"]),
        reasons=tuple((str(part), float(count), str(text)) for part, count, text in document["reasons"]),
        alerts=tuple((str(name), str(text)) for name, text in document["alerts"]),
        observed={str(name): float(value) for name, value in document["observed"].items()},
        demand=_optional(document["demand"]),
        forecast=_optional(document["forecast"]),
        horizon_s=float(document["horizon_s"]),
        holder=str(document["holder"]),
        outcome=str(document["outcome"]),
    )


def _optional(value: Any) -> float | None:
    return None if value is None else float(value)


def _finite(value: float | None) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None


def _number(value: float) -> float:
    return float(value) if math.isfinite(value) else 0.0
