"""The cases that every actuator must pass: inherit `ActuatorContract`, and give a fixture `harness` with 3 replicas."""

from __future__ import annotations

import math
import os
from typing import Any

import pytest

from gpu.scaling.actuators.harness import GroupHarness, Streams, settled
from textnlp_fast.errors import (
    AuthenticationError,
    InvalidInputError,
    MissingObjectError,
    ProviderUnavailableError,
    TextnlpFastError,
)

#: Replicas that are wanted of three, and whether the killed request was carried out. All of it at night: some of
#: these servers take a quarter of a minute for each.
KILLED = [(2, False), (5, True), *([(2, True), (5, False)] if "TEXTNLP_FAST_NIGHTLY" in os.environ else [])]

__all__ = ["ActuatorContract", "CrashCases", "DrainCases", "SizeCases"]


class SizeCases:
    """Numbers: up, down, twice, outside the bounds."""

    def test_reads_what_is_there(self, harness: GroupHarness) -> None:
        state = harness.actuator().read()
        assert (state.desired, state.ready, state.starting, state.draining) == (3, 3, 0, 0)
        assert {one.replica_id for one in state.replicas} == harness.alive()
        assert all(one.state == "ready" for one in state.replicas)

    def test_reading_changes_nothing(self, harness: GroupHarness) -> None:
        before = harness.alive()
        harness.actuator().read()
        assert (harness.alive(), harness.told()) == (before, 3)

    def test_up(self, harness: GroupHarness) -> None:
        before = harness.alive()
        state = harness.actuator().scale_to(5, decision_id="d-1")
        assert state.desired == 5
        harness.pass_time()
        assert harness.alive() > before
        assert len(harness.alive()) == harness.told() == 5

    def test_what_is_new_is_not_waited_for(self, harness: GroupHarness) -> None:
        state = harness.actuator().scale_to(4, decision_id="d-1")
        assert state.ready + state.starting <= 4

    def test_down(self, harness: GroupHarness) -> None:
        before = harness.alive()
        state = settled(harness, harness.actuator(drain=Streams()), 1)
        assert (state.desired, state.ready) == (1, 1)
        assert harness.alive() < before

    def test_to_none_and_back(self, harness: GroupHarness) -> None:
        actuator = harness.actuator(drain=Streams())
        assert settled(harness, actuator, 0).ready == 0
        assert settled(harness, actuator, 2, decision_id="d-2").desired == 2

    def test_the_same_said_twice_is_once(self, harness: GroupHarness) -> None:
        actuator = harness.actuator(drain=Streams())
        for decision in ("d-1", "d-1", "d-2"):
            actuator.scale_to(5, decision_id=decision)
            harness.pass_time()
        five = harness.alive()
        assert (len(five), harness.told()) == (5, 5)
        settled(harness, actuator, 2, decision_id="d-3")
        two = harness.alive()
        for decision in ("d-3", "d-4"):
            actuator.scale_to(2, decision_id=decision)
            harness.pass_time()
        assert harness.alive() == two < five

    def test_what_is_as_it_should_be_is_left_alone(self, harness: GroupHarness) -> None:
        actuator = harness.actuator(drain=Streams())
        actuator.scale_to(3, decision_id="d-1")
        before = harness.alive()
        state = actuator.scale_to(3, decision_id="d-2")
        assert (state.desired, state.draining, harness.alive(), harness.told()) == (3, 0, before, 3)

    def test_above_the_bounds_is_cut_to_them(self, harness: GroupHarness) -> None:
        harness.needs("bounds")
        harness.set_bounds(1, 4)
        state = harness.actuator().scale_to(9, decision_id="d-1")
        assert (state.desired, state.min_size, state.max_size) == (4, 1, 4)

    def test_below_the_bounds_is_cut_to_them(self, harness: GroupHarness) -> None:
        harness.needs("bounds")
        harness.set_bounds(2, 4)
        state = settled(harness, harness.actuator(drain=Streams()), 0)
        assert (state.desired, len(harness.alive())) == (2, 2)

    @pytest.mark.parametrize("count", [-1, 10_001, True, 2.0, math.nan, "3", None])
    def test_what_is_no_number_of_replicas_is_refused(self, harness: GroupHarness, count: Any) -> None:
        with pytest.raises(InvalidInputError):
            harness.actuator().scale_to(count, decision_id="d-1")
        assert harness.told() == 3

    @pytest.mark.parametrize("decision_id", ["", "a\nb", "x" * 201, None])
    def test_what_names_no_decision_is_refused(self, harness: GroupHarness, decision_id: Any) -> None:
        with pytest.raises(InvalidInputError):
            harness.actuator().scale_to(2, decision_id=decision_id)
        assert harness.told() == 3

    def test_a_fleet_that_is_not_there(self, harness: GroupHarness) -> None:
        harness.needs("missing")
        actuator = harness.actuator_of_nothing()
        for call in (actuator.read, lambda: actuator.scale_to(2, decision_id="d-1")):
            with pytest.raises(MissingObjectError) as caught:
                call()
            assert caught.value.hint


class DrainCases:
    """Who goes, and when."""

    def test_nobody_who_streams_is_ended(self, harness: GroupHarness) -> None:
        harness.needs("chosen victims")
        streams = Streams()
        streams.all_busy = True
        actuator, before = harness.actuator(drain=streams), harness.alive()
        for _ in range(3):
            state = actuator.scale_to(1, decision_id="d-1")
            harness.pass_time()
            assert harness.alive() == before
        assert (state.desired, state.ready, state.draining) == (1, 1, 2)
        assert len(set(streams.asked)) == 2

    def test_whoever_is_empty_goes_and_the_others_stay(self, harness: GroupHarness) -> None:
        harness.needs("chosen victims")
        streams = Streams()
        streams.all_busy = True
        actuator, before = harness.actuator(drain=streams), harness.alive()
        actuator.scale_to(1, decision_id="d-1")
        asked = sorted(set(streams.asked))
        # The last by name: of those with ordinals none other could go first.
        streams.all_busy, streams.busy = False, set(asked[:-1])
        actuator.scale_to(1, decision_id="d-1")
        harness.pass_time()
        assert harness.alive() == before - {asked[-1]}
        streams.busy = set()
        settled(harness, actuator, 1)
        assert harness.alive() == before - set(asked)

    def test_a_draining_replica_never_counts_as_ready(self, harness: GroupHarness) -> None:
        harness.needs("chosen victims")
        streams = Streams()
        streams.all_busy = True
        harness.actuator(drain=streams).scale_to(2, decision_id="d-1")
        state = harness.actuator().read()
        assert (state.ready, state.draining) == (2, 1)
        (one,) = [one for one in state.replicas if one.state == "draining"]
        assert one.replica_id in streams.asked

    def test_draining_survives_a_restart(self, harness: GroupHarness) -> None:
        harness.needs("chosen victims")
        streams = Streams()
        streams.all_busy = True
        harness.actuator(drain=streams).scale_to(1, decision_id="d-1")
        first = set(streams.asked)
        again = harness.actuator(drain=streams)
        assert again.scale_to(1, decision_id="d-1").draining == 2
        assert set(streams.asked) == first

    def test_more_are_wanted_while_some_drain(self, harness: GroupHarness) -> None:
        harness.needs("chosen victims")
        streams = Streams()
        streams.all_busy = True
        actuator, before = harness.actuator(drain=streams), harness.alive()
        actuator.scale_to(1, decision_id="d-1")
        state = actuator.scale_to(3, decision_id="d-2")
        harness.pass_time()
        assert state.desired == 3
        assert len(harness.alive()) == 5
        assert harness.alive() > before
        five, asked = harness.alive(), set(streams.asked)
        streams.all_busy = False
        settled(harness, actuator, 3, decision_id="d-2")
        # Nobody but those that were drained has gone.
        assert "new names" in harness.cannot or harness.alive() == five - asked

    def test_the_time_to_drain_runs_on_over_calls(self, harness: GroupHarness) -> None:
        harness.needs("chosen victims")
        now = [1.9e9]
        streams = Streams()
        streams.all_busy = True
        options = {"drain": streams, "drain_s": 100.0, "clock": lambda: now[0]}
        harness.actuator(**options).scale_to(2, decision_id="d-1")
        now[0] += 60.0
        harness.actuator(**options).scale_to(2, decision_id="d-1")
        now[0] += 60.0
        harness.actuator(**options).scale_to(2, decision_id="d-1")
        assert streams.left_s == [pytest.approx(100.0, abs=1.0), pytest.approx(40.0, abs=1.0), 0.0]
        assert len(harness.alive()) == 3

    def test_it_is_ended_all_the_same_where_somebody_said_so(self, harness: GroupHarness) -> None:
        harness.needs("chosen victims")
        now = [1.9e9]
        streams = Streams()
        streams.all_busy = True
        actuator = harness.actuator(drain=streams, drain_s=10.0, give_up_s=50.0, clock=lambda: now[0])
        actuator.scale_to(2, decision_id="d-1")
        now[0] += 49.0
        actuator.scale_to(2, decision_id="d-1")
        assert len(harness.alive()) == 3
        now[0] += 2.0
        settled(harness, actuator, 2)

    def test_whoever_cannot_be_asked_is_not_ended(self, harness: GroupHarness) -> None:
        harness.needs("chosen victims")
        streams = Streams()
        streams.error = ConnectionRefusedError("nobody listens")
        actuator = harness.actuator(drain=streams)
        assert actuator.scale_to(2, decision_id="d-1").draining == 1
        harness.pass_time()
        assert len(harness.alive()) == 3

    def test_what_does_not_serve_yet_goes_first_and_is_not_asked(self, harness: GroupHarness) -> None:
        harness.needs("chosen victims", "starting")
        late = harness.one_that_may_go()
        harness.hold_back(late)
        assert harness.actuator().read().starting == 1
        streams = Streams()
        settled(harness, harness.actuator(drain=streams), 2)
        assert late not in harness.alive()
        assert streams.asked == []

    def test_one_that_vanishes_while_it_drains(self, harness: GroupHarness) -> None:
        harness.needs("chosen victims")
        streams = Streams()
        streams.all_busy = True
        actuator = harness.actuator(drain=streams)
        actuator.scale_to(2, decision_id="d-1")
        harness.vanish(streams.asked[0])
        harness.pass_time()
        streams.all_busy = False
        assert settled(harness, actuator, 2).desired == 2

    def test_one_that_vanishes_by_itself(self, harness: GroupHarness) -> None:
        harness.needs("new names")
        gone = min(harness.alive())
        harness.vanish(gone)
        harness.pass_time()
        assert gone not in {
            one.replica_id for one in harness.actuator().read().replicas if one.state == "ready"
        }
        settled(harness, harness.actuator(drain=Streams()), 3)
        assert gone not in harness.alive()


class CrashCases:
    """Lost answers, kills and refusals."""

    @pytest.mark.parametrize(("verb", "count"), [("tell", 5), ("tell", 1), ("mark", 1), ("end", 1)])
    def test_a_lost_answer(self, harness: GroupHarness, verb: str, count: int) -> None:
        harness.lose_answer(verb)
        actuator = harness.actuator(drain=Streams())
        try:
            actuator.scale_to(count, decision_id="d-1")
        except ProviderUnavailableError:
            assert harness.told() >= min(3, count)
        harness.pass_time()
        before = harness.alive()
        assert len(before) >= min(count, 3)
        settled(harness, actuator, count)
        assert len(harness.alive()) == count

    @pytest.mark.parametrize(("count", "heard"), KILLED)
    def test_a_kill_between_any_two_requests(self, harness: GroupHarness, count: int, heard: bool) -> None:
        # Each round is killed one request later than the one before, and another process goes on from there.
        another = harness.actuator(drain=Streams())
        for after in range(200):
            harness.crash_after(after, heard=heard)
            try:
                harness.actuator(drain=Streams(), retries=0).scale_to(count, decision_id=f"d-{after}")
                survived = True
            except (TextnlpFastError, harness.death):
                survived = False
            harness.heal()
            harness.pass_time()
            assert min(3, count) <= len(harness.alive()) <= max(3, count), (after, count)
            settled(harness, another, count, decision_id=f"d-{after}")
            assert len(harness.alive()) == harness.told() == count
            if survived:
                break
            another = harness.begin_anew(another)
        else:
            raise AssertionError("it never ends")
        assert after >= 2

    def test_throttled(self, harness: GroupHarness) -> None:
        harness.needs("throttling")
        harness.throttle(3)
        assert harness.actuator().scale_to(4, decision_id="d-1").desired == 4

    def test_throttled_without_end(self, harness: GroupHarness) -> None:
        harness.needs("throttling")
        harness.throttle(10**9)
        with pytest.raises(ProviderUnavailableError):
            harness.actuator(retries=2).scale_to(4, decision_id="d-1")
        assert harness.requests() <= 20
        harness.heal()
        assert harness.told() == 3

    def test_credentials_that_do_no_more(self, harness: GroupHarness) -> None:
        harness.expire_credentials()
        with pytest.raises(AuthenticationError) as caught:
            harness.actuator().scale_to(4, decision_id="d-1")
        assert caught.value.hint
        harness.heal()
        assert harness.told() == 3

    @pytest.mark.parametrize("options", [{"drain_s": -1.0}, {"drain_s": math.nan}, {"give_up_s": math.inf}])
    def test_times_that_are_none_are_refused(self, harness: GroupHarness, options: dict[str, Any]) -> None:
        with pytest.raises(InvalidInputError):
            harness.actuator(**options)


class ActuatorContract(SizeCases, DrainCases, CrashCases):
    """All of it."""
