"""Ten hours of a healthy fleet without a false alarm, and real faults found in the very same noise."""

from __future__ import annotations

from typing import Any

import pytest

from fakes.healthy_fleet import NoisyMachine
from textnlp_fast.gpu.health.engine import HealthEngine
from textnlp_fast.gpu.health.facts import Action, Event, Finding, Severity

HOURS = 10.0


def alarms(findings: list[Finding]) -> list[Finding]:
    return [one for one in findings if one.severity is not Severity.INFO and not one.resolved]


def test_ten_hours_of_a_healthy_fleet_raise_no_alarm() -> None:
    engine = HealthEngine()
    told: list[Finding] = []
    polls = 0
    for name, step_s in (("a", 5.0), ("b", 15.0), ("c", 60.0)):
        for now_s, facts in NoisyMachine(name, seed=20261129, step_s=step_s).polls(HOURS):
            polls += 1
            told += engine.observe(facts, now_s=now_s)
    assert polls > 9000
    assert alarms(told) == []
    # Crashes of applications are told, and nothing else is.
    assert {one.rule for one in told} == {"xid-43", "xid-45"}


@pytest.mark.parametrize("seed", range(4))
def test_other_noise_raises_none_either(seed: int) -> None:
    engine = HealthEngine()
    told: list[Finding] = []
    for now_s, facts in NoisyMachine(f"m{seed}", seed=seed, gpus=4, step_s=2.0 + 9.0 * seed).polls(3.0):
        told += engine.observe(facts, now_s=now_s)
    assert alarms(told) == []


FAULTS: list[tuple[str, dict[str, Any], float, Action]] = [
    ("remap-failed", {"remap_failed": True}, 0.0, Action.REPLACE),
    ("remap-pending", {"remap_pending": True}, 0.0, Action.RESET_GPU),
    ("ecc-uncorrected", {"ecc_uncorrected": 1}, 0.0, Action.RESET_GPU),
    ("nvlink-down", {"nvlink_links_up": 17}, 0.0, Action.RESET_GPU),
    ("gpu-lost", {"lost": True}, 0.0, Action.REBOOT),
    ("recovery-action", {"recovery_action": 2}, 0.0, Action.REBOOT),
    ("temperature-margin", {"temperature_margin_c": 2.0}, 20.0, Action.NONE),
    ("temperature-margin", {"temperature_margin_c": -2.0}, 20.0, Action.DRAIN),
    ("memory-temperature", {"memory_temperature_c": 101.0}, 60.0, Action.NONE),
    ("hw-thermal-slowdown", {"throttle_reasons": 0x48}, 10.0, Action.DRAIN),
    ("hw-power-brake", {"throttle_reasons": 0x88}, 10.0, Action.DRAIN),
    ("hw-slowdown", {"throttle_reasons": 0x8}, 60.0, Action.CONTACT_VENDOR),
    ("sw-thermal-slowdown", {"throttle_reasons": 0x20}, 120.0, Action.NONE),
    (
        "pcie-width",
        {"pcie_width": 8, "pcie_generation": 5, "utilisation_percent": 90.0},
        30.0,
        Action.CONTACT_VENDOR,
    ),
    ("pcie-generation", {"pcie_generation": 3, "utilisation_percent": 90.0}, 30.0, Action.CONTACT_VENDOR),
]


@pytest.mark.parametrize(("rule", "fault", "hold_s", "action"), FAULTS)
def test_a_real_fault_in_the_noise_is_found(
    rule: str, fault: dict[str, Any], hold_s: float, action: Action
) -> None:
    engine = HealthEngine()
    step_s = 5.0
    machine = NoisyMachine("m", seed=7, gpus=4, step_s=step_s, restarts=False)
    begun_s = None
    bad = machine.cards[2]
    for now_s, facts in machine.polls(3.0):
        told = alarms(engine.observe(facts, now_s=now_s))
        if begun_s is None:
            assert told == []
            if now_s > 1_800_003_600.0:
                begun_s, bad.fault = now_s, fault
        elif told:
            assert [(one.rule, one.gpu, one.action) for one in told] == [(rule, bad.gpu, action)]
            # The first poll after the hold; scrapes that failed in between make it later.
            assert now_s - begun_s <= hold_s + 2 * step_s + 10.0 or hold_s == 0.0
            return
    pytest.fail(f"{rule} was not found")


@pytest.mark.parametrize(
    ("counter", "a_minute", "rule"),
    [("replays", 12, "pcie-replays"), ("nvlink_errors", 9000, "nvlink-errors")],
)
def test_a_counter_that_runs_away_in_the_noise_is_found(counter: str, a_minute: int, rule: str) -> None:
    engine = HealthEngine()
    machine = NoisyMachine("m", seed=8, gpus=2, restarts=False)
    bad = machine.cards[1]
    for polls, (now_s, facts) in enumerate(machine.polls(1.0)):
        told = alarms(engine.observe(facts, now_s=now_s))
        if polls > 200:
            setattr(bad, counter, getattr(bad, counter) + a_minute * 5 // 60)
            if told:
                assert [(one.rule, one.gpu) for one in told] == [(rule, bad.gpu)]
                assert polls < 240
                return
        else:
            assert told == []
    pytest.fail(f"{rule} was not found")


@pytest.mark.parametrize(
    ("code", "action"),
    [
        (79, Action.REBOOT),
        (95, Action.RESET_GPU),
        (119, Action.RESET_GPU),
        (74, Action.RESET_GPU),
        (31, Action.RESTART_APP),
    ],
)
def test_an_xid_in_the_noise_is_found_at_once(code: int, action: Action) -> None:
    engine = HealthEngine()
    machine = NoisyMachine("m", seed=9, gpus=2)
    for polls, (now_s, facts) in enumerate(machine.polls(0.5)):
        if polls == 100:
            at_s = facts[0].at_s
            facts.append(
                Event(machine="m", kind="xid", at_s=at_s, gpu=machine.cards[0].gpu, code=code, source="nvml")
            )
        told = alarms(engine.observe(facts, now_s=now_s))
        if polls < 100:
            assert told == []
        elif polls == 100:
            assert [(one.rule, one.action) for one in told] == [(f"xid-{code}", action)]
