"""What each replica is to be at this point of a rollout, and which share of the traffic it gets. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from textnlp_fast.adapter.rollout.state import Held, Sight, State, Terms

__all__ = ["Goal", "at_goal", "goals_of", "has_version", "weights_of"]

Sights = Mapping[str, Sight]


@dataclass(frozen=True, slots=True)
class Goal:
    """The version that a replica is to have (None: whichever it has), and whether it is to get requests."""

    version: str | None
    serves: bool


def goals_of(terms: Terms, state: State, sights: Sights) -> dict[str, Goal]:
    """What every replica is to be now."""
    if state.direction == "back":
        return _back(terms, state, sights)
    if terms.strategy == "blue-green":
        return _blue_green(terms, state)
    closing = state.step >= len(terms.steps)
    share = terms.steps[min(state.step, len(terms.steps) - 1)]
    many = max(1, -(-len(terms.base) * share // 100))
    goals = {
        replica: Goal(terms.new if place < many else None, True) for place, replica in enumerate(terms.base)
    }
    # Extras stand in until all of the base was watched for long enough.
    return goals | {one: Goal(None, False) if closing else Goal(terms.new, True) for one in terms.extras}


def _blue_green(terms: Terms, state: State) -> dict[str, Goal]:
    green_in = all(state.held(one).place == "in" for one in terms.extras)
    goals = {one: Goal(None, not (state.switched and green_in)) for one in terms.base}
    return goals | {one: Goal(terms.new, state.switched) for one in terms.extras}


def _back(terms: Terms, state: State, sights: Sights) -> dict[str, Goal]:
    goals: dict[str, Goal] = {}
    for one in terms.base:
        if state.held(one).lost:
            # It stays what it is; it serves again if it can.
            goals[one] = Goal(None, sights[one].whole and sights[one].serving is not None)
        elif terms.old is None:
            goals[one] = Goal(None, state.held(one).place in ("in", "entering"))
        else:
            goals[one] = Goal(terms.old, True)
    base_serves = all(
        state.held(one).lost or at_goal(goals[one], state.held(one), sights[one]) for one in terms.base
    )
    for one in terms.extras:
        # What is in the traffic stands in for the base until that is whole.
        goals[one] = Goal(None, not base_serves and state.held(one).place == "in" and sights[one].whole)
    return goals


def has_version(goal: Goal, sight: Sight) -> bool:
    """Whether a replica serves what it is to, and holds nothing else ready."""
    return sight.prepared is None and goal.version in (None, sight.serving)


def at_goal(goal: Goal, held: Held, sight: Sight) -> bool:
    """Whether nothing is left to do with a replica, its weight aside."""
    if not sight.reachable or sight.busy or held.ask is not None or not has_version(goal, sight):
        return False
    if goal.serves:
        return held.place == "in" and sight.ready
    return held.place == "out" and (goal.version is None or (sight.ready and sight.healthy is True))


def weights_of(terms: Terms, state: State, sights: Sights) -> dict[str, int]:
    """Percent for each replica that serves or is about to, so that what is new gets the share of the step."""
    serving = [one for one, held in state.replicas.items() if held.place in ("in", "entering")]
    new = [one for one in serving if sights[one].serving == terms.new]
    old = [one for one in serving if one not in new]
    share = 100
    if state.direction == "forward" and terms.strategy == "canary" and state.step < len(terms.steps):
        share = terms.steps[state.step]
    if share >= 100 or not new or not old:
        return dict.fromkeys(serving, 100)
    # share : 100 - share = new's count * weight : old's count * weight, and the larger weight is 100.
    for_new, for_old = share * len(old), (100 - share) * len(new)
    largest = max(for_new, for_old)
    return {one: max(1, round(100 * (for_new if one in new else for_old) / largest)) for one in serving}
