"""What the HPA is shown, against an HPA of our own after Kubernetes' description."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from integrations.hpa_reference import Hpa, Rules
from textnlp_fast.integrations.hpa import shown

COUNTS = st.integers(1, 400)
FREE = Rules(0.0, [("Pods", 1000, 15.0), ("Percent", 1000, 15.0)])


@given(current=COUNTS, target=COUNTS, holds=st.booleans())
def test_without_tolerance_one_round_ends_at_the_target(current: int, target: int, holds: bool) -> None:
    hpa = Hpa(current, tolerance_up=0.0, tolerance_down=0.0, holds_at_edge=holds)
    assert hpa.proposal(shown(target, among=[current], tolerance=0.0) * 1000) == target


@given(current=COUNTS, target=COUNTS, tolerance=st.sampled_from([0.01, 0.05, 0.1, 0.25]), holds=st.booleans())
@example(10, 11, 0.1, True)
@example(10, 11, 0.1, False)
@example(10, 9, 0.1, True)
@example(10, 9, 0.1, False)
@example(20, 21, 0.1, True)
@example(20, 22, 0.1, False)
@example(30, 33, 0.1, False)
@example(100, 110, 0.1, True)
def test_with_a_tolerance_it_is_never_too_few_for_long_nor_more_than_that_too_many(
    current: int, target: int, tolerance: float, holds: bool
) -> None:
    hpa = Hpa(current, tolerance_up=tolerance, tolerance_down=tolerance, holds_at_edge=holds)
    after = hpa.proposal(shown(target, among=[current], tolerance=tolerance) * 1000)
    assert after >= target
    assert (
        after <= max(target, current * (1 + tolerance) + 1 + 1e-6) if target > current else after <= current
    )
    if abs(target - current) > current * tolerance + 1:
        assert after == target


def test_why_the_plain_number_would_not_do() -> None:
    assert Hpa(20).proposal(21_000) == 20
    assert Hpa(20).proposal(22_000) == 20  # ratio 1.1: on the edge
    assert Hpa(20, holds_at_edge=False).proposal(22_000) == 22  # before 1.33: 1.1 - 1 is a hair more than 0.1
    assert shown(21, among=[20]) == 23
    assert Hpa(20, most=21).step(0.0, shown(21, among=[20])) == 21  # bounded by maxReplicas


@given(
    steps=st.lists(st.tuples(st.integers(1, 60), st.booleans(), st.booleans()), min_size=1, max_size=30),
    begun=st.integers(1, 60),
    holds=st.booleans(),
)
def test_an_hpa_that_reads_when_it_likes_has_enough_after_it_has_read(
    steps: list[tuple[int, bool, bool]], begun: int, holds: bool
) -> None:
    """Decisions, the HPA's rounds and what is seen of the pods come in any order."""
    hpa = Hpa(begun, tolerance_up=0.1, tolerance_down=0.1, holds_at_edge=holds)
    seen, since = begun, [begun]
    for target, reads, settles in steps:
        since.append(shown(target, among=[seen, *since]))
        if reads:
            hpa.replicas = hpa.proposal(since[-1] * 1000)
            assert target <= hpa.replicas
            assert since[-1] <= target * 1.1 + 1
            since = [hpa.replicas, since[-1]]
        if settles:
            seen = hpa.replicas


@given(targets=st.lists(st.integers(1, 60), min_size=1, max_size=12))
def test_the_behaviour_of_the_guide_follows_a_day_of_targets(targets: list[int]) -> None:
    hpa = Hpa(
        1, most=60, tolerance_up=0.0, tolerance_down=0.0, up=FREE, down=Rules(0.0, [("Percent", 100, 15.0)])
    )
    for round_number, target in enumerate(targets):
        after = hpa.step(15.0 * (round_number + 1), shown(target, among=[hpa.replicas], tolerance=0.0))
        assert after == target


def test_the_default_behaviour_waits_five_minutes_before_it_goes_down() -> None:
    hpa = Hpa(10)
    assert [hpa.step(at, 4) for at in (0.0, 150.0)] == [4, 4]
    hpa = Hpa(10)
    hpa.step(0.0, 10)
    assert [hpa.step(at, 4) for at in (15.0, 300.0, 301.0)] == [10, 10, 4]


def test_with_nothing_to_compare_with_the_target_is_shown() -> None:
    assert [shown(7, among=among) for among in ([], [0], [7], [9])] == [7, 7, 7, 7]
    assert shown(0, among=[5]) == 0
