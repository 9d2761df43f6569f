"""The board: decisions on its own clock, what stands when nothing is seen, and what is forgotten."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from integrations.standins import Following, HeldFleet
from textnlp_fast.errors import ProviderUnavailableError, QuotaError
from textnlp_fast.gpu.scaling.decision import Decision
from textnlp_fast.gpu.scaling.observation import Observation
from textnlp_fast.gpu.scaling.policy import ScalingPolicy
from textnlp_fast.integrations.deciding import DecisionBoard, Fleet

SETTINGS = ScalingPolicy(min_instances=0, max_instances=50, period_s=0.02)


def fleet(observe: HeldFleet, **others: Any) -> Fleet:
    settings = others.pop("settings", SETTINGS)
    policy = others.pop("policy", None) or Following(settings)
    return Fleet(settings=settings, policy=policy, observe=observe, **{"tolerance": 0.0, **others})


def test_it_decides_again_and_again_and_what_stands_is_the_newest() -> None:
    held = HeldFleet(requests=3)
    with DecisionBoard() as board:
        entry = board.enrol("a", lambda: fleet(held))
        assert entry.wait(10).replicas == 3
        held.requests = 7
        held.wait_looks()
        assert entry.wait(10).replicas == 7
        assert board.enrol("a", lambda: pytest.fail("it is there already")) is entry
    looks = held.looks
    assert not any(thread.name.startswith("textnlp-fast-") for thread in threading.enumerate())
    assert held.looks == looks


def test_a_fleet_that_was_never_seen_has_no_decision_and_one_that_is_lost_keeps_it() -> None:
    held = HeldFleet(requests=5)
    held.failing = ConnectionError("refused")
    with DecisionBoard() as board:
        entry = board.enrol("a", lambda: fleet(held))
        with pytest.raises(ProviderUnavailableError, match="ConnectionError: refused"):
            entry.wait(10)
        held.failing = None
        held.wait_looks()
        assert entry.wait(10).replicas == 5
        held.failing, held.requests = TimeoutError(), 0
        held.wait_looks()
        standing = entry.wait(10)
        assert (standing.replicas, standing.error) == (5, "TimeoutError")
        held.failing = None
        held.wait_looks()
        assert entry.wait(10).replicas == 0


class Shrinking(Following):
    """Goes to its least as soon as it sees nothing; to twelve at the third such time."""

    def decide(self, observation: Observation) -> Decision:
        if observation.ready is None:
            self.blind = getattr(self, "blind", 0) + 1
            return Decision(observation.time_s, 12 if self.blind == 3 else 0)
        return super().decide(observation)


def test_blind_it_goes_up_if_the_policy_says_so_and_never_down() -> None:
    held = HeldFleet(requests=5)
    with DecisionBoard() as board:
        entry = board.enrol("a", lambda: fleet(held, policy=Shrinking(SETTINGS)))
        entry.wait(10)
        seen, stop_at = [entry.wait(10).replicas], threading.Event()

        def hear() -> None:
            standing = entry.look()
            assert standing is not None
            seen.append(standing.replicas)
            if len(seen) > 12:
                stop_at.set()

        held.failing = OSError("gone")
        stop = entry.watch(hear)
        assert stop_at.wait(20)
        stop()
    assert seen == sorted(seen)
    assert set(seen) == {5, 12}


def test_after_a_while_nothing_stands_any_more() -> None:
    held = HeldFleet(requests=5)
    with DecisionBoard() as board:
        entry = board.enrol("a", lambda: fleet(held, hold_s=0.0))
        held.wait_looks()
        held.failing = OSError("no route")
        held.wait_looks()
        with pytest.raises(ProviderUnavailableError, match="no route"):
            entry.wait(10)


class Broken(Following):
    def decide(self, observation: Observation) -> Decision:
        if observation.waiting_requests == 13:
            raise ZeroDivisionError("thirteen")
        return super().decide(observation)


def test_a_policy_that_fails_does_not_end_the_board() -> None:
    held = HeldFleet(requests=4)
    with DecisionBoard(workers=1) as board:
        entry = board.enrol("a", lambda: fleet(held, policy=Broken(SETTINGS)))
        assert entry.wait(10).replicas == 4
        held.requests = 13
        held.wait_looks()
        assert entry.wait(10).replicas == 4
        assert entry.failing
        held.requests = 6
        held.wait_looks()
        assert entry.wait(10).replicas == 6


def test_a_fleet_that_hangs_holds_up_no_other() -> None:
    hanging, quick = HeldFleet(requests=1), HeldFleet(requests=2)
    hanging.gate.clear()
    with DecisionBoard(workers=2) as board:
        slow = board.enrol("slow", lambda: fleet(hanging))
        assert board.enrol("quick", lambda: fleet(quick)).wait(10).replicas == 2
        with pytest.raises(ProviderUnavailableError, match="not ended yet"):
            slow.wait(0.05)
        quick.wait_looks(5)
        hanging.gate.set()
        assert slow.wait(10).replicas == 1


def test_changed_settings_go_on_from_what_was_learned() -> None:
    held = HeldFleet(requests=1)
    with DecisionBoard() as board:
        board.enrol("old", lambda: fleet(held), family="f").wait(10)
        held.wait_looks(5)
        policy = Following(SETTINGS)
        board.enrol("new", lambda: fleet(HeldFleet(), policy=policy), family="f").wait(10)
        assert policy.seen >= 5
        stranger = Following(SETTINGS)
        gate = HeldFleet()
        gate.gate.clear()
        board.enrol("other", lambda: fleet(gate, policy=stranger), family="g")
        assert stranger.seen == 0
        gate.gate.set()


def test_there_are_never_more_than_allowed_and_who_is_not_asked_for_is_forgotten() -> None:
    with DecisionBoard(most_fleets=3, forget_after_s=0.0) as board:
        watched = board.enrol(0, lambda: fleet(HeldFleet()))
        stop = watched.watch(lambda: None)
        for number in range(1, 100):
            board.enrol(number, lambda: fleet(HeldFleet()))
        assert len(board) <= 3
        assert board.enrol(0, lambda: pytest.fail("a watched one is kept")) is watched
        stop()
    with DecisionBoard(most_fleets=3) as board:
        for number in range(3):
            board.enrol(number, lambda: fleet(HeldFleet()))
        with pytest.raises(QuotaError, match="3 fleets"):
            board.enrol(3, lambda: fleet(HeldFleet()))


def test_settings_that_change_all_the_time_crowd_out_nobody() -> None:
    with DecisionBoard(most_fleets=20) as board:
        other = board.enrol("other", lambda: fleet(HeldFleet()), family="calm")
        watched = board.enrol(-1, lambda: fleet(HeldFleet()), family="restless")
        stop = watched.watch(lambda: None)
        for number in range(100):
            newest = board.enrol(number, lambda: fleet(HeldFleet()), family="restless")
        assert len(board) == 9
        for key, entry in (("other", other), (-1, watched), (99, newest)):
            assert board.enrol(key, lambda: pytest.fail("it was dropped")) is entry
        stop()


def test_who_was_crowded_out_before_the_first_look_is_answered_all_the_same() -> None:
    gate = HeldFleet(requests=3)
    gate.gate.clear()
    with DecisionBoard(workers=1) as board:
        first = board.enrol("first", lambda: fleet(gate), family="calm")
        # The only worker is held up, so none of these has been looked at when the next ones come.
        waiting = [board.enrol(n, lambda: fleet(HeldFleet(requests=3)), family="restless") for n in range(50)]
        gate.gate.set()
        assert first.wait(30.0).decision.target == 3
        assert [entry.wait(30.0).decision.target for entry in waiting] == [3] * 50


def test_what_an_hpa_has_ordered_counts_as_starting() -> None:
    seen: list[Observation] = []

    class Noting(Following):
        def decide(self, observation: Observation) -> Decision:
            seen.append(observation)
            return super().decide(observation)

    held = HeldFleet(requests=9, ready=2)
    with DecisionBoard() as board:
        entry = board.enrol("a", lambda: fleet(held, policy=Noting(SETTINGS), tolerance=0.1))
        entry.wait(10)
        held.wait_looks()
    assert (seen[0].ready, seen[0].starting) == (2, 0)
    assert (seen[-1].ready, seen[-1].starting) == (2, 7)
