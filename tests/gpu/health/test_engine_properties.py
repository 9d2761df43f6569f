"""What holds of the engine whatever facts come: order, repetition, rules behind findings, severities that only rise."""

from __future__ import annotations

import json
import random
import re
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from textnlp_fast.gpu.health.engine import Fact, HealthEngine
from textnlp_fast.gpu.health.facts import Event, Finding, Reading
from textnlp_fast.gpu.health.rules import action_rank, load_rules, severity_rank
from textnlp_fast.gpu.health.state import HealthState

RULES = load_rules()
KINDS = [
    "xid", "sxid", "gpu-count", "driver-hung", "driver-answers", "driver-loaded", "spot-interruption", "rebalance",
    "maintenance", "preempted", "status-check", "agent-unreachable", "agent-reachable", "nonsense",
]  # fmt: skip
TEXTS = [
    "", "Fatal, Link 1", "Non-fatal, Link 1", "NETIR Nonfatal (0x1 0x2 0x3)", "Data {0x1}",
    "changed from 0x0 (None) to 0x2 (Node Reboot Required)", "changed from 0x2 (Node Reboot Required) to 0x0 (None)",
]  # fmt: skip

times = st.integers(0, 200).map(float)
gpus = st.sampled_from(["GPU-a", "GPU-b"])


def maybe(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | values


readings = st.builds(
    Reading,
    machine=st.sampled_from(["m", "n"]),
    gpu=gpus,
    index=st.just(0),
    at_s=times,
    utilisation_percent=maybe(st.sampled_from([0.0, 90.0])),
    temperature_margin_c=maybe(st.sampled_from([-5.0, 0.0, 2.0, 5.0, 30.0, float("nan")])),
    temperature_c=maybe(st.sampled_from([30.0, 91.0, 99.0])),
    throttle_reasons=maybe(st.integers(0, 0x1FF)),
    ecc_corrected=maybe(st.integers(0, 2000)),
    ecc_uncorrected=maybe(st.integers(0, 2)),
    remap_pending=maybe(st.booleans()),
    remap_failed=maybe(st.booleans()),
    nvlink_links=st.just(4),
    nvlink_links_up=maybe(st.integers(0, 4)),
    pcie_replays=maybe(st.integers(0, 50)),
    recovery_action=maybe(st.integers(0, 4)),
    lost=st.booleans(),
    error=maybe(st.just("broken")),
)
events = st.builds(
    Event,
    machine=st.sampled_from(["m", "n"]),
    kind=st.sampled_from(KINDS),
    at_s=times,
    gpu=maybe(gpus),
    code=maybe(st.sampled_from([-1, 0, 7, 8, 13, 43, 48, 63, 79, 94, 95, 149, 154, 171, 999, 20034, 24001])),
    text=st.sampled_from(TEXTS),
    source=st.sampled_from(["", "nvml", "kmsg", "dcgm"]),
    details=st.dictionaries(
        st.sampled_from(["over", "id", "check", "before"]), st.sampled_from(["true", "a", "b", "system", "8"])
    ),
)
facts_lists = st.lists(readings | events, max_size=40)


def known_rule(rule: str) -> bool:
    return rule in RULES.polled or rule in RULES.events or re.fullmatch(r"s?xid-\d+", rule) is not None


def chunks(facts: list[Fact], size: int) -> list[list[Fact]]:
    facts = sorted(facts, key=lambda fact: fact.at_s)
    return [facts[place : place + size] for place in range(0, len(facts), size)]


@given(facts_lists, st.randoms(use_true_random=False))
def test_the_order_within_a_batch_does_not_matter(facts: list[Fact], shuffler: random.Random) -> None:
    one, other = HealthEngine(RULES), HealthEngine(RULES)
    shuffled = list(facts)
    shuffler.shuffle(shuffled)
    assert one.observe(facts, now_s=200.0) == other.observe(shuffled, now_s=200.0)
    # As text: a reading may hold a NaN, which is equal to nothing.
    assert json.dumps(one.state.document()) == json.dumps(other.state.document())


@given(facts_lists)
def test_machines_do_not_touch_each_other(facts: list[Fact]) -> None:
    both = HealthEngine(RULES)
    both.observe(facts, now_s=200.0)
    alone = HealthEngine(RULES)
    alone.observe([fact for fact in facts if fact.machine == "m"], now_s=200.0)
    assert [one for one in both.findings() if one.machine == "m"] == alone.findings()


@given(st.lists(readings, max_size=30))
def test_readings_told_twice_are_told_once(facts: list[Fact]) -> None:
    # Two different readings of one GPU at one moment would be another story.
    facts = list(
        {(fact.machine, fact.gpu, fact.at_s): fact for fact in facts if isinstance(fact, Reading)}.values()
    )
    one, other = HealthEngine(RULES), HealthEngine(RULES)
    for batch in chunks(facts, 3):
        one.observe(batch, now_s=batch[-1].at_s)
        other.observe(batch, now_s=batch[-1].at_s)
        other.observe(batch, now_s=batch[-1].at_s)
    assert one.findings() == other.findings()


@given(st.lists(events, max_size=30))
def test_xids_told_twice_are_told_once(facts: list[Event]) -> None:
    xids = [fact for fact in facts if fact.kind in ("xid", "sxid")]
    one, other = HealthEngine(RULES), HealthEngine(RULES)
    one.observe(xids, now_s=200.0)
    other.observe([*xids, *xids], now_s=200.0)
    assert one.findings() == other.findings()


@given(facts_lists, st.integers(1, 7))
def test_findings_have_rules_and_only_get_worse(facts: list[Fact], size: int) -> None:
    engine = HealthEngine(RULES)
    before: dict[tuple[str, str | None, str], Finding] = {}
    for batch in chunks(facts, size):
        changes = engine.observe(batch, now_s=batch[-1].at_s)
        for change in changes:
            assert known_rule(change.rule), change
            assert change.provenance and change.summary.endswith(".")
            assert change.first_at_s <= change.last_at_s
        ended = {(one.machine, one.gpu, one.rule) for one in changes if one.resolved}
        after = {(one.machine, one.gpu, one.rule): one for one in engine.findings()}
        for key, finding in before.items():
            if key in after and key not in ended and after[key].first_at_s <= finding.first_at_s:
                assert severity_rank(after[key].severity) >= severity_rank(finding.severity)
                assert action_rank(after[key].action) >= action_rank(finding.action)
                assert after[key].count >= finding.count
        # Whatever opened or ended was told.
        assert set(after) - set(before) <= {(one.machine, one.gpu, one.rule) for one in changes}
        assert set(before) - set(after) <= ended
        before = after


@given(facts_lists, st.integers(1, 7), st.integers(0, 6))
@settings(max_examples=60)
def test_a_restart_in_between_changes_nothing(facts: list[Fact], size: int, cut: int) -> None:
    through, restarted = HealthEngine(RULES), HealthEngine(RULES)
    for place, batch in enumerate(chunks(facts, size)):
        if place == cut:
            restarted = HealthEngine(
                RULES, HealthState.of(json.loads(json.dumps(restarted.state.document())))
            )
        assert through.observe(batch, now_s=batch[-1].at_s) == restarted.observe(batch, now_s=batch[-1].at_s)


@given(
    st.lists(st.sampled_from([-5.0, 0.0, 2.0, 5.0, 30.0]), min_size=1, max_size=60),
    st.lists(st.sampled_from([0.0, 1.0, 3.0, 8.0]), min_size=60, max_size=60),
)
def test_hotter_is_never_judged_milder(margins: list[float], more: list[float]) -> None:
    """Readings that are each at least as hot give a verdict at every moment that is at least as bad."""
    one, other = HealthEngine(RULES), HealthEngine(RULES)
    for place, margin in enumerate(margins):
        at_s = 5.0 * place
        for engine, value in ((one, margin), (other, margin - more[place])):
            engine.observe(
                [Reading(machine="m", gpu="GPU-a", index=0, at_s=at_s, temperature_margin_c=value)],
                now_s=at_s,
            )
        mild = max((severity_rank(finding.severity) for finding in one.findings()), default=-1)
        hard = max((severity_rank(finding.severity) for finding in other.findings()), default=-1)
        assert hard >= mild
