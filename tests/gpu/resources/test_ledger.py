"""The ledger's arithmetic against one in whole numbers, and what is stored against what was."""

from __future__ import annotations

import datetime
import json
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from textnlp_fast.errors import BudgetExceededError, CorruptDataError, InvalidInputError, TextnlpFastError
from textnlp_fast.gpu.providers.contract import InstanceState
from textnlp_fast.gpu.resources.ledger import check_budget, costs_of, total
from textnlp_fast.gpu.resources.records import (
    InstanceRecord,
    LaunchRecord,
    Period,
    Phase,
    observed,
    parse_record,
    record_document,
    wanting,
)
from textnlp_fast.gpu.resources.requests import Budget
from textnlp_fast.gpu.types import Market

_NOON = datetime.datetime(2026, 11, 29, 12, tzinfo=datetime.timezone.utc)


def _record(**changes: object) -> LaunchRecord:
    record = LaunchRecord(
        acquisition="a0123456789",
        number=0,
        owner="fleet-a",
        phase=Phase.LAUNCHED,
        provider="aws",
        region="us-east-1",
        zone=None,
        market=Market.SPOT,
        instance_type="g4dn.xlarge",
        gpu_type="nvidia-t4",
        gpu_count=1.0,
        count=1,
        min_count=1,
        usd_per_hour=Decimal("0.1578"),
        on_demand_usd_per_hour=Decimal("0.526"),
        max_usd_per_hour=None,
        image=None,
        disk_gib=100,
        user_data_digest=None,
        created_at=_NOON,
        process="here|boot|1|2",
    )
    return replace(record, **changes)  # type: ignore[arg-type]


def _instance(*periods: tuple[int, int | None], state: str = "running", name: str = "i-1") -> InstanceRecord:
    return InstanceRecord(
        instance_id=name,
        zone="us-east-1a",
        state=InstanceState(state),
        wanted=InstanceState.RUNNING,
        periods=tuple(
            Period(
                began=_NOON + datetime.timedelta(microseconds=began),
                ended=None if ended is None else _NOON + datetime.timedelta(microseconds=ended),
            )
            for began, ended in periods
        ),
    )


_DAY_US = 86_400_000_000


@given(
    st.lists(st.tuples(st.integers(0, _DAY_US), st.integers(0, _DAY_US)), max_size=5),
    st.booleans(),
    st.integers(0, 10**7),
    st.integers(0, 10**7),
    st.sampled_from(["aws", "gcp", "azure", "local"]),
)
def test_every_microsecond_at_its_price(
    spans: list[tuple[int, int]], runs: bool, price: int, listed: int, provider: str
) -> None:
    """Prices in millionths of a dollar; AWS and Google bill a minute at least for every start."""
    moment = 0
    periods: list[tuple[int, int | None]] = []
    for pause, lasts in spans:
        began = moment + pause
        moment = began + lasts
        periods.append((began, moment))
    now = moment
    if runs and periods:
        periods[-1] = (periods[-1][0], None)
    state = "running" if runs else "terminated"
    record = _record(
        provider=provider,
        usd_per_hour=Decimal(price) / 10**6,
        on_demand_usd_per_hour=Decimal(listed) / 10**6,
        instances=(_instance(*periods, state=state),),
    )
    costs = costs_of(record, _NOON + datetime.timedelta(microseconds=now))
    least = 60_000_000 if provider in ("aws", "gcp") else 0
    microseconds = sum(max(least, (now if end is None else end) - begin) for begin, end in periods)
    expected = Fraction(microseconds, 3_600_000_000) * Fraction(price, 10**6)
    difference = Fraction(microseconds, 3_600_000_000) * Fraction(listed - price, 10**6)
    assert abs(Fraction(costs.spent_usd) - expected) < Fraction(1, 10**15)
    assert abs(Fraction(costs.saved_usd) - difference) < Fraction(1, 10**15)
    assert costs.running == int(runs and bool(periods))


def test_a_launch_under_way_counts_in_the_budget_in_full() -> None:
    under_way = _record(phase=Phase.INTENDED, count=10, usd_per_hour=Decimal(1))
    budget = Budget(usd_per_hour=12.0)
    check_budget(budget, [under_way], more_usd_per_hour=Decimal(2), expected_hours=1, now=_NOON)
    with pytest.raises(BudgetExceededError):
        check_budget(budget, [under_way], more_usd_per_hour=Decimal("2.01"), expected_hours=1, now=_NOON)
    given_up = replace(under_way, phase=Phase.ABANDONED)
    check_budget(budget, [given_up], more_usd_per_hour=Decimal(12), expected_hours=1, now=_NOON)


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_budgets_that_are_none(value: float) -> None:
    with pytest.raises(InvalidInputError):
        Budget(usd_per_hour=value)


_states = st.sampled_from(list(InstanceState))


@given(st.lists(st.tuples(_states, st.integers(0, 100_000)), max_size=12))
def test_periods_never_overlap_and_ends_are_final(seen: list[tuple[InstanceState, int]]) -> None:
    """Whatever is observed in whatever order of time."""
    record = _record(instances=(_instance((0, None)),))
    ended = False
    for state, seconds in seen:
        at = _NOON + datetime.timedelta(seconds=seconds)
        record = observed(record, {"i-1": (state, None)}, at)
        (one,) = record.instances
        if ended:
            assert not one.state.alive
        ended = ended or not one.state.alive
        for period in one.periods:
            assert period.ended is None or period.began <= period.ended
        for earlier, later in zip(one.periods, one.periods[1:], strict=False):
            assert earlier.ended is not None and earlier.ended <= later.began
        paid = one.periods[-1].ended is None
        assert paid == (one.state in (InstanceState.PENDING, InstanceState.RUNNING))


def test_a_wish_for_what_has_ended_is_none() -> None:
    record = _record(instances=(_instance((0, 1), state="terminated"),))
    assert wanting(record, ["i-1"], InstanceState.RUNNING) == record


@given(
    zone=st.none() | st.text(max_size=20),
    tags=st.dictionaries(st.text(max_size=10), st.text(max_size=10), max_size=4),
    why=st.none() | st.text(max_size=30),
    phase=st.sampled_from(list(Phase)),
    periods=st.lists(st.tuples(st.integers(0, 10**12), st.none() | st.integers(0, 10**12)), max_size=3),
    price=st.decimals(0, 1000, places=6),
)
def test_what_is_stored_is_what_was(**fields: object) -> None:
    periods = fields.pop("periods")
    price = fields.pop("price")
    record = _record(**fields, usd_per_hour=price, instances=(_instance(*periods),))  # type: ignore[misc]
    if any("\ud800" <= c <= "\udfff" for c in json.dumps(str(record), ensure_ascii=False)):
        return  # half a character is no text
    assert parse_record(record_document(record), "it") == record


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_with_a_reason(data: bytes) -> None:
    with pytest.raises(TextnlpFastError):
        parse_record(data, "it")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("phase", "flying"),
        ("market", "stolen"),
        ("usd_per_hour", "-1"),
        ("usd_per_hour", "NaN"),
        ("usd_per_hour", 1.5),
        ("created_at", "yesterday"),
        ("created_at", "2026-11-29T12:00:00"),
        ("number", "0"),
        ("number", True),
        ("instances", [1]),
        ("instances", [{"instance_id": "i-1"}]),
        ("tags", []),
        ("recovered", "no"),
        ("zone", 7),
        ("gpu_count", "1"),
    ],
)
def test_a_field_that_is_wrong_is_named_or_refused(field: str, value: object) -> None:
    from textnlp_fast.contents.documents import seal_document  # noqa: PLC0415

    document = json.loads(record_document(_record()))
    del document["digest"]
    document[field] = value
    with pytest.raises(CorruptDataError):
        parse_record(seal_document(document), "it")


def test_a_changed_byte_is_noticed() -> None:
    data = record_document(_record())
    changed = data.replace(b'"count":1', b'"count":9')
    assert changed != data
    with pytest.raises(CorruptDataError):
        parse_record(changed, "it")


def test_the_sum_is_of_all() -> None:
    records = [
        _record(number=n, instances=(_instance((0, 3_600_000_000), state="terminated"),)) for n in range(7)
    ]
    assert total(records, _NOON).spent_usd == 7 * Decimal("0.1578")
