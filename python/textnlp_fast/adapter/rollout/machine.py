"""What a rollout does next. Pure: the state, what is seen and the time go in; a state, actions and reasons come out.

Called again and again, by whoever holds the rollout. It compares what replicas are with what they are to be, so that an
action that was repeated, or done without an answer, is seen to be done; only what nobody can see (how the gateway was
told, what was asked of whom and how often it failed) is in the state.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from textnlp_fast.adapter.rollout.goals import Goal, at_goal, goals_of, has_version, weights_of
from textnlp_fast.adapter.rollout.looking import look
from textnlp_fast.adapter.rollout.state import ENDED, Action, Ask, Held, Sight, State, Terms

__all__ = ["Decision", "begin", "decide", "heard", "turn_back"]

_MOST_REASON = 400


@dataclass(frozen=True, slots=True)
class Decision:
    """The state to be written down before `actions` are done; `reasons` say what is new, in words."""

    state: State
    actions: tuple[Action, ...]
    reasons: tuple[str, ...] = ()


def begin(terms: Terms, *, out: frozenset[str] = frozenset()) -> State:
    """The state of a rollout of which nothing was done: the base serves but for what is `out`, the extras do not."""
    # Out by the gateway; a replica that was started anew lets everybody in all the same.
    base = {one: Held(place="leaving" if one in out else "in") for one in terms.base}
    return State(replicas=base | {one: Held(place="out") for one in terms.extras})


def turn_back(state: State, reason: str) -> State:
    """The state on the way back. Nothing that was asked counts any more; what was asked is seen to anew."""
    if state.direction == "back" or state.phase in ENDED:
        return state
    replicas = {
        one: replace(held, ask=None, tries=0, mark="", since_s=0.0) for one, held in state.replicas.items()
    }
    return replace(
        state, direction="back", reason=reason[:_MOST_REASON], baking_since_s=None, replicas=replicas
    )


def decide(terms: Terms, state: State, sights: Mapping[str, Sight], now_s: float) -> Decision:
    """What to do now. `sights` has every replica of the base and of the extras; `now_s` are seconds since 1970."""
    if state.phase in ENDED:
        return Decision(state, ())
    reasons: list[str] = []
    state, failures = look(terms, state, sights, goals_of(terms, state, sights), now_s)
    goals = goals_of(terms, state, sights)
    # An extra that nothing is wanted of any more is no reason to go back.
    grave = [(one, why) for one, why in failures if one in terms.base or goals[one] != Goal(None, False)]
    if grave and state.direction == "forward":
        state = turn_back(state, "; ".join(f"{one}: {why}" for one, why in grave))
        reasons.append(f"going back: {state.reason}")
        state, failures = look(terms, state, sights, goals_of(terms, state, sights), now_s)
    for one, why in failures:
        state = state.with_held(one, lost=why[:_MOST_REASON], ask=None, mark="")
        reasons.append(f"{one} is left as it is: {why}")
    state, advanced = _advance(terms, state, sights, now_s)
    reasons += advanced
    if state.phase in ENDED:
        return Decision(state, (), tuple(reasons))
    state, actions = _moves(terms, state, sights)
    return Decision(state, tuple(actions), tuple(reasons))


def heard(state: State, action: Action) -> State:
    """The state once the gateway has confirmed an action. What agents were asked shows in what they say."""
    if action.verb == "drain" and state.held(action.replica).place == "leaving":
        return state.with_held(action.replica, place="out")
    if action.verb == "resume" and state.held(action.replica).place == "entering":
        return state.with_held(action.replica, place="in", weight=action.weight)
    if action.verb == "weigh":
        return state.with_held(action.replica, weight=action.weight)
    return state


# --- steps -----------------------------------------------------------------------------------------------------


def _advance(
    terms: Terms, state: State, sights: Mapping[str, Sight], now_s: float
) -> tuple[State, list[str]]:
    """To the next step where this one is done and was watched for long enough; to the end after the last."""
    goals = goals_of(terms, state, sights)
    reached = all(_settled(goals[one], state.held(one), sights[one]) for one in goals)
    if state.direction == "back":
        return _end_back(terms, state) if reached else (state, [])
    if not reached or any(
        held.place == "in" and held.weight != weights_of(terms, state, sights)[one]
        for one, held in state.replicas.items()
    ):
        return state, []
    if state.step >= len(terms.steps):
        return replace(state, phase="succeeded"), [f"every replica serves {terms.new}"]
    if terms.strategy == "blue-green" and not state.switched:
        return replace(state, switched=True), [f"{terms.new} is ready beside what serves: switching"]
    # A clock that was set back, or another machine's, makes a step longer and never shorter.
    if state.baking_since_s is None or now_s < state.baking_since_s:
        state = replace(state, baking_since_s=now_s)
    assert state.baking_since_s is not None
    baked_s = now_s - state.baking_since_s
    unknown = [
        one
        for one, held in state.replicas.items()
        if held.place == "in" and sights[one].serving == terms.new and sights[one].healthy is not True
    ]
    if baked_s < terms.bake_s or (unknown and baked_s < terms.bake_s + terms.patience_s):
        return state, []
    if unknown:
        why = f"{', '.join(unknown)}: not found well in {baked_s:.0f} s"
        return turn_back(state, why), [f"going back: {why}"]
    said = f"{terms.steps[state.step]} % of the traffic went well for {terms.bake_s:g} s"
    return replace(state, step=state.step + 1, baking_since_s=None), [said]


def _settled(goal: Goal, held: Held, sight: Sight) -> bool:
    if held.still or (held.lost and not (goal.serves and held.place != "in")):
        return True
    return at_goal(goal, held, sight)


def _end_back(terms: Terms, state: State) -> tuple[State, list[str]]:
    lost = [
        one
        for one, held in state.replicas.items()
        if held.lost and (one in terms.base or held.place != "out")
    ]
    if terms.old is None:
        why = f"{state.reason}; there is no version to go back to"
        return replace(state, phase="stuck", reason=why), [why]
    if lost:
        whose = "; ".join(f"{one}: {state.held(one).lost}" for one in lost)
        why = f"{state.reason}; not on {terms.old}: {whose}"[: 2 * _MOST_REASON]
        return replace(state, phase="stuck", reason=why), [f"{', '.join(lost)} could not go back"]
    return replace(state, phase="rolled-back"), [f"every replica serves {terms.old} again"]


# --- moves -----------------------------------------------------------------------------------------------------


class _Allowance:
    """How many replicas may leave the traffic, as replicas are and with what was granted already."""

    def __init__(
        self, terms: Terms, state: State, sights: Mapping[str, Sight], goals: Mapping[str, Goal]
    ) -> None:
        self._available = {
            one for one, held in state.replicas.items() if held.place == "in" and sights[one].whole
        }
        self._least = len(terms.base) - terms.max_unavailable
        self._back = state.direction == "back"
        self._moving = sum(
            held.place != "in" and not held.lost for one, held in state.replicas.items() if one in terms.base
        )
        switching = terms.strategy == "blue-green"
        under_way = [
            one
            for one in terms.base
            if state.held(one).place == "in" and _begun(goals[one], state.held(one), sights[one])
        ]
        most = len(terms.base) if switching else max(1, terms.max_unavailable + len(terms.extras))
        self._begin = most - self._moving - len(under_way)

    def may_begin(self) -> bool:
        """Whether one more replica of the base may be changed at the same time."""
        self._begin -= 1
        return self._begin >= 0

    def may_leave(self, replica: str) -> bool:
        """Whether a replica may leave the traffic now; if so it has left for what is asked next."""
        if replica in self._available:
            enough = len(self._available) - 1 >= self._least
            # What is bad must go, even where nobody may be missing: one at a time.
            if not enough and not (self._back and self._moving == 0):
                return False
            self._available.discard(replica)
        self._moving += 1
        return True


def _begun(goal: Goal, held: Held, sight: Sight) -> bool:
    """Whether work at a replica that still serves has begun."""
    if goal.version is None or held.lost:
        return False
    at_work = held.ask is not None or sight.busy or sight.prepared is not None
    return at_work and not has_version(goal, sight)


def _moves(terms: Terms, state: State, sights: Mapping[str, Sight]) -> tuple[State, list[Action]]:
    goals = goals_of(terms, state, sights)
    allowance = _Allowance(terms, state, sights, goals)
    actions: list[Action] = []
    for one in (*terms.extras, *terms.base):
        state, action = _move(state, one, goals[one], sights[one], allowance)
        if action is not None:
            actions.append(action)
    weights = weights_of(terms, state, sights)
    actions = [
        replace(action, weight=weights[action.replica]) if action.verb == "resume" else action
        for action in actions
    ]
    for one, held in state.replicas.items():
        if held.place == "in" and held.weight != weights[one]:
            actions.append(Action(verb="weigh", replica=one, weight=weights[one]))
    return state, actions


def _move(
    state: State, one: str, goal: Goal, sight: Sight, allowance: _Allowance
) -> tuple[State, Action | None]:
    """The next thing to do with a replica, if there is one now."""
    held = state.held(one)
    if held.still:
        return state, None
    if held.place == "leaving":
        return state, Action(verb="drain", replica=one)
    if held.place == "entering":
        return state, Action(verb="resume", replica=one)
    if not sight.reachable or sight.busy:
        return state, None
    if held.ask is not None:
        if _must_drain(sight, held.ask.verb):
            return state, Action(verb="drain", replica=one)
        # Sent again until the agent has heard it: it knows it by its id.
        ask = held.ask
        return state, Action(verb=ask.verb, replica=one, version=ask.version, ask=ask.id)
    if not has_version(goal, sight):
        return _change(state, one, goal, sight, allowance)
    if goal.serves and held.place == "out" and sight.ready:
        # One that was changed has to be found well first; one that is left as it is need only not be unwell.
        if sight.healthy is True or (held.lost and sight.healthy is not False):
            return state.with_held(one, place="entering"), Action(verb="resume", replica=one)
        return state, None
    if not goal.serves and held.place == "in" and not held.lost and allowance.may_leave(one):
        return state.with_held(one, place="leaving"), Action(verb="drain", replica=one)
    return state, None


def _change(
    state: State, one: str, goal: Goal, sight: Sight, allowance: _Allowance
) -> tuple[State, Action | None]:
    """The next step of a replica towards the version that it is to have."""
    held = state.held(one)
    wanted = goal.version
    if wanted is None or wanted == sight.serving:
        return _ask(state, one, "abort", sight.prepared or "")
    begun = _begun(goal, held, sight)
    if held.place == "in" and not begun and not allowance.may_begin():
        return state, None
    if sight.mode == "restart" and sight.prepared != wanted:
        return _ask(state, one, "prepare", wanted)  # beside what serves
    if held.place == "in":
        if not allowance.may_leave(one):
            return state, None
        return state.with_held(one, place="leaving"), Action(verb="drain", replica=one)
    verb = "commit" if sight.prepared == wanted else "prepare"
    if _must_drain(sight, verb):
        return state, Action(verb="drain", replica=one)
    return _ask(state, one, verb, wanted)


def _must_drain(sight: Sight, verb: str) -> bool:
    """Whether weights would change below requests: a spare that nobody drained, or an engine that was started anew."""
    return verb != "abort" and sight.mode == "swap" and sight.is_open


def _ask(state: State, one: str, verb: str, version: str) -> tuple[State, Action]:
    number = state.asked + 1
    ask = Ask(id=f"{number}", verb=verb, version=version)  # type: ignore[arg-type]
    state = replace(state.with_held(one, ask=ask), asked=number)
    return state, Action(verb=ask.verb, replica=one, version=version, ask=ask.id)
