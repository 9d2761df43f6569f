"""What a look at replicas tells: which asks are done, who died, who does not get on. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from textnlp_fast.adapter.rollout.goals import Goal, at_goal
from textnlp_fast.adapter.rollout.state import Held, Sight, State, Terms

__all__ = ["look"]


def look(
    terms: Terms, state: State, sights: Mapping[str, Sight], goals: Mapping[str, Goal], now_s: float
) -> tuple[State, list[tuple[str, str]]]:
    """The state with what was seen, and what failed: replicas with a reason each. Those given up do not fail again."""
    failures: list[tuple[str, str]] = []
    for one in (*terms.extras, *terms.base):
        before = state.held(one)
        changes, why = _seen(terms, state, one, sights[one], goals[one], now_s)
        if why and before.lost:
            changes["still"] = True
        elif why:
            failures.append((one, why))
        state = state.with_held(one, **changes)
    return state, failures


def _seen(
    terms: Terms, state: State, one: str, sight: Sight, goal: Goal, now_s: float
) -> tuple[dict[str, object], str]:
    """What changes of what is held, and why the replica has failed, if it has."""
    held, back = state.held(one), state.direction == "back"
    changes: dict[str, object] = {}
    why = ""
    if sight.reachable and sight.run and sight.run != held.run:
        changes["run"] = sight.run
        # A commit may start the engine anew, and the way back of one that failed, too.
        asked = held.ask is not None and held.ask.verb == "commit" and sight.mode == "restart"
        if held.run and not asked:
            changes["deaths"] = held.deaths + 1
            if not back or held.deaths + 1 >= terms.tries:
                why = f"its process died{_serving(sight)}"
    done = sight.reachable and held.ask is not None and sight.operation == held.ask.id and not sight.busy
    if done and held.ask is not None:
        # What is prepared again and again, and never can be committed, fails as well.
        kept = 0 if held.ask.verb == "commit" else held.tries
        tries = held.tries + 1 if sight.error else kept
        changes |= {"ask": None, "tries": tries}
        if tries >= terms.tries:
            why = why or f"{held.ask.verb} of {held.ask.version} failed {tries} times, last: {sight.error}"
    if not why and sight.reachable and sight.healthy is False and _counts(held, goal, sight, back):
        why = f"unwell{_serving(sight)}: {sight.why or 'its health check fails'}"
    mark = _mark(held, "" if done or held.ask is None else held.ask.id, sight, goal)
    if mark != held.mark:
        return changes | {"mark": mark, "since_s": now_s}, why
    return changes, why or _overdue(terms, held, sight, goal, now_s)


def _serving(sight: Sight) -> str:
    return f" serving {sight.serving}" if sight.serving else ""


def _counts(held: Held, goal: Goal, sight: Sight, back: bool) -> bool:
    """Whether a health check is of a replica that is to be well: it serves, or it has what it is to serve."""
    has = goal.version is not None and goal.version == sight.serving and not sight.busy
    return has or (held.place == "in" and not back)


def _overdue(terms: Terms, held: Held, sight: Sight, goal: Goal, now_s: float) -> str:
    """Why a replica that looks as it did takes too long."""
    for_s = max(0.0, now_s - held.since_s)
    if not sight.reachable:
        return f"its agent did not answer for {for_s:.0f} s: {sight.why}" if for_s > terms.lost_s else ""
    if sight.busy:
        return f"still at work after {for_s:.0f} s" if for_s > terms.operation_s else ""
    if for_s <= terms.patience_s or at_goal(goal, held, sight):
        return ""
    if held.place == "in" and held.ask is None and sight.ready:
        return ""  # it waits for its turn
    waits = "is not ready" if not sight.ready else f"got no further ({held.place})"
    return f"{waits} for {for_s:.0f} s{_serving(sight)}"


def _mark(held: Held, ask: str, sight: Sight, goal: Goal) -> str:
    """All of a replica whose change means that it gets on."""
    if not sight.reachable:
        return "unreachable"
    parts = (held.place, ask, sight.serving, sight.prepared, sight.busy, sight.ready, sight.run)
    return "|".join(str(part) for part in (*parts, goal.version, goal.serves))
