"""The bridge to SkyPilot, over a stand-in for its SDK; where SkyPilot is installed, the stand-in is held against it."""

from __future__ import annotations

import inspect
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest

from fakes.sky import FakeSky, Resources
from gpu.providers.contract_cases import ProviderContract
from gpu.providers.harness import Harness, request_for
from textnlp_fast import errors
from textnlp_fast.gpu import Market
from textnlp_fast.gpu.providers import skypilot_errors
from textnlp_fast.gpu.providers.contract import LAUNCH_TAG, Provider
from textnlp_fast.gpu.providers.skypilot import SkyPilotProvider

_FORGETS = "skypilot: what has ended is off SkyPilot's books; the manager's journal remembers"
_NO_TAGS = "skypilot: labels are given at launch, and changed by nobody later"


class SkyHarness(Harness):
    name = "skypilot"
    region = "lambda/us-east-1"
    bad_region = "lambda/nowhere"
    instance_type = "gpu_1x_h100_pcie"
    other_type = "gpu_8x_h100_sxm5"
    bad_type = "no-such-type"
    zone = "lambda/us-east-1"
    bad_zone = "q"
    cannot: ClassVar[dict[str, str]] = {
        "zones": "SkyPilot chooses the zone",
        "images": "SkyPilot's server looks images up, not its SDK",
        "price cap": "the bridge holds it against price_of",
        "quota": "SkyPilot tells of quotas in the words of the cloud",
        "eventual consistency": "SkyPilot's server keeps the state",
        "regions": "SkyPilot's catalogue knows them, which its own client fetches",
    }

    def __init__(self, sky: FakeSky) -> None:
        self.sky = sky

    def provider(self, *, region: str | None = None, **options: Any) -> Provider:
        quick: dict[str, Any] = {"first_pause_s": 0.01, "deadline_s": 30.0}
        return SkyPilotProvider(region or self.region, **{**quick, **options})

    def truth(self) -> dict[str, str | None]:
        return {
            name: one["handle"].launched_resources.labels.get(LAUNCH_TAG)
            for name, one in self.sky.clusters.items()
        }

    def heal(self) -> None:
        self.sky.refusals.clear()
        self.sky.capacity = 1000

    def no_capacity(self) -> None:
        self.sky.capacity = 0

    def capacity(self, count: int) -> None:
        self.sky.capacity = count

    def throttle(self, times: int) -> None:
        self.sky.refusals.append(("*", "ApiServerConnectionError", times, False))

    def lose_answer(self, verb: str, times: int = 1) -> None:
        verb = {"terminate": "down", "describe": "status"}.get(verb, verb)
        self.sky.refusals.append((verb, "ApiServerConnectionError", times, True))

    def lose_request(self, verb: str, times: int = 1) -> None:
        self.sky.refusals.append((verb, "ApiServerConnectionError", times, False))

    def expire_credentials(self) -> None:
        self.sky.refusals.append(("*", "NoCloudAccessError", 10**9, False))

    def deny(self) -> None:
        self.sky.refusals.append(("launch", "NoCloudAccessError", 10**9, False))

    def launches_asked(self) -> int:
        return self.sky.launches

    def user_data_of(self, instance_id: str) -> str:
        return str(self.sky.tasks[instance_id].setup)

    def disk_gib_of(self, instance_id: str) -> int:
        resources = self.sky.tasks[instance_id].resources
        assert resources is not None
        return resources.disk_size


@pytest.fixture
def harness(monkeypatch: pytest.MonkeyPatch) -> Iterator[SkyHarness]:
    sky = FakeSky()
    monkeypatch.setitem(sys.modules, "sky", sky)
    yield SkyHarness(sky)


class TestContract(ProviderContract):
    def test_a_launch_that_has_ended_is_not_begun_again(self, harness: Harness) -> None:
        pytest.skip(_FORGETS)

    def test_a_launch_that_got_fewer_stays_what_it_is(self, harness: Harness) -> None:
        pytest.skip(_FORGETS)

    def test_tags_are_added_and_replaced(self, harness: Harness) -> None:
        pytest.skip(_NO_TAGS)

    def test_tagging_what_does_not_exist(self, harness: Harness) -> None:
        pytest.skip(_NO_TAGS)

    def test_lost_answers_of_other_verbs(self, harness: Harness, verb: str = "") -> None:
        for lost in ("down", "status"):
            provider = harness.provider()
            (one,) = provider.launch(request_for(harness)).instances
            harness.lose_answer(lost)
            if lost == "down":
                provider.terminate([one.instance_id])
                assert harness.truth() == {}
            else:
                assert provider.describe([one.instance_id]) == [one]

    def test_expired_credentials(self, harness: Harness, verb: str = "") -> None:
        provider = harness.provider()
        (one,) = provider.launch(request_for(harness)).instances
        harness.expire_credentials()
        for ask in (
            lambda: provider.launch(request_for(harness)),
            lambda: provider.describe([one.instance_id]),
            provider.list_instances,
            lambda: provider.terminate([one.instance_id]),
        ):
            with pytest.raises(errors.AuthenticationError, match="NoCloudAccess") as caught:
                ask()
            assert "sky check" in caught.value.hint
        assert len(harness.truth()) == 1

    def test_no_zone_offers_what_does_not_exist(self, harness: Harness) -> None:
        pytest.skip("skypilot: SkyPilot chooses the zone")


def test_labels_cannot_be_changed_and_that_is_said(harness: SkyHarness) -> None:
    (one,) = harness.provider().launch(request_for(harness)).instances
    with pytest.raises(errors.InvalidInputError, match="at launch"):
        harness.provider().tag([one.instance_id], {"team": "nlp"})


def test_clusters_of_other_clouds_and_regions_are_not_ours(harness: SkyHarness) -> None:
    (one,) = harness.provider().launch(request_for(harness)).instances
    assert harness.provider(region="lambda/us-west-1").describe([one.instance_id]) == []
    assert harness.provider(region="lambda").describe([one.instance_id])[0].instance_id == one.instance_id
    assert harness.provider(region="runpod").list_instances() == []
    with pytest.raises(errors.UnknownRegionError, match="cloud/region"):
        harness.provider(region="Lambda Cloud")
    with pytest.raises(errors.InvalidInputError, match="not a valid cloud"):
        harness.provider(region="nowhere/x").launch(request_for(harness))


def test_accelerators_spot_and_labels_are_asked_for(harness: SkyHarness) -> None:
    request = request_for(harness, instance_type="H100:8", market=Market.SPOT, image="docker:ubuntu")
    harness.provider().launch(request)
    (task,) = harness.sky.tasks.values()
    resources = task.resources
    assert isinstance(resources, Resources)
    assert (resources.accelerators, resources.instance_type, resources.use_spot) == ("H100:8", None, True)
    assert resources.image_id == "docker:ubuntu" and resources.labels[LAUNCH_TAG] == request.launch_id


def test_what_takes_too_long_is_told_and_found_again(
    harness: SkyHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    request, gate, original = request_for(harness), threading.Event(), harness.sky.get

    def get(request_id: str) -> Any:
        if harness.sky._requests[request_id][0] == "launch":
            gate.wait(20)
        return original(request_id)

    monkeypatch.setattr(harness.sky, "get", get)
    with pytest.raises(errors.ProviderUnavailableError, match="in time"):
        harness.provider(deadline_s=0.5).launch(request)
    gate.set()
    (one,) = harness.provider().launch(request).instances
    assert harness.truth() == {one.instance_id: request.launch_id}


def test_a_quota_in_the_history_of_failures_is_one() -> None:
    error = type("ResourcesUnavailableError", (Exception,), {"__module__": "sky.exceptions"})("nothing")
    assert isinstance(skypilot_errors.meaning_of(error, action="a", place="p").error, errors.CapacityError)
    error.failover_history = [ValueError("You have reached your quota of GPUs")]  # type: ignore[attr-defined]
    assert isinstance(skypilot_errors.meaning_of(error, action="a", place="p").error, errors.QuotaError)
    with pytest.raises(ZeroDivisionError):
        skypilot_errors.meaning_of(ZeroDivisionError(), action="a", place="p")


def test_the_sdk_is_imported_when_a_provider_is_made_and_not_before() -> None:
    code = (
        "import sys; sys.modules['sky'] = None\n"
        "from textnlp_fast.gpu.providers import skypilot\n"
        "try: skypilot.SkyPilotProvider('lambda/us-east-1')\n"
        "except ImportError as error: print(type(error).__name__, error.hint)\n"
    )
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert told.split(None, 1) == ["MissingPackageError", "Run: pip install 'textnlp-fast[skypilot]'\n"]


def test_the_stand_in_has_the_signatures_of_skypilot() -> None:
    sky = pytest.importorskip("sky", reason="needs SkyPilot, which is not among the tests' packages")
    for name in ("launch", "status", "down", "stop", "start", "get"):
        real = inspect.signature(getattr(sky, name)).parameters
        fake = inspect.signature(getattr(FakeSky, name)).parameters
        assert set(fake) - {"self"} <= set(real), name
        assert next(iter(real)) == next(one for one in fake if one != "self"), name
    for ours, theirs in ((Resources, sky.Resources), (FakeSky.Task, sky.Task)):
        wanted = set(inspect.signature(ours).parameters) - {"resources"}
        assert wanted <= set(inspect.signature(theirs.__init__).parameters), ours
    assert hasattr(sky.Task, "set_resources") and sky.StatusRefreshMode.AUTO
    assert {one.value for one in sky.ClusterStatus} <= {"INIT", "UP", "STOPPED", "AUTOSTOPPING", "PENDING"}
    from sky import exceptions  # noqa: PLC0415
    from sky.schemas.api import responses  # noqa: PLC0415

    assert [name for name in sorted(skypilot_errors.NAMES) if not hasattr(exceptions, name)] == []
    fields = set(responses.StatusResponse.model_fields)
    assert {
        "name",
        "status",
        "handle",
        "launched_at",
        "cloud",
        "region",
        "labels",
        "init_status_reason",
    } <= fields
