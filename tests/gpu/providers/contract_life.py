"""Looking at instances, and what becomes of them: stop, start, terminate, tags, lists, zones."""

from __future__ import annotations

import pytest

from gpu.providers.harness import Harness, eventually, request_for
from textnlp_fast.errors import InstanceNotFoundError, TextnlpFastError
from textnlp_fast.gpu.providers.contract import OWNER_TAG, Instance, InstanceState, Provider

__all__ = ["LifeCases"]

_GONE = (InstanceState.TERMINATING, InstanceState.TERMINATED)


def _launched(harness: Harness, provider: Provider, **changes: object) -> Instance:
    return provider.launch(request_for(harness, **changes)).instances[0]


def _state(provider: Provider, instance_id: str, wanted: InstanceState) -> Instance:
    found = eventually(
        lambda: provider.describe([instance_id]), lambda seen: bool(seen) and seen[0].state is wanted
    )
    return found[0]


class LifeCases:
    """Every verb may be repeated, and takes what it does not know as the contract says."""

    # --- describe ---------------------------------------------------------------------------------------------

    def test_describes_in_the_order_asked_for(self, harness: Harness) -> None:
        provider = harness.provider()
        ids = [one.instance_id for one in provider.launch(request_for(harness, count=3)).instances]
        for order in (ids, ids[::-1], [ids[1], ids[2], ids[0]]):
            assert [one.instance_id for one in provider.describe(order)] == order

    def test_describing_nothing(self, harness: Harness) -> None:
        assert harness.provider().describe([]) == []

    @pytest.mark.parametrize("unknown", ["i-0123456789abcdef0", "no such thing", "i-*", ""])
    def test_unknown_ids_are_left_out(self, harness: Harness, unknown: str) -> None:
        provider = harness.provider()
        instance = _launched(harness, provider)
        assert provider.describe([unknown]) == []
        found = provider.describe([unknown, instance.instance_id])
        assert [one.instance_id for one in found] == [instance.instance_id]

    def test_an_id_given_twice(self, harness: Harness) -> None:
        provider = harness.provider()
        one = _launched(harness, provider).instance_id
        assert {found.instance_id for found in provider.describe([one, one])} == {one}

    def test_it_comes_to_run(self, harness: Harness) -> None:
        provider = harness.provider()
        instance = _launched(harness, provider)
        running = _state(provider, instance.instance_id, InstanceState.RUNNING)
        assert running.state.alive

    # --- list -------------------------------------------------------------------------------------------------

    def test_lists_by_tag(self, harness: Harness) -> None:
        provider = harness.provider()
        mine = _launched(harness, provider, tags={OWNER_TAG: "fleet-a", "team": "nlp"})
        _launched(harness, provider, tags={OWNER_TAG: "fleet-b", "team": "nlp"})
        found = provider.list_instances({OWNER_TAG: "fleet-a"})
        assert [one.instance_id for one in found] == [mine.instance_id]

    def test_lists_by_all_of_the_tags(self, harness: Harness) -> None:
        provider = harness.provider()
        wanted = _launched(harness, provider, tags={OWNER_TAG: "fleet-a", "team": "nlp"})
        _launched(harness, provider, tags={OWNER_TAG: "fleet-a", "team": "vision"})
        found = provider.list_instances({OWNER_TAG: "fleet-a", "team": "nlp"})
        assert [one.instance_id for one in found] == [wanted.instance_id]

    def test_lists_all_owners_where_no_tag_is_named(self, harness: Harness) -> None:
        provider = harness.provider()
        ids = {
            _launched(harness, provider, tags={OWNER_TAG: owner}).instance_id
            for owner in ("fleet-a", "fleet-b")
        }
        assert {one.instance_id for one in provider.list_instances()} == ids

    def test_lists_nothing_of_a_tag_that_nobody_has(self, harness: Harness) -> None:
        provider = harness.provider()
        _launched(harness, provider)
        assert provider.list_instances({OWNER_TAG: "nobody"}) == []
        assert provider.list_instances({"no-such-tag": "fleet-a"}) == []

    def test_a_star_in_a_tag_is_a_star(self, harness: Harness) -> None:
        provider = harness.provider()
        _launched(harness, provider)
        assert provider.list_instances({OWNER_TAG: "fleet*"}) == []

    def test_lists_more_than_a_page(self, harness: Harness) -> None:
        provider = harness.provider()
        requests = [request_for(harness, count=30, min_count=30) for _ in range(4)]
        launched = {one.instance_id for r in requests for one in provider.launch(r).instances}
        assert len(launched) == 120
        found = provider.list_instances({OWNER_TAG: "fleet-a"})
        assert {one.instance_id for one in found} == launched
        assert len(found) == 120
        assert len(provider.describe(sorted(launched))) == 120

    def test_what_has_ended_is_not_listed_as_alive(self, harness: Harness) -> None:
        provider = harness.provider()
        ended, stays = _launched(harness, provider), _launched(harness, provider)
        provider.terminate([ended.instance_id])
        alive = eventually(
            lambda: [one.instance_id for one in provider.list_instances() if one.state.alive],
            lambda found: ended.instance_id not in found,
        )
        assert alive == [stays.instance_id]

    # --- tag --------------------------------------------------------------------------------------------------

    def test_tags_are_added_and_replaced(self, harness: Harness) -> None:
        provider = harness.provider()
        instance = _launched(harness, provider, tags={OWNER_TAG: "fleet-a", "team": "nlp"})
        provider.tag([instance.instance_id], {"team": "vision", "drain": "yes"})
        (found,) = provider.describe([instance.instance_id])
        assert found.tags["team"] == "vision"
        assert found.tags["drain"] == "yes"
        assert found.tags[OWNER_TAG] == "fleet-a"
        assert found.launch_id == instance.launch_id

    def test_tagging_with_nothing(self, harness: Harness) -> None:
        provider = harness.provider()
        instance = _launched(harness, provider)
        provider.tag([instance.instance_id], {})
        provider.tag([], {"team": "nlp"})
        assert provider.describe([instance.instance_id])[0].tags == instance.tags

    def test_tagging_what_does_not_exist(self, harness: Harness) -> None:
        with pytest.raises(InstanceNotFoundError):
            harness.provider().tag(["i-0123456789abcdef0"], {"team": "nlp"})

    # --- stop and start ---------------------------------------------------------------------------------------

    def test_stops_and_starts(self, harness: Harness) -> None:
        harness.needs("stop")
        provider = harness.provider()
        instance = _launched(harness, provider)
        _state(provider, instance.instance_id, InstanceState.RUNNING)
        provider.stop([instance.instance_id])
        stopped = _state(provider, instance.instance_id, InstanceState.STOPPED)
        assert stopped.state.alive
        provider.start([instance.instance_id])
        _state(provider, instance.instance_id, InstanceState.RUNNING)

    def test_stopping_and_starting_may_be_repeated(self, harness: Harness) -> None:
        harness.needs("stop")
        provider = harness.provider()
        instance = _launched(harness, provider)
        _state(provider, instance.instance_id, InstanceState.RUNNING)
        provider.start([instance.instance_id])
        provider.stop([instance.instance_id])
        _state(provider, instance.instance_id, InstanceState.STOPPED)
        provider.stop([instance.instance_id])
        assert _state(provider, instance.instance_id, InstanceState.STOPPED)
        provider.start([instance.instance_id])
        _state(provider, instance.instance_id, InstanceState.RUNNING)
        provider.start([instance.instance_id])
        assert _state(provider, instance.instance_id, InstanceState.RUNNING)

    @pytest.mark.parametrize("verb", ["stop", "start"])
    def test_what_does_not_exist_is_not_stopped_or_started(self, harness: Harness, verb: str) -> None:
        harness.needs("stop")
        with pytest.raises(InstanceNotFoundError):
            getattr(harness.provider(), verb)(["i-0123456789abcdef0"])

    @pytest.mark.parametrize("verb", ["stop", "start", "terminate"])
    def test_nothing_to_do(self, harness: Harness, verb: str) -> None:
        getattr(harness.provider(), verb)([])

    def test_what_has_ended_is_not_started(self, harness: Harness) -> None:
        harness.needs("stop")
        provider = harness.provider()
        instance = _launched(harness, provider)
        provider.terminate([instance.instance_id])
        eventually(harness.truth, lambda found: not found)
        with pytest.raises(TextnlpFastError):
            provider.start([instance.instance_id])
        assert harness.truth() == {}

    # --- terminate --------------------------------------------------------------------------------------------

    def test_terminates(self, harness: Harness) -> None:
        provider = harness.provider()
        instance = _launched(harness, provider)
        provider.terminate([instance.instance_id])
        assert eventually(harness.truth, lambda found: not found) == {}
        assert all(one.state in _GONE for one in provider.describe([instance.instance_id]))

    def test_terminating_may_be_repeated(self, harness: Harness) -> None:
        provider = harness.provider()
        instance = _launched(harness, provider)
        for _ in range(3):
            provider.terminate([instance.instance_id])
        harness.provider().terminate([instance.instance_id])
        assert eventually(harness.truth, lambda found: not found) == {}

    @pytest.mark.parametrize("unknown", ["i-0123456789abcdef0", "no-such-thing"])
    def test_what_does_not_exist_is_taken_as_ended(self, harness: Harness, unknown: str) -> None:
        harness.provider().terminate([unknown])

    def test_an_unknown_id_keeps_no_other_alive(self, harness: Harness) -> None:
        provider = harness.provider()
        first, second = _launched(harness, provider), _launched(harness, provider)
        ids = [first.instance_id, "i-0123456789abcdef0", "no-such-thing", second.instance_id]
        harness.provider().terminate(ids)
        assert eventually(harness.truth, lambda found: not found) == {}

    def test_terminates_no_other(self, harness: Harness) -> None:
        provider = harness.provider()
        first, second = provider.launch(request_for(harness, count=2, min_count=2)).instances
        provider.terminate([first.instance_id])
        left = eventually(harness.truth, lambda found: first.instance_id not in found)
        assert set(left) == {second.instance_id}

    def test_terminates_what_is_stopped(self, harness: Harness) -> None:
        harness.needs("stop")
        provider = harness.provider()
        instance = _launched(harness, provider)
        _state(provider, instance.instance_id, InstanceState.RUNNING)
        provider.stop([instance.instance_id])
        _state(provider, instance.instance_id, InstanceState.STOPPED)
        provider.terminate([instance.instance_id])
        assert eventually(harness.truth, lambda found: not found) == {}

    # --- zones ------------------------------------------------------------------------------------------------

    def test_zones_are_in_a_stable_order(self, harness: Harness) -> None:
        first = harness.provider().zones(harness.instance_type)
        assert first
        assert first == harness.provider().zones(harness.instance_type)
        assert len(set(first)) == len(first)
        if harness.zone is not None:
            assert harness.zone in first

    def test_no_zone_offers_what_does_not_exist(self, harness: Harness) -> None:
        try:
            assert harness.provider().zones(harness.bad_type) == []
        except TextnlpFastError as error:
            assert harness.bad_type in str(error)
