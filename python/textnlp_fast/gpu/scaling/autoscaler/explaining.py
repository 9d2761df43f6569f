"""Why so many replicas at such a time: a decision of the log in words, and what came true of its forecast."""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass
from typing import Final

from textnlp_fast.errors import InvalidInputError, ObjectNotFoundError
from textnlp_fast.gpu.scaling.autoscaler.book import Book
from textnlp_fast.gpu.scaling.autoscaler.records import DecisionRecord

__all__ = ["Explanation", "explain", "moment", "sentences_of"]

_CLOCK: Final = re.compile(r"(\d{1,2}):(\d{2})(?::(\d{2}))?", re.ASCII)
_WORDS: Final = (
    ("request_rate", "{:.2f} requests/s"),
    ("waiting_requests", "{:.0f} waiting"),
    ("running_requests", "{:.0f} running"),
    ("kv_cache_use", "KV cache {:.0%} full"),
    ("ttft_s", "first token after {:.2f} s"),
    ("inter_token_s", "{:.3f} s between tokens"),
    ("slo_attainment", "{:.2%} within the SLO"),
)


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """A decision and its reasons. `str()` gives it as lines."""

    record: DecisionRecord
    sentences: tuple[str, ...]
    demand_later: float | None
    """The demand when the forecast's time had come; None: it has not, or nothing was decided then."""

    def __str__(self) -> str:
        return "\n".join(self.sentences)


def moment(at: str | datetime.datetime | float | None, now_s: float) -> float:
    """Seconds since the epoch of `14:02` (UTC, today, or yesterday where that is still to come), or an ISO time.

    A time without a zone is UTC. None: now. Raises InvalidInputError.
    """
    if at is None:
        return now_s
    if isinstance(at, int | float) and not isinstance(at, bool):
        return float(at)
    if isinstance(at, str):
        clock = _CLOCK.fullmatch(at.strip())
        now = datetime.datetime.fromtimestamp(now_s, datetime.timezone.utc)
        try:
            if clock:
                hour, minute, second = (int(one or 0) for one in clock.groups())
                # 14:02 means the whole minute: the last decision in it.
                last = 59 if clock[3] is None else second
                found = now.replace(hour=hour, minute=minute, second=last, microsecond=999_999)
                begin = found.replace(second=0 if clock[3] is None else second, microsecond=0)
                return (found - datetime.timedelta(days=begin > now)).timestamp()
            at = datetime.datetime.fromisoformat(at.strip().replace("Z", "+00:00"))
        except ValueError:
            raise InvalidInputError(
                f"{at!r:.60} is no time", hint="Write 14:02 (UTC), or 2026-01-31T14:02:00+00:00."
            ) from None
    if not isinstance(at, datetime.datetime):
        raise InvalidInputError(f"{at!r:.60} is no time")
    return (at if at.tzinfo is not None else at.replace(tzinfo=datetime.timezone.utc)).timestamp()


def explain(book: Book, at_s: float) -> Explanation:
    """The decision that stood at a time. Raises ObjectNotFoundError where the log has none of it."""
    record = next(book.decisions(until_s=at_s), None)
    if record is None:
        raise ObjectNotFoundError(
            f"the log of {book.name!r} in {book.store.url} has no decision at {_clock(at_s)} or before",
            hint="Check the store and the fleet's name; old segments of the log are deleted.",
        )
    later = _later(book, record)
    return Explanation(record=record, sentences=tuple(sentences_of(record, later)), demand_later=later)


def _later(book: Book, record: DecisionRecord) -> float | None:
    if record.forecast is None or record.horizon_s <= 0:
        return None
    due_s = record.time_s + record.horizon_s
    newest_s = max((one.time_s for one in book.peek().recent), default=0.0)
    if newest_s < due_s:
        return None
    near = next(book.decisions(since_s=record.time_s, until_s=due_s), None)
    return near.demand if near is not None and near.number != record.number else None


def sentences_of(one: DecisionRecord, later: float | None = None) -> list[str]:
    """A decision in words, the most important first; `later` is the demand when its forecast's time had come."""
    before = (
        ""
        if one.before is None
        else " as before"
        if one.before == one.target
        else f" instead of {one.before}"
    )
    lines = [f"{_clock(one.time_s)}: {_replicas(one.target)}{before} (decision {one.number}, {one.outcome})."]
    if one.reasons:
        lines.append(f"What decided was {one.reasons[0][0]}: {one.reasons[0][2]}.")
        lines += [f"Also {part}: {text}." for part, _, text in one.reasons[1:]]
    if one.wanted != one.target:
        lines.append(f"The policy wanted {one.wanted}; bounds made it {one.target}.")
    seen = [form.format(one.observed[name]) for name, form in _WORDS if name in one.observed]
    ready = one.observed.get("ready")
    fleet = "how many served was not known" if ready is None else f"{ready:.0f} served"
    starting = one.observed.get("starting", 0.0)
    lines.append(
        f"Observed: {fleet}, {starting:.0f} were starting; {', '.join(seen) or 'traffic was not measured'}."
    )
    if one.forecast is not None:
        demand = "unknown" if one.demand is None else f"{one.demand:.2f} replicas"
        truth = "has not come yet, or was not measured" if later is None else f"was {later:.2f}"
        lines.append(
            f"Demand was {demand}, expected {one.forecast:.2f} in {one.horizon_s:.0f} s; what then came {truth}."
        )
    lines += [f"Alert {name}: {text}." for name, text in one.alerts]
    return [" ".join(line.split()).replace("..", ".") for line in lines]


def _replicas(count: int) -> str:
    return f"{count} replica{'s' if count != 1 else ''}"


def _clock(time_s: float) -> str:
    return f"{datetime.datetime.fromtimestamp(time_s, datetime.timezone.utc):%Y-%m-%d %H:%M:%S} UTC"
