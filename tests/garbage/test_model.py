"""Every interleaving of the rules by which collections run beside pushes; and no rule is there for nothing."""

from __future__ import annotations

import os

import pytest

from garbage.model import (
    ABSENT,
    RULES,
    Collector,
    Deleter,
    Document,
    Pusher,
    World,
    search,
    steps,
)

NIGHTLY = "TEXTNLP_FAST_NIGHTLY" in os.environ

PUBLISHED = ("manifest", 9, 0)
SCENARIOS = {
    "a push wants what a deleted version leaves": World(
        frozenset({0}), (PUBLISHED, ABSENT), (Pusher(0, 1), Collector(1), Deleter(2, 0))
    ),
    "two pushes of one version, which is deleted again": World(
        frozenset({0}), (ABSENT,), (Pusher(0, 0, tries=1), Pusher(1, 0, tries=1), Collector(1), Deleter(2, 0))
    ),
    "a version that is stored anew": World(
        frozenset({0}), (PUBLISHED,), (Pusher(0, 0, rewrites=True), Collector(1), Deleter(2, 0))
    ),
    "two collectors": World(
        frozenset({0}),
        (ABSENT,),
        (Pusher(0, 0, tries=1), Collector(1, tries=1, fences=0), Collector(2, tries=1, fences=0)),
    ),
    "two collectors, and a name that was swept": World(
        frozenset({2}),
        (ABSENT,),
        (Pusher(0, 0, tries=1), Collector(1, fences=0), Collector(2, tries=1, fences=0)),
        Document(swept=frozenset({0})),
    ),
}
LARGE = {
    "two collectors that take pushes for dead": World(
        frozenset({0}), (ABSENT,), (Pusher(0, 0), Collector(1, tries=1), Collector(2, tries=1))
    ),
    "two pushes, two collectors": World(
        frozenset({0}),
        (ABSENT, ABSENT),
        (
            Pusher(0, 0, tries=1),
            Pusher(1, 1, tries=1),
            Collector(1, fences=0),
            Collector(2, tries=1, fences=0),
        ),
    ),
}
# Where a broken rule does its harm.
HARMED = {
    "read again after a conflict": "two collectors, and a name that was swept",
    "sentences are final": "two collectors",
    "fence rewrites": "a version that is stored anew",
    "keys do not come back": "two pushes of one version, which is deleted again",
}


@pytest.mark.parametrize("scenario", [*SCENARIOS, *(LARGE if NIGHTLY else ())])
def test_no_order_of_steps_harms_a_version(scenario: str) -> None:
    worlds, path = search((SCENARIOS | LARGE)[scenario])
    assert path is None, "\n".join(map(str, path or ()))
    assert worlds > 500


@pytest.mark.parametrize("rule", sorted(RULES))
def test_without_any_one_of_the_rules_a_version_is_harmed(rule: str) -> None:
    scenario = HARMED.get(rule, "a push wants what a deleted version leaves")
    _, path = search(SCENARIOS[scenario], RULES - {rule})
    assert path is not None


def test_a_push_and_a_collection_that_are_left_alone_both_end() -> None:
    seen: set[str] = set()
    waiting, known = [SCENARIOS["a push wants what a deleted version leaves"]], set()
    while waiting:
        world = waiting.pop()
        following = list(steps(world, RULES))
        if not following:
            seen |= {f"{type(process).__name__} {process.at}" for process in world.processes}
            assert not world.intents
            assert world.document.sentenced == frozenset()
        for after in following:
            if after not in known:
                known.add(after)
                waiting.append(after)
    assert seen == {"Pusher end", "Collector end", "Deleter end"}
