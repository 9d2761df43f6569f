"""The engine, case by case: when findings open, join, get worse and end."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from textnlp_fast.errors import CorruptDataError
from textnlp_fast.gpu.health.engine import Fact, HealthEngine
from textnlp_fast.gpu.health.facts import Action, Event, Finding, Reading, Severity
from textnlp_fast.gpu.health.rules import load_rules
from textnlp_fast.gpu.health.state import HealthState

GPU = "GPU-11111111-2222-3333-4444-555555555555"
DAY = 86400.0


def reading(at_s: float, gpu: str = GPU, **values: Any) -> Reading:
    return Reading(machine="m", gpu=gpu, index=0, at_s=at_s, **values)


def xid(code: int, at_s: float, gpu: str | None = GPU, text: str = "", source: str = "nvml") -> Event:
    return Event(machine="m", kind="xid", at_s=at_s, gpu=gpu, code=code, text=text, source=source)


def event(kind: str, at_s: float, *, code: int | None = None, text: str = "", **details: str) -> Event:
    return Event(machine="m", kind=kind, at_s=at_s, code=code, text=text, details=details)


def run(engine: HealthEngine, *facts: Fact) -> list[Finding]:
    """Each fact by itself, at its time."""
    changes: list[Finding] = []
    for fact in facts:
        changes += engine.observe([fact], now_s=fact.at_s)
    return changes


def only(engine: HealthEngine) -> Finding:
    findings = engine.findings()
    assert len(findings) == 1, findings
    return findings[0]


def rules_of(findings: Sequence[Finding]) -> list[str]:
    return sorted(one.rule for one in findings)


# --- XIDs ---------------------------------------------------------------------------------------------------


def test_an_xid_is_a_finding_at_once() -> None:
    engine = HealthEngine()
    (change,) = run(engine, xid(95, 10.0, text="Uncontained ECC error"))
    assert change == only(engine)
    assert (change.rule, change.gpu, change.severity, change.action) == (
        "xid-95",
        GPU,
        Severity.CRITICAL,
        Action.RESET_GPU,
    )
    assert (
        "reset the GPU" in change.summary
        and "Uncontained" in change.evidence
        and "catalog" in change.provenance
    )


def test_two_sources_of_one_xid_are_one_occurrence_and_two_xids_are_two() -> None:
    engine = HealthEngine()
    run(engine, xid(31, 10.0, source="nvml"), xid(31, 10.3, source="kmsg"))
    assert only(engine).count == 1
    run(engine, xid(31, 10.5, source="nvml"), xid(31, 10.6, source="kmsg"))
    assert only(engine).count == 2
    run(engine, xid(31, 10.6, source="kmsg"))  # told again word for word
    assert only(engine).count == 2
    run(engine, xid(31, 60.0, source="dcgm"))  # a scrape tells late
    assert only(engine).count == 2


def test_xid_79_the_lost_gpu_and_the_count_are_one_finding_in_any_order() -> None:
    facts: list[Fact] = [
        xid(79, 10.0),
        reading(10.5, lost=True, error="GPU is lost"),
        event("gpu-count", 11.0, code=7, before="8"),
    ]
    engine = HealthEngine()
    run(engine, *facts)
    finding = only(engine)
    assert (finding.rule, finding.action) == ("xid-79", Action.REBOOT)
    assert "lost" in finding.evidence and "7 of 8" in finding.evidence

    engine = HealthEngine()
    run(engine, facts[1], xid(79, 10.6), facts[2])
    assert only(engine).rule == "gpu-lost"
    assert "XID 79" in only(engine).evidence

    engine = HealthEngine()
    run(engine, event("gpu-count", 9.0, code=7, before="8"))
    assert only(engine).rule == "gpu-count"
    run(engine, facts[1])
    assert only(engine).rule == "gpu-lost"  # the count is explained and over


def test_a_count_that_lost_gpus_do_not_explain_stays_a_finding() -> None:
    engine = HealthEngine()
    run(engine, xid(79, 10.0), event("gpu-count", 11.0, code=5, before="8"))
    assert rules_of(engine.findings()) == ["gpu-count", "xid-79"]
    run(engine, event("gpu-count", 20.0, code=8))
    assert rules_of(engine.findings()) == ["xid-79"]


def test_uncorrectable_errors_that_come_together_are_one_finding() -> None:
    engine = HealthEngine()
    run(
        engine,
        xid(48, 10.0),
        xid(171, 10.01),
        xid(95, 10.02),
        reading(10.5, ecc_uncorrected=1),
        reading(11.5, ecc_uncorrected=1),
    )
    finding = only(engine)
    assert (finding.rule, finding.action, finding.count) == ("xid-48", Action.RESET_GPU, 1)
    assert "XID 95" in finding.evidence and "ecc_uncorrected" in finding.evidence


def test_a_double_bit_error_whose_row_is_remapped_drains() -> None:
    for codes in ([48, 63], [63, 48], [48, 64]):
        engine = HealthEngine()
        run(engine, *(xid(code, 10.0 + place) for place, code in enumerate(codes)))
        assert (
            max(engine.findings(), key=lambda one: one.severity is Severity.CRITICAL).action is Action.DRAIN
        )
    engine = HealthEngine()
    run(engine, xid(48, 10.0), xid(63, 200.0))
    assert next(one for one in engine.findings() if one.rule == "xid-48").action is not Action.DRAIN


def test_repeated_xids_climb_the_ladder_and_bursts_do_not() -> None:
    engine = HealthEngine()
    run(engine, *(xid(48, 10.0 + place / 10) for place in range(50)))
    assert (only(engine).action, only(engine).count) == (Action.RESET_GPU, 50)
    run(engine, xid(48, 3600.0))
    assert only(engine).action is Action.DRAIN
    run(engine, xid(48, 7200.0), xid(48, 9000.0))
    assert only(engine).action is Action.REPLACE


def test_repetition_outlives_the_repair() -> None:
    engine = HealthEngine()
    run(engine, reading(0.0, ecc_corrected=5, ecc_uncorrected=0), xid(48, 10.0))
    changes = run(engine, reading(100.0, ecc_corrected=0, ecc_uncorrected=0))
    assert [one.resolved for one in changes] == [True]
    run(engine, xid(48, 3600.0))
    assert only(engine).action is Action.DRAIN


def test_repetition_is_forgotten_after_its_window() -> None:
    engine = HealthEngine()
    run(engine, xid(94, 0.0))
    run(engine, xid(94, 2 * DAY))
    assert only(engine).action is Action.RESTART_APP


def test_applications_crash_often_before_the_gpu_is_blamed() -> None:
    engine = HealthEngine()
    run(engine, *(xid(13, 60.0 * place) for place in range(9)))
    assert (only(engine).severity, only(engine).action) == (Severity.WARNING, Action.RESTART_APP)
    run(engine, xid(13, 600.0))
    assert (only(engine).severity, only(engine).action) == (Severity.CRITICAL, Action.RESET_GPU)


def test_xid_154_raises_what_it_is_about_and_ends_it() -> None:
    engine = HealthEngine()
    run(
        engine,
        xid(95, 10.0),
        xid(154, 10.1, text="GPU recovery action changed from 0x0 (None) to 0x2 (Node Reboot Required)"),
    )
    assert (only(engine).rule, only(engine).action) == ("xid-95", Action.REBOOT)
    run(
        engine,
        xid(154, 500.0, text="GPU recovery action changed from 0x2 (Node Reboot Required) to 0x0 (None)"),
    )
    assert engine.findings() == []


def test_xid_154_alone_and_a_polled_recovery_action_are_one() -> None:
    engine = HealthEngine()
    run(
        engine,
        xid(154, 10.0, text="GPU recovery action changed from 0x0 (None) to 0x1 (GPU Reset Required)"),
        reading(10.5, recovery_action=1),
        reading(11.5, recovery_action=2),
    )
    assert (only(engine).rule, only(engine).action) == ("recovery-action", Action.REBOOT)
    run(engine, reading(20.0, recovery_action=0))
    assert engine.findings() == []


@pytest.mark.parametrize(("code", "quiet_s"), [(43, 600.0), (31, 3600.0), (95, 7 * DAY), (54, 7 * DAY)])
def test_a_finding_of_an_xid_ends_after_it_was_quiet(code: int, quiet_s: float) -> None:
    engine = HealthEngine()
    run(engine, xid(code, 0.0))
    assert engine.tick(now_s=quiet_s - 1) == []
    (over,) = engine.tick(now_s=quiet_s)
    assert over.resolved and engine.findings() == []


def test_what_a_reset_does_not_repair_stays() -> None:
    engine = HealthEngine()
    run(engine, reading(0.0, pcie_replays=9), xid(54, 1.0), xid(95, 2.0), reading(10.0, pcie_replays=0))
    assert rules_of(engine.findings()) == ["xid-54"]


def test_an_xid_without_its_gpu_is_the_machines() -> None:
    engine = HealthEngine()
    run(engine, xid(79, 1.0, gpu=None))
    assert only(engine).gpu is None


# --- polled -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "bad", "good", "action"),
    [
        ("ecc-uncorrected", {"ecc_uncorrected": 2}, {"ecc_uncorrected": 0}, Action.RESET_GPU),
        ("remap-pending", {"remap_pending": True}, {"remap_pending": False}, Action.RESET_GPU),
        ("remap-failed", {"remap_failed": True}, {"remap_failed": False}, Action.REPLACE),
        (
            "retired-pages-pending",
            {"retired_pages_pending": True},
            {"retired_pages_pending": False},
            Action.REBOOT,
        ),
        (
            "nvlink-down",
            {"nvlink_links": 18, "nvlink_links_up": 17},
            {"nvlink_links": 18, "nvlink_links_up": 18},
            Action.RESET_GPU,
        ),
        ("gpu-lost", {"lost": True}, {"lost": False}, Action.REBOOT),
        ("recovery-action", {"recovery_action": 1}, {"recovery_action": 0}, Action.RESET_GPU),
        ("recovery-action", {"recovery_action": 2}, {"recovery_action": 0}, Action.REBOOT),
        ("recovery-action", {"recovery_action": 4}, {"recovery_action": 0}, Action.DRAIN),
    ],
)
def test_states_are_found_at_the_first_reading(
    rule: str, bad: dict[str, Any], good: dict[str, Any], action: Action
) -> None:
    engine = HealthEngine()
    assert run(engine, reading(0.0, **good)) == []
    (found,) = run(engine, reading(1.0, **bad))
    assert (found.rule, found.action, found.resolved) == (rule, action, False)
    assert run(engine, reading(2.0, **bad)) == []  # nobody is told twice
    (over,) = run(engine, reading(3.0, **good))
    assert over.resolved and engine.findings() == []


def test_unknown_values_neither_open_nor_close() -> None:
    engine = HealthEngine()
    run(engine, reading(0.0), reading(1.0, remap_failed=True), reading(2.0), reading(3.0))
    assert only(engine).rule == "remap-failed"
    engine = HealthEngine()
    run(engine, reading(0.0, temperature_margin_c=float("nan"), temperature_c=float("nan")))
    assert engine.findings() == []


def test_a_hot_gpu_is_found_after_the_hold_and_gets_worse_and_cools() -> None:
    engine = HealthEngine()
    changes = run(engine, *(reading(float(t), temperature_margin_c=2.0) for t in range(20)))
    assert changes == []
    (found,) = run(engine, reading(20.0, temperature_margin_c=2.0))
    assert (found.rule, found.severity, found.action) == ("temperature-margin", Severity.WARNING, Action.NONE)
    changes = run(engine, *(reading(21.0 + t, temperature_margin_c=-1.0) for t in range(21)))
    assert [(one.severity, one.action) for one in changes] == [(Severity.CRITICAL, Action.DRAIN)]
    # Between the level and `clear` it is not over, and above it only after a minute.
    assert run(engine, *(reading(50.0 + t, temperature_margin_c=5.0) for t in range(200))) == []
    changes = run(engine, *(reading(300.0 + t, temperature_margin_c=20.0) for t in range(61)))
    assert [one.resolved for one in changes] == [True]


def test_one_spike_is_no_finding_and_a_dip_begins_the_hold_again() -> None:
    engine = HealthEngine()
    values = [2.0] * 15 + [9.0] + [2.0] * 15
    assert run(engine, *(reading(float(t), temperature_margin_c=v) for t, v in enumerate(values))) == []


def test_time_that_nobody_saw_does_not_count() -> None:
    engine = HealthEngine()
    assert run(engine, reading(0.0, temperature_margin_c=1.0), reading(600.0, temperature_margin_c=1.0)) == []


def test_readings_that_are_far_apart_are_no_time_without_a_break() -> None:
    engine = HealthEngine()
    assert run(engine, *(reading(100.0 * t, temperature_margin_c=2.0) for t in range(6))) == []


def test_what_grew_before_a_restart_does_not_count_after_it() -> None:
    engine = HealthEngine()
    counts = [0, 8, 0, 3, 5]
    assert run(engine, *(reading(float(t), pcie_replays=count) for t, count in enumerate(counts))) == []


def test_another_source_later_tells_of_another_xid() -> None:
    engine = HealthEngine()
    run(engine, xid(31, 10.0, source="nvml"), xid(31, 100.0, source="kmsg"))
    assert only(engine).count == 2


def test_a_finding_gets_no_milder_while_it_is_open() -> None:
    engine = HealthEngine()
    run(engine, *(reading(float(t), temperature_margin_c=-1.0) for t in range(30)))
    run(engine, *(reading(30.0 + t, temperature_margin_c=2.0) for t in range(60)))
    assert (only(engine).severity, only(engine).action) == (Severity.CRITICAL, Action.DRAIN)
    run(engine, xid(95, 100.0), xid(171, 101.0), xid(94, 102.0))
    assert next(one for one in engine.findings() if one.rule == "xid-95").severity is Severity.CRITICAL


def test_the_absolute_temperature_counts_only_where_no_margin_is_known() -> None:
    hot = {"temperature_c": 93.0}
    engine = HealthEngine()
    run(engine, *(reading(float(t), temperature_margin_c=12.0, **hot) for t in range(100)))
    assert engine.findings() == []
    run(engine, *(reading(100.0 + t, **hot) for t in range(100)))
    assert only(engine).rule == "temperature"


@pytest.mark.parametrize(
    ("bits", "rule"),
    [
        (0x40 | 0x8, "hw-thermal-slowdown"),
        (0x80 | 0x8, "hw-power-brake"),
        (0x8, "hw-slowdown"),
        (0x20, "sw-thermal-slowdown"),
        (0x10, "sync-boost"),
    ],
)
def test_throttling_by_its_reason(bits: int, rule: str) -> None:
    engine = HealthEngine()
    run(engine, *(reading(float(t), throttle_reasons=bits) for t in range(301)))
    assert only(engine).rule == rule


@pytest.mark.parametrize("bits", [0x0, 0x1, 0x2, 0x4, 0x100, 0x107])
def test_normal_reasons_are_no_finding(bits: int) -> None:
    engine = HealthEngine()
    assert run(engine, *(reading(float(t), throttle_reasons=bits) for t in range(400))) == []


@pytest.mark.parametrize(
    ("counter", "rule", "limit"),
    [
        ("pcie_replays", "pcie-replays", 9),
        ("nvlink_errors", "nvlink-errors", 6000),
        ("ecc_corrected", "ecc-corrected-rate", 600),
    ],
)
def test_counters_by_their_growth_in_a_minute(counter: str, rule: str, limit: int) -> None:
    engine = HealthEngine()
    start = {counter: 10 * limit}  # what was there before is no growth
    run(engine, reading(0.0, **start), reading(1.0, **{counter: 10 * limit + limit - 1}))
    assert engine.findings() == []
    run(engine, reading(2.0, **{counter: 10 * limit + limit}))
    assert only(engine).rule == rule
    later = {counter: 10 * limit + limit}
    run(engine, *(reading(3.0 + t, **later) for t in range(400)))
    assert engine.findings() == []


def test_slow_growth_over_a_gap_is_slow() -> None:
    engine = HealthEngine()
    run(engine, reading(0.0, pcie_replays=0), reading(3600.0, pcie_replays=60))
    assert engine.findings() == []
    run(engine, reading(7200.0, pcie_replays=3600))
    assert only(engine).rule == "pcie-replays"


def test_a_restarted_driver_is_no_alarm_and_ends_what_it_repaired() -> None:
    engine = HealthEngine()
    run(engine, reading(0.0, ecc_corrected=50, ecc_uncorrected=1, pcie_replays=500, nvlink_errors=10**6))
    assert rules_of(engine.findings()) == ["ecc-uncorrected"]
    zero = {"ecc_corrected": 0, "ecc_uncorrected": 0, "pcie_replays": 0, "nvlink_errors": 0}
    (over,) = run(engine, reading(1.0, **zero))
    assert over.resolved
    assert run(engine, reading(2.0, **{**zero, "pcie_replays": 3})) == []


@pytest.mark.parametrize(
    ("now", "most", "rule"),
    [
        ("pcie_width", "pcie_width_max", "pcie-width"),
        ("pcie_generation", "pcie_generation_max", "pcie-generation"),
    ],
)
def test_a_slow_link_counts_under_load_only(now: str, most: str, rule: str) -> None:
    engine = HealthEngine()
    slow = {now: 1, most: 4}
    run(engine, *(reading(float(t), utilisation_percent=0.0, **slow) for t in range(200)))
    run(engine, *(reading(200.0 + t, **slow) for t in range(200)))
    assert engine.findings() == []
    run(engine, *(reading(400.0 + t, utilisation_percent=95.0, **slow) for t in range(31)))
    assert only(engine).rule == rule


def test_an_error_of_the_driver_and_a_fabric_that_is_not_joined() -> None:
    engine = HealthEngine()
    run(engine, *(reading(float(t), error="Unknown Error", fabric_state="in-progress") for t in range(301)))
    assert rules_of(engine.findings()) == ["driver-error", "fabric"]


def test_what_comes_and_goes_is_held() -> None:
    engine = HealthEngine()
    told: list[Finding] = []
    for place in range(120):
        links = {"nvlink_links": 4, "nvlink_links_up": 3 + place % 2}
        told += run(engine, reading(10.0 * place, **links))
    opened = [one for one in told if not one.resolved]
    assert 3 <= len(opened) <= 5, len(opened)  # sixty times without damping
    assert only(engine).rule == "nvlink-down"
    run(engine, *(reading(1200.0 + 10.0 * t, nvlink_links=4, nvlink_links_up=4) for t in range(400)))
    assert engine.findings() == []


# --- events -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "details", "rule", "severity", "action"),
    [
        ("driver-hung", {}, "driver-hung", Severity.CRITICAL, Action.REBOOT),
        ("spot-interruption", {}, "spot-interruption", Severity.CRITICAL, Action.DRAIN),
        ("rebalance", {}, "rebalance", Severity.WARNING, Action.DRAIN),
        ("preempted", {}, "preempted", Severity.CRITICAL, Action.REPLACE),
        ("maintenance", {}, "maintenance", Severity.WARNING, Action.DRAIN),
        ("status-check", {"check": "system"}, "status-check-system", Severity.CRITICAL, Action.REPLACE),
        ("status-check", {"check": "instance"}, "status-check-instance", Severity.CRITICAL, Action.REBOOT),
        ("agent-unreachable", {}, "agent-unreachable", Severity.WARNING, Action.CHECK),
    ],
)
def test_events_are_findings(
    kind: str, details: dict[str, str], rule: str, severity: Severity, action: Action
) -> None:
    engine = HealthEngine()
    run(engine, event(kind, 1.0, text="because", **details))
    found = only(engine)
    assert (found.rule, found.severity, found.action, found.gpu) == (rule, severity, action, None)
    run(engine, event(kind, 2.0, over="true", **details))
    assert engine.findings() == []


def test_a_driver_that_hangs_and_answers() -> None:
    engine = HealthEngine()
    run(engine, event("driver-hung", 1.0), event("driver-answers", 50.0))
    assert engine.findings() == []
    run(engine, xid(119, 60.0), event("driver-hung", 61.0), event("driver-loaded", 300.0))
    assert engine.findings() == []


def test_a_machine_that_stays_silent_is_critical_after_a_while() -> None:
    engine = HealthEngine()
    run(engine, event("agent-unreachable", 0.0))
    assert only(engine).severity is Severity.WARNING
    (change,) = engine.tick(now_s=300.0)
    assert change.severity is Severity.CRITICAL
    run(engine, event("agent-reachable", 400.0))
    assert engine.findings() == []


def test_several_planned_maintenances_end_one_by_one() -> None:
    engine = HealthEngine()
    run(
        engine,
        event("maintenance", 1.0, id="a"),
        event("maintenance", 2.0, id="b"),
        event("maintenance", 3.0, id="a"),
    )
    assert only(engine).count == 2
    run(engine, event("maintenance", 4.0, id="a", over="true"))
    assert only(engine).rule == "maintenance"
    run(engine, event("maintenance", 5.0, id="b", over="true"))
    assert engine.findings() == []


def test_what_no_rule_knows_is_no_finding_and_is_counted() -> None:
    engine = HealthEngine()
    run(
        engine,
        event("solar-flare", 1.0),
        event("status-check", 1.0, check="vibes"),
        Event(machine="m", kind="xid", at_s=1.0),
        Event(machine="m", kind="xid", at_s=1.0, code=-4),
        event("gpu-count", 1.0),
    )
    assert engine.findings() == [] and engine.state.ignored == 5


def test_continued_lines_of_an_sxid_are_no_more_of_them() -> None:
    engine = HealthEngine()
    lines = [
        "Fatal, Link 37 LTSSM Fault Up",
        "Severity 1 Engine instance 37 Sub-engine instance 00",
        "Data {0x10000000, 0x0}",
    ]
    run(
        engine,
        *(
            Event(machine="m", kind="sxid", at_s=1.0 + t / 10, code=20034, text=line)
            for t, line in enumerate(lines)
        ),
    )
    assert (only(engine).rule, only(engine).count) == ("sxid-20034", 1)


# --- time, memory, state ------------------------------------------------------------------------------------


def test_late_and_repeated_readings_change_nothing() -> None:
    engine = HealthEngine()
    run(engine, reading(100.0, remap_failed=False))
    engine.observe([reading(50.0, remap_failed=True), reading(100.0, remap_failed=True)], now_s=101.0)
    assert engine.findings() == [] and engine.state.ignored == 2


def test_a_clock_that_ran_ahead_does_not_silence_its_gpu() -> None:
    engine = HealthEngine()
    engine.observe([reading(10**9, remap_failed=False)], now_s=1000.0)
    engine.observe([reading(1001.0, remap_failed=True)], now_s=1001.0)
    assert only(engine).rule == "remap-failed"


def test_state_goes_through_json_and_goes_on() -> None:
    facts: list[Fact] = [
        xid(48, 1.0),
        reading(2.0, temperature_margin_c=2.0, pcie_replays=4),
        event("agent-unreachable", 3.0),
        event("agent-reachable", 4.0),
        event("maintenance", 5.0, id="a"),
    ]
    one = HealthEngine()
    run(one, *facts)
    document = json.loads(json.dumps(one.state.document()))
    other = HealthEngine(state=HealthState.of(document))
    assert other.findings() == one.findings()
    more: list[Fact] = [
        *(reading(3.0 + t, temperature_margin_c=2.0, pcie_replays=20) for t in range(30)),
        xid(48, 60.0),
        event("maintenance", 70.0, id="a", over="true"),
    ]
    assert run(other, *more) == run(one, *more)
    assert other.state.document() == one.state.document()


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"version": 2},
        {"version": 1, "ignored": 0, "machines": [], "open": [], "closings": [], "history": []},
        {
            "version": 1,
            "ignored": 0,
            "machines": {},
            "open": [{"severity": "dire"}],
            "closings": [],
            "history": [],
        },
    ],
)
def test_other_documents_are_no_state(document: dict[str, Any]) -> None:
    with pytest.raises(CorruptDataError, match="state"):
        HealthState.of(document)


def test_memory_is_bounded_whatever_comes() -> None:
    engine = HealthEngine()
    engine.observe([xid(place + 1, 1.0, gpu=f"GPU-{place % 300}") for place in range(20000)], now_s=1.0)
    state = engine.state
    assert len(state.machines["m"].gpus) == 256
    assert len(state.open) == 16384 and state.ignored > 0
    many = HealthEngine()
    many.observe(
        [Event(machine=f"m{place}", kind="driver-hung", at_s=1.0) for place in range(5000)], now_s=1.0
    )
    assert len(many.state.machines) == 4096
    one = HealthEngine()
    run(one, *(xid(31, 20.0 * place) for place in range(3000)))
    assert len(json.dumps(one.state.document())) < 20000


def test_gpus_and_machines_that_are_gone_are_forgotten() -> None:
    engine = HealthEngine()
    run(engine, reading(0.0, remap_failed=True))
    engine.observe([reading(8 * DAY, gpu="GPU-2")], now_s=8 * DAY)
    assert engine.findings() == [] and list(engine.state.machines["m"].gpus) == ["GPU-2"]
    engine.tick(now_s=17 * DAY)
    assert engine.state.machines == {}


def test_somebody_may_say_that_it_is_over() -> None:
    engine = HealthEngine()
    run(engine, xid(95, 1.0), xid(54, 2.0))
    assert engine.resolve("m", gpu=GPU, rule="xid-54", at_s=5.0) == 1
    assert engine.resolve("m", at_s=5.0) == 1
    assert engine.resolve("m", at_s=5.0) == 0
    assert [one.resolved for one in engine.tick(now_s=6.0)] == [True, True]


def test_a_rule_may_be_switched_off(tmp_path: Any) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text("polled: {remap-failed: {enabled: false}}\nevents: {rebalance: {enabled: false}}\n")
    engine = HealthEngine(load_rules(path))
    run(engine, reading(1.0, remap_failed=True), event("rebalance", 2.0))
    assert engine.findings() == []
