"""What a provider makes of a bad day: no capacity, no quota, throttling, lost answers, late sight, no credentials."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from gpu.providers.harness import Harness, eventually, request_for
from textnlp_fast.errors import (
    AuthenticationError,
    CapacityError,
    ProviderUnavailableError,
    QuotaError,
    TextnlpFastError,
)

__all__ = ["FaultCases"]


class FaultCases:
    """Nothing is launched twice, nothing is left behind, and the error says what to do."""

    # --- capacity and quota -----------------------------------------------------------------------------------

    def test_no_capacity(self, harness: Harness) -> None:
        harness.no_capacity()
        with pytest.raises(CapacityError) as raised:
            harness.provider().launch(request_for(harness))
        assert raised.value.hint
        assert harness.truth() == {}

    def test_no_capacity_is_not_asked_for_again_and_again(self, harness: Harness) -> None:
        harness.needs("lost answers")  # which is to say: there are requests to count
        harness.no_capacity()
        with pytest.raises(CapacityError):
            harness.provider().launch(request_for(harness))
        assert harness.launches_asked() <= 2

    def test_capacity_that_comes_back_serves_the_same_launch(self, harness: Harness) -> None:
        provider, request = harness.provider(), request_for(harness)
        harness.no_capacity()
        with pytest.raises(CapacityError):
            provider.launch(request)
        harness.heal()
        assert len(provider.launch(request).instances) == 1
        assert len(harness.truth()) == 1

    def test_fewer_than_asked_for_are_taken_and_said(self, harness: Harness) -> None:
        harness.capacity(2)
        outcome = harness.provider().launch(request_for(harness, count=3, min_count=1))
        assert len(outcome.instances) == 2
        assert outcome.missing == 1
        assert outcome.why
        assert set(harness.truth()) == {one.instance_id for one in outcome.instances}

    def test_fewer_than_the_least_are_given_back(self, harness: Harness) -> None:
        harness.capacity(1)
        with pytest.raises(CapacityError):
            harness.provider().launch(request_for(harness, count=3, min_count=2))
        assert eventually(harness.truth, lambda found: not found) == {}

    def test_a_launch_that_got_fewer_stays_what_it_is(self, harness: Harness) -> None:
        harness.capacity(1)
        provider, request = harness.provider(), request_for(harness, count=2, min_count=1)
        (first,) = provider.launch(request).instances
        harness.heal()
        again = harness.provider().launch(request)
        assert [one.instance_id for one in again.instances] == [first.instance_id]
        assert again.missing == 1
        assert len(harness.truth()) == 1

    def test_no_quota(self, harness: Harness) -> None:
        harness.needs("quota")
        harness.no_quota()
        with pytest.raises(QuotaError) as raised:
            harness.provider().launch(request_for(harness))
        assert raised.value.quota
        assert raised.value.hint
        assert harness.truth() == {}

    # --- throttling and lost answers --------------------------------------------------------------------------

    def test_throttling_is_waited_for(self, harness: Harness) -> None:
        harness.needs("throttling")
        harness.throttle(2)
        assert len(harness.provider().launch(request_for(harness)).instances) == 1
        assert len(harness.truth()) == 1

    def test_throttling_is_not_waited_for_without_end(self, harness: Harness) -> None:
        harness.needs("throttling")
        harness.throttle(1000)
        began = time.monotonic()
        with pytest.raises(ProviderUnavailableError):
            harness.provider().launch(request_for(harness))
        assert time.monotonic() - began < 120
        harness.heal()
        assert harness.truth() == {}

    @pytest.mark.parametrize("verb", ["describe", "terminate"])
    def test_throttling_of_other_verbs(self, harness: Harness, verb: str) -> None:
        harness.needs("throttling")
        provider = harness.provider()
        (instance,) = provider.launch(request_for(harness)).instances
        harness.throttle(2)
        if verb == "describe":
            assert len(provider.describe([instance.instance_id])) == 1
        else:
            provider.terminate([instance.instance_id])
            assert eventually(harness.truth, lambda found: not found) == {}

    @pytest.mark.parametrize("count", [1, 3])
    def test_a_lost_answer_launches_once(self, harness: Harness, count: int) -> None:
        harness.needs("lost answers")
        harness.lose_answer("launch")
        outcome = harness.provider().launch(request_for(harness, count=count, min_count=count))
        assert len(outcome.instances) == count
        assert set(harness.truth()) == {one.instance_id for one in outcome.instances}

    def test_a_lost_request_launches_once(self, harness: Harness) -> None:
        harness.needs("lost answers")
        harness.lose_request("launch")
        assert len(harness.provider().launch(request_for(harness)).instances) == 1
        assert len(harness.truth()) == 1

    def test_a_launch_whose_answers_are_all_lost_is_found_later(self, harness: Harness) -> None:
        harness.needs("lost answers")
        harness.lose_answer("launch", times=1000)
        request = request_for(harness)
        with pytest.raises(ProviderUnavailableError):
            harness.provider().launch(request)
        harness.heal()
        (instance,) = harness.provider().launch(request).instances
        assert harness.truth() == {instance.instance_id: request.launch_id}

    @pytest.mark.parametrize("verb", ["terminate", "tag", "describe"])
    def test_lost_answers_of_other_verbs(self, harness: Harness, verb: str) -> None:
        harness.needs("lost answers")
        provider = harness.provider()
        (instance,) = provider.launch(request_for(harness)).instances
        harness.lose_answer(verb)
        if verb == "terminate":
            provider.terminate([instance.instance_id])
            assert eventually(harness.truth, lambda found: not found) == {}
        elif verb == "tag":
            provider.tag([instance.instance_id], {"team": "nlp"})
            assert provider.describe([instance.instance_id])[0].tags["team"] == "nlp"
        else:
            assert provider.describe([instance.instance_id])[0].instance_id == instance.instance_id

    # --- a cloud that shows late what it has done -------------------------------------------------------------

    def test_describing_what_is_not_shown_yet(self, harness: Harness) -> None:
        harness.needs("eventual consistency")
        harness.hide_new(3)
        provider = harness.provider()
        (instance,) = provider.launch(request_for(harness)).instances
        provider.describe([instance.instance_id])  # with it or without it, and no error
        found = eventually(lambda: provider.describe([instance.instance_id]), bool)
        assert found[0].instance_id == instance.instance_id

    def test_launching_again_what_is_not_shown_yet(self, harness: Harness) -> None:
        harness.needs("eventual consistency")
        harness.hide_new(4)
        request = request_for(harness)
        (first,) = harness.provider().launch(request).instances
        (second,) = harness.provider().launch(request).instances
        assert first.instance_id == second.instance_id
        assert len(harness.truth()) == 1

    def test_terminating_what_is_not_shown_yet_ends_it(self, harness: Harness) -> None:
        harness.needs("eventual consistency")
        harness.hide_new(3)
        provider = harness.provider()
        (instance,) = provider.launch(request_for(harness)).instances
        provider.terminate([instance.instance_id])
        assert eventually(harness.truth, lambda found: not found, within_s=10) == {}

    def test_tagging_what_is_not_shown_yet(self, harness: Harness) -> None:
        harness.needs("eventual consistency")
        harness.hide_new(3)
        provider = harness.provider()
        (instance,) = provider.launch(request_for(harness)).instances
        provider.tag([instance.instance_id], {"team": "nlp"})
        found = eventually(lambda: provider.describe([instance.instance_id]), bool)
        assert found[0].tags["team"] == "nlp"

    # --- credentials ------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("verb", ["launch", "describe", "list", "terminate", "zones"])
    def test_expired_credentials(self, harness: Harness, verb: str) -> None:
        harness.needs("credentials")
        provider = harness.provider()
        (instance,) = provider.launch(request_for(harness)).instances
        harness.expire_credentials()
        verbs = {
            "launch": lambda: provider.launch(request_for(harness)),
            "describe": lambda: provider.describe([instance.instance_id]),
            "list": provider.list_instances,
            "terminate": lambda: provider.terminate([instance.instance_id]),
            "zones": lambda: provider.zones(harness.instance_type),
        }
        with pytest.raises(AuthenticationError) as raised:
            verbs[verb]()
        assert raised.value.hint
        harness.heal()
        assert len(harness.truth()) == 1

    def test_credentials_that_may_not(self, harness: Harness) -> None:
        harness.needs("credentials")
        harness.deny()
        with pytest.raises(AuthenticationError) as raised:
            harness.provider().launch(request_for(harness))
        assert raised.value.hint
        harness.heal()
        assert harness.truth() == {}

    # --- what errors and imports look like --------------------------------------------------------------------

    def test_an_error_is_one_line_and_a_hint(self, harness: Harness) -> None:
        harness.no_capacity()
        with pytest.raises(TextnlpFastError) as raised:
            harness.provider().launch(request_for(harness))
        assert "\n" not in raised.value.args[0]
        assert harness.region in raised.value.args[0] or harness.instance_type in raised.value.args[0]

    def test_no_sdk_is_imported_before_a_provider_is_made(self, harness: Harness) -> None:
        if harness.sdk is None:
            pytest.skip(f"{harness.name}: there is no SDK")
        script = (
            "import sys; import textnlp_fast.gpu, textnlp_fast.gpu.providers.registry, "
            f"textnlp_fast.gpu.providers.contract; sys.exit({harness.sdk!r} in sys.modules)"
        )
        assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
