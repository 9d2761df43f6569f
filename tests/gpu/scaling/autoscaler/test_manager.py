"""The loop and its face: what fails is told and does no harm, and the log says why."""

from __future__ import annotations

import asyncio
import datetime
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from gpu.scaling.autoscaler.fleets import FileFleet, RatePolicy, Traffic
from textnlp_fast.errors import (
    InvalidInputError,
    NotAllowedError,
    ObjectNotFoundError,
    ProviderUnavailableError,
    StorageUnavailableError,
)
from textnlp_fast.gpu import GPUAutoscalerManager, ScalingPolicy
from textnlp_fast.gpu.scaling.actuators.contract import FleetState, Replica
from textnlp_fast.gpu.scaling.autoscaler.book import Book
from textnlp_fast.gpu.scaling.autoscaler.cold_starts import ColdStarts
from textnlp_fast.gpu.scaling.autoscaler.explaining import moment
from textnlp_fast.gpu.scaling.autoscaler.manager import our_policy
from textnlp_fast.gpu.scaling.autoscaler.metrics import GAUGES, AutoscalerMetrics
from textnlp_fast.gpu.scaling.autoscaler.period import FleetLoop
from textnlp_fast.gpu.scaling.decision import Decision
from textnlp_fast.gpu.scaling.observation import Observation
from textnlp_fast.gpu.scaling.policy import ColdStart
from textnlp_fast.objectstore import open_store

NOON = 1_767_268_800.0  # 2026-01-01 12:00 UTC


#: As long as a replica of the fleet in a file takes from one period to the next.
_QUICK = ColdStart(provisioning_s=10.0, weights_s=0.0, warm_up_s=0.0)


class Clock:
    def __init__(self) -> None:
        self.now_s = NOON

    def __call__(self) -> float:
        return self.now_s


class Setting:
    """A fleet of one test, and periods of it by hand."""

    def __init__(self, folder: Path, **policy: Any) -> None:
        self.clock = Clock()
        self.fleet = FileFleet(folder / "fleet.json")
        self.traffic = Traffic()
        self.manager = GPUAutoscalerManager(
            policy=ScalingPolicy(**{"max_instances": 20, "cold_start": _QUICK, **policy}),
            actuator=self.fleet,
            observer=self.traffic,
            store=open_store(folder / "store"),
            make_policy=RatePolicy,
            clock=self.clock,
        )
        self.loop: FleetLoop = self.manager.prepared("test:fleet")
        self.book: Book = self.manager.book("test-fleet")

    async def period(self, rate: float | None = None) -> Any:
        if rate is not None:
            self.traffic.rate = rate
        if self.loop.state.token == 0:
            await self.loop.take_over(1)
        record = await self.loop.period(lambda: True)
        self.clock.now_s += 10
        return record


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    return Setting(tmp_path)


def names(setting: Setting) -> list[str]:
    return [alert.name for alert in setting.loop.alerts]


async def test_a_fleet_that_cannot_be_observed_keeps_what_was_decided(setting: Setting) -> None:
    assert (await setting.period(35)).target == 4
    setting.traffic.fail = ProviderUnavailableError("nobody answers")
    record = await setting.period()
    assert record.target == 4
    assert names(setting) == ["metrics_missing"]
    assert "nobody answers" in record.alerts[0][1]


async def test_an_actuator_that_fails_is_told_again(setting: Setting) -> None:
    setting.fleet.fail = ProviderUnavailableError("throttled")
    assert await setting.period(35) is None  # nothing is known of the fleet yet
    assert names(setting) == ["fleet_unread", "fleet_unknown"]
    setting.fleet.fail = None
    await setting.period(35)
    setting.fleet.fail = ProviderUnavailableError("throttled")
    record = await setting.period(60)
    assert (record.target, record.outcome) == (6, "failed: throttled")
    assert setting.fleet.count == 4
    setting.fleet.fail = None
    assert (await setting.period(60)).outcome == "told"
    assert setting.fleet.count == 6


@pytest.mark.parametrize("wrong", [ZeroDivisionError("no"), True, 3.5, None])
async def test_a_policy_that_fails_leaves_what_stood(
    setting: Setting, wrong: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await setting.period(35)

    def decide(self: RatePolicy, observation: Any) -> Decision:
        if isinstance(wrong, Exception):
            raise wrong
        return Decision(0.0, wrong)

    monkeypatch.setattr(RatePolicy, "decide", decide)
    record = await setting.period(1000)
    assert record.target == 4
    assert names(setting) == ["policy_failed"]


async def test_what_cannot_be_written_down_is_not_told(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    await setting.period(35)

    def down(*_: Any) -> Any:
        raise StorageUnavailableError("the bucket is gone")

    with monkeypatch.context() as patched:
        patched.setattr(setting.book.store.__class__, "compare_and_swap", down)
        with pytest.raises(Exception, match="may or may not"):
            await setting.period(90)
    assert setting.fleet.count == 4


async def test_bounds_of_the_group_win_and_are_told(setting: Setting) -> None:
    setting.fleet.bounds = (2, 5)
    record = await setting.period(90)
    assert (record.wanted, record.target) == (9, 5)
    assert names(setting) == ["group_bounds"]
    assert (await setting.period(0)).target == 2


async def test_a_fleet_that_is_taken_over_is_not_made_smaller_at_first_sight(setting: Setting) -> None:
    setting.fleet.scale_to(9, decision_id="by hand")
    assert [(await setting.period(20)).target for _ in range(2)] == [9, 2]


async def test_an_actuator_that_hangs_is_left_alone(tmp_path: Path) -> None:
    setting = Setting(tmp_path)
    await setting.period(35)
    release, entered = threading.Event(), 0

    def hang(name: str) -> None:
        nonlocal entered
        if name == "tell":
            entered += 1
            release.wait(20)

    setting.fleet._step = hang
    setting.loop._step_s = 0.2
    try:
        assert "did not answer" in (await setting.period(60)).outcome
        assert (await setting.period(70)).outcome.startswith("failed")
        assert entered == 1
    finally:
        release.set()


async def test_the_log_answers_why(setting: Setting) -> None:
    for rate in (35, 35, 70, 70):
        await setting.period(rate)
    setting.clock.now_s = NOON + 190
    await setting.period(82)
    told = await setting.manager.explain(NOON + 25, name="test-fleet")
    assert told.record.target == 7
    text = str(told)
    assert "2026-01-01 12:00:20 UTC: 7 replicas instead of 4 (decision 3, told)." in text
    assert "What decided was reactive: 70.0 requests/s need 7.00 replicas." in text
    assert "expected 14.00 in 10 s; what then came was 7.00." in text
    assert (await setting.manager.explain("12:00", name="test-fleet")).record.number == 4
    with pytest.raises(ObjectNotFoundError):
        await setting.manager.explain(NOON - 1, name="test-fleet")
    assert [one.number for one in await setting.manager.decisions(limit=2)] == [5, 4]


async def test_the_log_is_rotated_and_bounded(tmp_path: Path) -> None:
    setting = Setting(tmp_path)
    setting.loop.book = Book(setting.book.store, "test-fleet", segment_records=4, keep_segments=3)
    for number in range(40):
        await setting.period(float(number))
    log = list(setting.loop.book.decisions())
    assert [one.number for one in log] == list(range(40, 40 - len(log), -1))
    assert 12 <= len(log) <= 20
    assert sum(1 for _ in setting.book.store.list("autoscalers/test-fleet/log")) == 3
    # What came of the newest is written with the next one.
    assert all(one.outcome == "told" for one in log[1:])


async def test_metrics_are_told_and_documented(setting: Setting) -> None:
    registry = CollectorRegistry()
    async with setting.manager as manager:
        await manager.start_autoscaling("test:fleet")
        registry.register(AutoscalerMetrics(manager))
        text = generate_latest(registry).decode()
    assert 'textnlp_fast_autoscaler_target_replicas{fleet="test-fleet"} 4.0' in text
    assert 'textnlp_fast_autoscaler_active{fleet="test-fleet"} 1.0' in text
    assert 'textnlp_fast_autoscaler_decisions_total{fleet="test-fleet",part="reactive"} 1.0' in text
    guide = (Path(__file__).parents[4] / "docs/guide/metrics.md").read_text()
    for name in (*GAUGES, "periods_total", "decisions_total", "alerts_total"):
        assert f"`textnlp_fast_autoscaler_{name}`" in guide or f"`_{name}`" in guide, name


async def test_what_spot_saves_is_counted_by_its_replicas(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting = Setting(tmp_path, usd_per_hour=4.0, spot_usd_per_hour=1.0)
    replicas = tuple(Replica(replica_id=f"r-{k}", state="ready", spot=k < 2) for k in range(3))
    monkeypatch.setattr(
        FileFleet, "read", lambda fleet: FleetState(desired=3, ready=3, draining=1, replicas=replicas)
    )
    monkeypatch.setattr(
        FileFleet,
        "scale_to",
        lambda fleet, count, *, decision_id: FileFleet.read(fleet),  # type: ignore[misc]
    )
    registry = CollectorRegistry()
    async with setting.manager as manager:
        await manager.start_autoscaling("test:fleet")
        registry.register(AutoscalerMetrics(manager))
        text = generate_latest(registry).decode()
    # Four are paid for, two of them at a dollar in place of four.
    assert 'textnlp_fast_autoscaler_spot_saved_usd_per_hour{fleet="test-fleet"} 6.0' in text
    assert 'textnlp_fast_autoscaler_usd_per_hour{fleet="test-fleet"} 10.0' in text


def test_cold_starts_are_measured_from_order_to_service() -> None:
    starts = ColdStarts()
    starts.ordered(0.0, 1, 4)
    starts.seen(50.0, 1)
    starts.seen(100.0, 3)
    again = ColdStarts()
    again.restore(starts.document())
    again.ordered(110.0, 4, 3)  # the fourth is not wanted any more
    again.seen(120.0, 4)
    assert again.measures_s == [100.0, 100.0]
    assert again.expected_s() is None
    again.ordered(200.0, 3, 4)
    again.seen(210.0, 4)
    assert again.expected_s() == 100.0
    again.restore({"waiting": [["x"]]})
    assert len(again.measures_s) == 3


async def test_the_policy_learns_how_long_replicas_take(tmp_path: Path) -> None:
    cold = ColdStart(provisioning_s=10.0, weights_s=20.0, warm_up_s=10.0)
    setting = Setting(tmp_path, cold_start=cold)
    await setting.period(35)
    setting.loop.cold_starts.measures_s = [300.0, 310.0, 290.0]
    await setting.period(35)
    learned = setting.loop.settings.cold_start
    assert (learned.provisioning_s, learned.weights_s) == (280.0, 20.0)
    assert setting.loop._policy.settings is setting.loop.settings  # type: ignore[attr-defined]


def test_our_policy_goes_on_with_another_cold_start() -> None:
    settings = ScalingPolicy()
    first = our_policy(settings)
    for number in range(5):
        first.decide(
            Observation(NOON + 10 * number, 2, request_rate=20.0, running_requests=15.0, waiting_requests=0.0)
        )
    other = our_policy(replace(settings, cold_start=ColdStart(provisioning_s=400.0)))
    other.restore(first.snapshot())
    assert other.snapshot() == first.snapshot()


async def test_autoscaling_can_be_forbidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPU_AUTOSCALING", "false")
    with pytest.raises(NotAllowedError, match="gpu_autoscaling") as caught:
        await GPUAutoscalerManager(store=tmp_path).start_autoscaling("aws")
    assert "GPU_AUTOSCALING=true" in caught.value.hint


async def test_a_target_that_is_neither_a_fleet_nor_a_provider(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="neither a fleet nor a provider") as caught:
        await GPUAutoscalerManager(store=tmp_path).start_autoscaling("xyz")
    assert "azure" in caught.value.hint


async def test_calls_that_are_wrong(setting: Setting) -> None:
    manager = setting.manager
    with pytest.raises(InvalidInputError):
        await manager.start_autoscaling("")
    with pytest.raises(InvalidInputError):
        await manager.stop_autoscaling("nobody")
    with pytest.raises(InvalidInputError):
        await manager.explain()
    async with manager:
        await manager.start_autoscaling("test:fleet")
        with pytest.raises(InvalidInputError, match="already"):
            await manager.start_autoscaling("test:fleet")


def test_times_as_people_say_them() -> None:
    assert moment("11:30", NOON) == pytest.approx(NOON - 1800 + 60, abs=0.001)
    assert moment("12:30:00", NOON) == pytest.approx(NOON + 1800 - 86400 + 1, abs=0.001)
    assert moment("2026-01-01T13:00:00+01:00", 0.0) == NOON
    assert moment(datetime.datetime(2026, 1, 1, 12), 0.0) == NOON
    assert moment(None, NOON) == NOON
    for wrong in ("25:00", "noon", b"x"):
        with pytest.raises(InvalidInputError):
            moment(wrong, NOON)  # type: ignore[arg-type]


async def test_a_state_of_another_policy_or_none_is_no_obstacle(setting: Setting) -> None:
    await setting.period(35)

    class Forgetful(RatePolicy):
        def restore(self, state: Mapping[str, Any]) -> None:
            from textnlp_fast.errors import CorruptDataError  # noqa: PLC0415

            raise CorruptDataError("no")

    setting.manager._make_policy = Forgetful
    again = setting.manager.prepared("test:fleet")
    await again.take_over(2)
    assert again.state.target == 4
    await asyncio.sleep(0)
