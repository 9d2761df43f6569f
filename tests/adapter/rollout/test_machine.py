"""The machine against a world that knows the truth: bounds hold, it ends, and all have one version when it does."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapter.rollout.world import Fault, Node, World
from textnlp_fast.adapter.rollout.machine import begin, decide, turn_back
from textnlp_fast.adapter.rollout.state import Mode, Sight, State, Terms, terms_of
from textnlp_fast.adapter.rollout_settings import Rollout, Strategy
from textnlp_fast.errors import InvalidInputError

STRATEGIES: tuple[Strategy, ...] = ("rolling", "canary", "blue-green")


def terms(
    strategy: Strategy,
    count: int = 4,
    *,
    unavailable: int = 1,
    extras: int = 0,
    steps: tuple[int, ...] = (25, 100),
) -> Terms:
    names = tuple(f"r{number}" for number in range(count))
    spares = tuple(f"s{number}" for number in range(count if strategy == "blue-green" else extras))
    return Terms(
        strategy=strategy,
        old="1.0.0",
        new="2.0.0",
        base=names,
        extras=spares,
        max_unavailable=0 if strategy == "blue-green" else unavailable,
        steps=steps if strategy == "canary" else (100,),
        bake_s=5.0,
        lost_s=6.0,
        patience_s=30.0,
        operation_s=60.0,
    )


def world(agreed: Terms, mode: Mode = "swap", **more: object) -> World:
    nodes = {one: Node(mode, agreed.old) for one in agreed.base}
    nodes |= {one: Node(mode, None) for one in agreed.extras}
    return World(agreed, nodes, **more)  # type: ignore[arg-type]


def check_end(made: World, state: State) -> None:
    agreed = made.terms
    assert not made.wrongs, made.wrongs[:3]
    versions = [made.nodes[one].serving for one in agreed.base]
    if state.phase == "succeeded":
        active = agreed.extras if agreed.strategy == "blue-green" else agreed.base
        assert {made.nodes[one].serving for one in active} == {agreed.new}
        assert made.routed >= set(active)
        assert {made.nodes[one].serving for one in made.routed} == {agreed.new}
    elif state.phase == "rolled-back":
        assert set(versions) == {agreed.old}
        assert made.routed >= set(agreed.base)
        assert made.routed <= set(agreed.base) | made.hurt
        assert state.reason
    else:
        assert state.phase == "stuck"
        left = [
            one
            for one, held in state.replicas.items()
            if held.lost and (one in agreed.base or held.place != "out")
        ]
        assert left
        assert all(one in state.reason for one in left)
        others = [one for one in agreed.base if one not in left]
        assert {made.nodes[one].serving for one in others} <= {agreed.old}
    assert all(made.nodes[one].prepared is None for one in agreed.base if not state.held(one).lost)


@pytest.mark.parametrize("mode", ["swap", "restart"])
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize(("unavailable", "extras"), [(1, 0), (2, 1), (0, 1), (4, 0)])
def test_without_faults_everything_ends_on_the_new_version(
    strategy: Strategy, mode: Mode, unavailable: int, extras: int
) -> None:
    made = world(terms(strategy, unavailable=unavailable, extras=extras), mode)
    state = made.run(begin(made.terms))
    assert state.phase == "succeeded"
    check_end(made, state)
    assert set(made.weights.values()) <= set(range(1, 101))


@pytest.mark.parametrize("mode", ["swap", "restart"])
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("late", [0, 3])
def test_a_version_that_is_unwell_goes_back(strategy: Strategy, mode: Mode, late: int) -> None:
    made = world(terms(strategy), mode, bad={"2.0.0": late})
    state = made.run(begin(made.terms))
    assert state.phase == "rolled-back"
    assert "unwell serving 2.0.0" in state.reason
    check_end(made, state)


def stage(state: State) -> tuple[object, ...]:
    return state.phase, state.step, state.switched


def unmarked(state: State) -> State:
    """Without since when replicas look as they do."""
    for one in state.replicas:
        state = state.with_held(one, mark="", since_s=0.0)
    return state


@pytest.mark.parametrize("mode", ["swap", "restart"])
def test_a_version_that_cannot_be_committed_goes_back(mode: Mode) -> None:
    made = world(terms("rolling"), mode, unloadable=frozenset({"2.0.0"}))
    state = made.run(begin(made.terms), most=200)
    assert (state.phase, "commit of 2.0.0 failed 2 times" in state.reason) == ("rolled-back", True)
    check_end(made, state)


@settings(max_examples=150)
@given(st.data())
def test_whatever_breaks_it_ends_and_bounds_hold(data: st.DataObject) -> None:
    strategy = data.draw(st.sampled_from(STRATEGIES))
    count = data.draw(st.integers(1, 5))
    extras = data.draw(st.integers(0, 2))
    unavailable = data.draw(st.integers(0 if extras else 1, count))
    steps = data.draw(st.sampled_from([(100,), (5, 25, 50, 100), (60, 100)]))
    agreed = terms(strategy, count, unavailable=unavailable, extras=extras, steps=steps)
    names = [*agreed.base, *agreed.extras]
    fault = st.builds(
        Fault,
        st.integers(1, 90),
        st.sampled_from(["crash", "hide", "fail", "jam"]),
        st.sampled_from(names),
        st.sampled_from([1, 2, 4, 30, 500]),
    )
    bad = data.draw(
        st.sampled_from([{}, {}, {"2.0.0": 0}, {"2.0.0": 6}, {"1.0.0": 0}, {"1.0.0": 0, "2.0.0": 2}])
    )
    made = world(
        agreed,
        data.draw(st.sampled_from(["swap", "restart"])),
        faults=tuple(data.draw(st.lists(fault, max_size=4))),
        bad=bad,
        unloadable=data.draw(
            st.sampled_from([frozenset(), frozenset(), frozenset({"1.0.0"}), frozenset({"2.0.0"})])
        ),
        work=data.draw(st.integers(1, 5)),
        repeat=data.draw(st.booleans()),
    )
    state = made.run(begin(agreed))
    check_end(made, state)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_deciding_again_on_the_same_view_asks_for_nothing_else(strategy: Strategy) -> None:
    """A controller that dies after it wrote the state, and one that takes over, do the same things."""
    made = world(terms(strategy))
    state = begin(made.terms)
    for _ in range(300):
        made.pass_tick()
        seen = made.sights()
        first = decide(made.terms, state, seen, float(made.tick))
        second = decide(made.terms, first.state, seen, float(made.tick))
        # What is done once more is the same thing under the same id: it may lack what only one of them began.
        if stage(first.state) == stage(second.state):
            assert set(first.actions) == set(second.actions)
            assert unmarked(second.state) == unmarked(first.state)
        state = made.carry_out(first)
        if state.phase != "running":
            break
    assert state.phase == "succeeded"


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("at", [1, 3, 6, 10, 16, 25, 40])
def test_turned_back_at_any_moment_all_serve_the_old_version(strategy: Strategy, at: int) -> None:
    made = world(terms(strategy))
    state = begin(made.terms)
    for _ in range(at):
        made.pass_tick()
        state = made.carry_out(decide(made.terms, state, made.sights(), float(made.tick)))
    ended = state.phase == "succeeded"
    state = made.run(turn_back(state, "error rate"))
    assert state.phase == ("succeeded" if ended else "rolled-back")
    check_end(made, state)


def test_a_canary_gets_its_share() -> None:
    agreed = terms("canary", 4, steps=(5, 50, 100))
    made = world(agreed)
    state = begin(agreed)
    shares: dict[int, set[int]] = {}
    while state.phase == "running":
        made.pass_tick()
        state = made.carry_out(decide(agreed, state, made.sights(), float(made.tick)))
        if state.baking_since_s is not None:
            new = sum(made.weights.get(one, 100) for one in made.routed if made.nodes[one].serving == "2.0.0")
            total = sum(made.weights.get(one, 100) for one in made.routed)
            shares.setdefault(state.step, set()).add(round(100 * new / total))
    assert shares == {0: {5}, 1: {50}, 2: {100}}


def test_a_first_version_has_no_way_back() -> None:
    agreed = terms("rolling")
    first = Terms(**{**{name: getattr(agreed, name) for name in Terms.__slots__}, "old": None})
    made = world(first, bad={"2.0.0": 0})
    state = made.run(begin(first))
    assert (state.phase, "no version to go back to" in state.reason) == ("stuck", True)


def test_a_clock_that_is_behind_does_not_shorten_a_step() -> None:
    agreed = terms("rolling", 1)
    sights = {"r0": Sight(serving="2.0.0", run="1", healthy=True)}
    state = decide(agreed, begin(agreed), sights, 1000.0).state
    state = decide(agreed, state, sights, 990.0).state
    assert state.step == 0
    assert decide(agreed, state, sights, 994.0).state.step == 0
    assert decide(agreed, state, sights, 996.0).state.step == 1


def test_terms_that_allow_no_step_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="no spare one"):
        terms_of(Rollout(max_unavailable=0, max_surge=1), old="1.0.0", new="2.0.0", base=("a",))
    with pytest.raises(InvalidInputError, match="as many spare"):
        terms_of(Rollout(strategy="blue-green"), old="1.0.0", new="2.0.0", base=("a", "b"), spares=("c",))
    with pytest.raises(InvalidInputError, match="no replica is in service"):
        terms_of(Rollout(), old=None, new="2.0.0", base=())
    agreed = terms_of(
        Rollout(max_unavailable="25%", max_surge="50%"),
        old=None,
        new="2.0.0",
        base=tuple("abcdefgh"),
        spares=("s",),
    )
    assert (agreed.max_unavailable, agreed.extras) == (2, ("s",))


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("tick", [3, 6, 12])
def test_a_process_that_dies_takes_all_back(strategy: Strategy, tick: int) -> None:
    agreed = terms(strategy)
    made = world(agreed, faults=(Fault(tick, "crash", agreed.base[0], 2),))
    state = made.run(begin(agreed))
    assert (state.phase, "its process died" in state.reason) == ("rolled-back", True)
    check_end(made, state)


def test_a_replica_that_was_changed_gets_requests_only_once_it_was_found_well() -> None:
    agreed = terms("rolling", 2)
    state = begin(agreed).with_held("r0", place="out")
    other = Sight(serving="1.0.0", run="1", healthy=True)
    for healthy, verbs in ((None, []), (True, ["resume"])):
        sights = {"r0": Sight(serving="2.0.0", run="1", healthy=healthy), "r1": other}
        asked = [
            action.verb for action in decide(agreed, state, sights, 10.0).actions if action.replica == "r0"
        ]
        assert asked == verbs
