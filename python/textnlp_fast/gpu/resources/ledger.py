"""What the fleet costs, computed from the journal's records alone: nothing else is kept, so nothing else can be wrong.

Machines only: disks, addresses and traffic are billed apart. Prices are those of the catalogue at the launch; what spot
really cost from hour to hour is on the cloud's bill.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from textnlp_fast.errors import BudgetExceededError
from textnlp_fast.gpu.providers.contract import InstanceState
from textnlp_fast.gpu.resources.records import InstanceRecord, LaunchRecord, Period, Phase
from textnlp_fast.gpu.resources.requests import Budget

__all__ = ["MINIMUM_BILLED_S", "Costs", "check_budget", "costs_of", "total", "usd_per_hour_now"]

MINIMUM_BILLED_S: Final = {"aws": 60, "gcp": 60}
"""Seconds that every start is billed for at least.

https://aws.amazon.com/ec2/pricing/on-demand/ (Linux, by the second) and https://cloud.google.com/compute/vm-instance-pricing.
"""

_HOUR_US: Final = Decimal(3_600_000_000)
_MICROSECOND: Final = datetime.timedelta(microseconds=1)


@dataclass(frozen=True, kw_only=True)
class Costs:
    """In USD. `saved` is what the same hours would have cost more on demand; 0 where that price was not known."""

    usd_per_hour: Decimal = Decimal(0)
    spent_usd: Decimal = Decimal(0)
    saved_usd: Decimal = Decimal(0)
    running: int = 0
    """Instances that are paid now."""

    def __add__(self, other: Costs) -> Costs:
        return Costs(
            usd_per_hour=self.usd_per_hour + other.usd_per_hour,
            spent_usd=self.spent_usd + other.spent_usd,
            saved_usd=self.saved_usd + other.saved_usd,
            running=self.running + other.running,
        )


def costs_of(record: LaunchRecord, now: datetime.datetime, *, instance_id: str | None = None) -> Costs:
    """What a launch, or one of its instances, costs now and has cost until `now`."""
    spent = saved = rate = Decimal(0)
    running = 0
    list_price = record.on_demand_usd_per_hour
    for one in record.instances:
        if instance_id is not None and one.instance_id != instance_id:
            continue
        hours = sum((_hours(record.provider, period, now) for period in one.periods), Decimal(0))
        spent += hours * record.usd_per_hour
        if list_price is not None:
            saved += hours * (list_price - record.usd_per_hour)
        if _is_paid(one):
            rate += record.usd_per_hour
            running += 1
    return Costs(usd_per_hour=rate, spent_usd=spent, saved_usd=saved, running=running)


def total(records: Iterable[LaunchRecord], now: datetime.datetime) -> Costs:
    """What all of them cost together."""
    return sum((costs_of(record, now) for record in records), Costs())


def usd_per_hour_now(record: LaunchRecord) -> Decimal:
    """What a launch may cost an hour: one whose end is not known yet as if it came off in full."""
    if record.phase is Phase.INTENDED:
        return record.most_usd_per_hour * record.count
    return record.usd_per_hour * sum(1 for one in record.instances if _is_paid(one))


def check_budget(
    budget: Budget,
    records: Iterable[LaunchRecord],
    *,
    more_usd_per_hour: Decimal,
    expected_hours: float,
    now: datetime.datetime,
) -> None:
    """Raises BudgetExceededError if launching something of that price, beside what is there, is over the budget."""
    records = list(records)
    if budget.usd_per_hour is not None:
        running = sum((usd_per_hour_now(record) for record in records), Decimal(0))
        if running + more_usd_per_hour > Decimal(str(budget.usd_per_hour)):
            raise BudgetExceededError(
                f"{more_usd_per_hour:.2f} USD an hour more, beside {running:.2f} that run, is over the budget of "
                f"{budget.usd_per_hour:.2f} an hour"
            )
    if budget.total_usd is not None:
        spent = total(records, now).spent_usd
        expected = more_usd_per_hour * Decimal(str(expected_hours))
        if spent + expected > Decimal(str(budget.total_usd)):
            raise BudgetExceededError(
                f"{expected:.2f} USD for {expected_hours:g} h, beside {spent:.2f} spent, is over the budget of "
                f"{budget.total_usd:.2f}"
            )


def _is_paid(one: InstanceRecord) -> bool:
    return bool(one.periods) and one.periods[-1].ended is None and one.state is not InstanceState.STOPPED


def _hours(provider: str, period: Period, now: datetime.datetime) -> Decimal:
    ended = now if period.ended is None else period.ended
    microseconds = max(0, (ended - period.began) // _MICROSECOND)
    least = MINIMUM_BILLED_S.get(provider, 0) * 1_000_000
    return Decimal(max(microseconds, least)) / _HOUR_US
