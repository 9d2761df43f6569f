"""The provider of Google Cloud: its own client against a fake that Google's discovery document checks."""

from __future__ import annotations

import datetime
import itertools
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("google.cloud.compute_v1", reason="needs google-cloud-compute")
pytest.importorskip("googleapiclient", reason="needs google-api-python-client, for the discovery document")

from google.auth.credentials import AnonymousCredentials
from google.oauth2.credentials import Credentials

from fakes.control_plane import ControlPlaneFault
from fakes.discovery import Discovery, Mismatch
from fakes.gce import GceFake
from fakes.gce.orders import check_label
from fakes.gce.state import ApiError
from textnlp_fast import errors
from textnlp_fast.gpu import Market
from textnlp_fast.gpu.providers import gcp_requests
from textnlp_fast.gpu.providers.calling import Patience
from textnlp_fast.gpu.providers.contract import (
    LAUNCH_TAG,
    OWNER_TAG,
    InstanceState,
    LaunchRequest,
)
from textnlp_fast.gpu.providers.gcp import GcpProvider

IMAGE = "projects/images/global/images/family/ubuntu-with-driver"
REGION, ZONE = "us-central1", "us-central1-a"
L4 = "g2-standard-4"
Make = Callable[..., GcpProvider]


@pytest.fixture
def fake() -> Iterator[GceFake]:
    regions = {
        REGION: {
            ZONE: {"nvidia-l4": 4, "nvidia-tesla-t4": 4, "nvidia-h100-80gb": 8, "nvidia-b200": 8},
            "us-central1-b": {"nvidia-l4": 2, "nvidia-tesla-a100": 1},
            "us-central1-c": {},
        },
        "europe-west4": {"europe-west4-a": {"nvidia-l4": 1}},
    }
    with GceFake(regions) as server:
        yield server
        assert server.violations == []


@pytest.fixture
def make(fake: GceFake) -> Make:
    def made(region: str = REGION, **options: Any) -> GcpProvider:
        ready = {
            "project": "test-project",
            "image": IMAGE,
            "credentials": AnonymousCredentials(),
            "endpoint_url": fake.endpoint_url,
            "first_pause_s": 0.005,
            "deadline_s": 30.0,
        }
        return GcpProvider(region, **{**ready, **options})

    return made


def order(launch_id: str = "launch-1", **more: Any) -> LaunchRequest:
    return LaunchRequest(**{"launch_id": launch_id, "instance_type": L4, "zone": ZONE, **more})


def free(fake: GceFake, zone: str = ZONE) -> int:
    return fake.state.zone_of(zone)["nvidia-l4"]


# --- what is asked --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("instance_type", "accelerators", "disk", "nic"),
    [
        ("n1-standard-8+nvidia-tesla-t4x2", [("nvidia-tesla-t4", 2)], "pd-balanced", ""),
        (L4, [], "pd-balanced", ""),
        ("a3-highgpu-8g", [], "pd-balanced", "GVNIC"),
        ("a4-highgpu-8g", [], "hyperdisk-balanced", "GVNIC"),
    ],
)
def test_each_family_gets_its_gpus_disk_and_network_card(
    fake: GceFake, make: Make, instance_type: str, accelerators: list[Any], disk: str, nic: str
) -> None:
    made = make().launch(order(instance_type=instance_type, disk_gib=200)).instances[0]
    assert made.instance_type == instance_type and made.state is InstanceState.RUNNING
    asked = fake.asked("POST", "bulkInsert")[0].body["instanceProperties"]
    given_gpus = [
        (one["acceleratorType"], one["acceleratorCount"]) for one in asked.get("guestAccelerators", [])
    ]
    assert given_gpus == accelerators
    boot = asked["disks"][0]
    assert boot["initializeParams"]["diskType"] == disk and boot["autoDelete"] and boot["boot"]
    assert int(boot["initializeParams"]["diskSizeGb"]) == 200
    assert asked["networkInterfaces"][0].get("nicType", "") == nic
    assert "accessConfigs" not in asked["networkInterfaces"][0] and "serviceAccounts" not in asked
    assert asked["scheduling"] == {"onHostMaintenance": "TERMINATE", "automaticRestart": True}


def test_spot_is_spot_and_stops(fake: GceFake, make: Make) -> None:
    made = make(external_ip=True, service_account="gpu@p.iam.gserviceaccount.com", subnetwork="s").launch(
        order(market=Market.SPOT, user_data="#!/bin/sh\necho hello")
    )
    assert made.instances[0].market is Market.SPOT and made.instances[0].public_ip
    asked = fake.asked("POST", "bulkInsert")[0].body["instanceProperties"]
    assert asked["scheduling"] == {
        "onHostMaintenance": "TERMINATE",
        "automaticRestart": False,
        "provisioningModel": "SPOT",
        "instanceTerminationAction": "STOP",
    }
    assert asked["metadata"]["items"] == [{"key": "startup-script", "value": "#!/bin/sh\necho hello"}]
    assert asked["serviceAccounts"][0]["email"] == "gpu@p.iam.gserviceaccount.com"
    assert asked["networkInterfaces"][0]["subnetwork"] == "s"


def test_cloud_init_has_a_key_of_its_own(fake: GceFake, make: Make) -> None:
    make().launch(order(user_data="#cloud-config\nruncmd: []"))
    asked = fake.asked("POST", "bulkInsert")[0].body["instanceProperties"]
    assert asked["metadata"]["items"][0]["key"] == "user-data"


def test_a_region_chooses_the_zone_that_has_it(fake: GceFake, make: Make) -> None:
    fake.state.zone_of(ZONE)["nvidia-l4"] = 0
    outcome = make().launch(order(zone=None, count=2, min_count=2))
    assert {one.zone for one in outcome.instances} == {"us-central1-b"} and free(fake, "us-central1-b") == 0
    assert "/regions/" in fake.asked("POST", "bulkInsert")[0].path
    again = make().launch(order(zone=None, count=2, min_count=2))
    assert {one.instance_id for one in again.instances} == {one.instance_id for one in outcome.instances}


def test_the_fake_refuses_what_google_does_not_know() -> None:
    document = Discovery.installed("compute.v1")
    name, names = document.route("POST", "/compute/v1/projects/p/zones/us-central1-a/instances/bulkInsert")
    document.check_request(name, names, {"requestId": "u"}, {"count": "1"})
    for query, body in [
        ({"request": "u"}, {}),
        ({}, {"size": 1}),
        ({}, {"instanceProperties": {"scheduling": {"onHostMaintenance": "DELETE"}}}),
        ({}, {"count": "many"}),
    ]:
        with pytest.raises(Mismatch):
            document.check_request(name, names, query, body)
    with pytest.raises(Mismatch):
        document.check_answer(name, {"status": "OVER"})


@given(st.text(max_size=80) | st.from_regex(r"[a-z0-9_-]{0,66}", fullmatch=True), st.text(max_size=70))
def test_labels_are_refused_that_google_refuses(key: str, value: str) -> None:
    try:
        check_label(key, value)
    except ApiError:
        with pytest.raises(errors.InvalidInputError):
            gcp_requests.check_labels({key: value})
    else:
        if key.isascii() and value.isascii():
            gcp_requests.check_labels({key: value})


@given(st.text(max_size=90))
def test_any_text_is_an_instance_type_or_refused(text: str) -> None:
    try:
        machine = gcp_requests.parse_machine(text)
    except errors.InvalidInputError:
        return
    suffix = f"+{machine.accelerator}x{machine.accelerator_count}" if machine.accelerator else ""
    assert machine.machine_type + suffix == text


@given(st.text(max_size=90))
def test_any_text_is_an_id_of_the_region_or_unknown(text: str) -> None:
    place = gcp_requests.parse_instance_id(text, REGION)
    assert place is None or "/".join(place) == text
    assert gcp_requests.parse_instance_id(f"{ZONE}/a/../b", REGION) is None


# --- launching once -------------------------------------------------------------------------------------------


class _Killed(BaseException):
    """The process is gone: nothing catches it."""


def _killed_after(requests: int, monkeypatch: pytest.MonkeyPatch, *, answered: bool) -> None:
    counter, original = itertools.count(), Patience.call

    def call(self: Patience, *arguments: Any, **options: Any) -> Any:
        last = next(counter) == requests
        if last and not answered:
            raise _Killed
        answer = original(self, *arguments, **options)
        if last:
            raise _Killed
        return answer

    monkeypatch.setattr(Patience, "call", call)


@pytest.mark.parametrize("zone", [ZONE, None])
@pytest.mark.parametrize("answered", [False, True])
def test_killed_at_any_request_and_launched_again_there_are_as_many_as_asked_for(
    fake: GceFake, make: Make, monkeypatch: pytest.MonkeyPatch, zone: str | None, answered: bool
) -> None:
    survived = 0
    for requests in range(40):
        request = order(f"launch-{requests}", zone=zone, count=2, min_count=2)
        with monkeypatch.context() as patched:
            _killed_after(requests, patched, answered=answered)
            try:
                make().launch(request)
                survived += 1
            except _Killed:
                pass
        outcome = make().launch(request)
        assert sorted(one.name for one in fake.machines()) == [
            f"launch-{requests}-m0",
            f"launch-{requests}-m1",
        ]
        assert len(outcome.instances) == 2 and outcome.missing == 0
        make().terminate([one.instance_id for one in outcome.instances])
        assert fake.machines() == []
        if survived == 2:
            break
    assert survived == 2 and requests > 8


@pytest.mark.parametrize("kind", ["lose_answer", "lose_request"])
def test_a_lost_answer_anywhere_changes_nothing(fake: GceFake, make: Make, kind: Any) -> None:
    for after in range(12):
        fault = fake.inject(ControlPlaneFault(kind, after=after))
        outcome = make().launch(order(f"launch-{after}", count=2, min_count=2))
        fake.heal()
        assert len(fake.machines()) == len(outcome.instances) == 2
        make().terminate([one.instance_id for one in outcome.instances])
        assert fake.machines() == []
        if not fault.hits:
            return
    raise AssertionError("a launch takes fewer requests")


def test_many_at_once_launch_once(fake: GceFake, make: Make) -> None:
    provider = make()
    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(lambda _: provider.launch(order(count=3, min_count=3)), range(8)))
    assert len(fake.machines()) == 3
    assert {frozenset(one.instance_id for one in each.instances) for each in outcomes} == {
        frozenset(f"{ZONE}/launch-1-m{place}" for place in range(3))
    }


def test_lists_that_are_behind_do_not_double(fake: GceFake, make: Make) -> None:
    fake.state.lag_s = 3600.0
    first = make().launch(order(count=2))
    second = make().launch(order(count=2))
    assert first.instances == second.instances and len(fake.machines()) == 2
    assert make().describe([one.instance_id for one in first.instances]) == list(first.instances)


def test_what_was_ended_is_not_launched_again(fake: GceFake, make: Make) -> None:
    first = make().launch(order(count=2, min_count=2))
    make().terminate([first.instances[0].instance_id])
    again = make().launch(order(count=2, min_count=2))
    states = {one.instance_id: one.state for one in again.instances}
    assert states == {
        first.instances[0].instance_id: InstanceState.TERMINATED,
        first.instances[1].instance_id: InstanceState.RUNNING,
    }
    assert len(fake.machines()) == 1 and again.missing == 0


def test_a_launch_id_of_another_type_is_refused(make: Make) -> None:
    make().launch(order())
    with pytest.raises(errors.InvalidInputError, match="was of g2-standard-4") as caught:
        make().launch(order(instance_type="g2-standard-24"))
    assert "id of its own" in caught.value.hint


def test_an_order_that_takes_too_long_is_found_again(fake: GceFake, make: Make) -> None:
    fake.state.operation_s = 3600.0
    with pytest.raises(errors.ProviderUnavailableError, match="took the order"):
        make(deadline_s=1.0).launch(order(count=2))
    for operation in fake.state.operations.values():
        operation.done_at = 0.0
    assert len(make().launch(order(count=2)).instances) == 2 and len(fake.machines()) == 2


# --- capacity, quota, price -----------------------------------------------------------------------------------


@pytest.mark.parametrize("upfront", [True, False])
def test_no_capacity_leaves_nothing_and_may_be_asked_for_again(
    fake: GceFake, make: Make, upfront: bool
) -> None:
    fake.orders.upfront = upfront
    for _ in range(3):
        with pytest.raises(errors.CapacityError, match="resources"):
            make().launch(order(count=6, min_count=5))
        assert fake.machines() == [] and free(fake) == 4
    fake.state.zone_of(ZONE)["nvidia-l4"] = 8
    assert len(make().launch(order(count=6, min_count=5)).instances) == 6


def test_no_capacity_is_not_asked_for_twice(fake: GceFake, make: Make) -> None:
    fake.orders.upfront = True
    with pytest.raises(errors.CapacityError):
        make().launch(order(count=6, min_count=6))
    assert len(fake.asked("POST", "bulkInsert")) == 1


def test_fewer_are_taken_down_to_the_least(fake: GceFake, make: Make) -> None:
    outcome = make().launch(order(count=6, min_count=2))
    assert len(outcome.instances) == 4 and outcome.missing == 2
    assert outcome.why is not None and "enough resources" in outcome.why
    assert len(fake.machines()) == 4


@pytest.mark.parametrize("metric", ["NVIDIA_L4_GPUS", "PREEMPTIBLE_NVIDIA_L4_GPUS"])
def test_quotas_are_told_by_their_names(fake: GceFake, make: Make, metric: str) -> None:
    market = Market.SPOT if metric.startswith("PREEMPTIBLE") else Market.ON_DEMAND
    fake.state.quotas[REGION][metric] = 1
    with pytest.raises(errors.QuotaError, match="exceeded") as caught:
        make().launch(order(count=2, min_count=2, market=market))
    assert caught.value.quota == metric and fake.machines() == []
    outcome = make().launch(order("launch-2", count=2, market=market))
    assert len(outcome.instances) == 1 and outcome.why is not None and metric in outcome.why


def test_a_quota_that_shows_later_is_a_quota_still(fake: GceFake, make: Make, monkeypatch: Any) -> None:
    taken = iter([None, None, "Quota 'NVIDIA_L4_GPUS' exceeded.  Limit: 1.0 in region us-central1."])
    told = "Quota 'NVIDIA_L4_GPUS' exceeded.  Limit: 1.0 in region us-central1."
    monkeypatch.setattr(fake.state, "over_quota", lambda *_: next(taken, told))
    with pytest.raises(errors.QuotaError) as caught:
        make().launch(order(count=2, min_count=2))
    assert caught.value.quota == "NVIDIA_L4_GPUS" and fake.machines() == []


def test_a_cap_is_held_against_prices(fake: GceFake, make: Make) -> None:
    with pytest.raises(errors.PriceTooHighError, match=r"0\.7100"):
        make(price_of=lambda *_: 0.71).launch(order(max_usd_per_hour=0.5))
    with pytest.raises(errors.PriceTooHighError, match="not known"):
        make().launch(order(max_usd_per_hour=0.5))
    assert fake.machines() == []
    assert make(price_of=lambda *_: 0.4).launch(order(max_usd_per_hour=0.5)).instances


# --- errors ---------------------------------------------------------------------------------------------------

REFUSALS = [
    (
        403,
        "accessNotConfigured",
        "Compute Engine API has not been used",
        errors.AuthenticationError,
        "services enable",
    ),
    (
        403,
        "forbidden",
        "Required 'compute.instances.create' permission",
        errors.AuthenticationError,
        "gcp-fleet-role.json",
    ),
    (403, "quotaExceeded", "Quota 'CPUS' exceeded. Limit: 8", errors.QuotaError, "quota"),
    (503, "insufficientCapacity", "not enough", errors.CapacityError, "another zone"),
    (400, "invalid", "Invalid value for field 'x'", errors.InvalidInputError, ""),
    (
        404,
        "notFound",
        "The resource 'projects/p/global/images/i' was not found",
        errors.InvalidInputError,
        "",
    ),
    (
        404,
        "notFound",
        "The resource 'projects/p/zones/z' was not found",
        errors.UnknownRegionError,
        "regions list",
    ),
    (409, "alreadyExists", "The resource already exists", errors.ConflictError, "again"),
]


@pytest.mark.parametrize(("code", "reason", "message", "kind", "hint"), REFUSALS)
def test_refusals_say_what_to_do(
    fake: GceFake, make: Make, code: int, reason: str, message: str, kind: Any, hint: str
) -> None:
    fault = fake.inject(
        ControlPlaneFault("status", method="POST", code=code, reason=reason, message=message, times=99)
    )
    with pytest.raises(kind) as caught:
        make().launch(order())
    assert type(caught.value) is kind and hint in caught.value.hint and message[:20] in str(caught.value)
    assert "127.0.0.1" not in str(caught.value)
    assert fault.hits == 1, "asked again for nothing"


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (403, "rateLimitExceeded"),
        (403, "userRateLimitExceeded"),
        (429, "x"),
        (503, "backendError"),
        (500, "x"),
    ],
)
def test_throttling_is_waited_out_and_then_told(fake: GceFake, make: Make, code: int, reason: str) -> None:
    fake.inject(ControlPlaneFault("status", code=code, reason=reason, times=2))
    assert make().launch(order()).instances
    forever = fake.inject(ControlPlaneFault("status", code=code, reason=reason, times=10_000))
    with pytest.raises(errors.ProviderUnavailableError, match="Injected"):
        make(retries=3).list_instances()
    assert forever.hits == 4


def test_the_pause_that_is_asked_for_is_kept(fake: GceFake, make: Make) -> None:
    fake.inject(ControlPlaneFault("status", code=429, retry_after_s=1, times=1))
    begun = datetime.datetime.now()
    make().list_instances()
    assert (datetime.datetime.now() - begun).total_seconds() >= 1
    fake.inject(ControlPlaneFault("status", code=429, retry_after_s=3600, times=1))
    with pytest.raises(errors.ProviderUnavailableError):
        make().list_instances()


def test_credentials_that_expire_ask_for_a_new_login(fake: GceFake, make: Make) -> None:
    fake.tokens = {"good"}
    provider = make(credentials=Credentials("good"))
    assert provider.list_instances() == []
    fake.tokens = {"other"}
    with pytest.raises(errors.AuthenticationError, match="credentials") as caught:
        provider.list_instances()
    assert "gcloud auth" in caught.value.hint


def test_nobody_there_is_told_in_time(make: Make) -> None:
    provider = make(endpoint_url="http://127.0.0.1:9", retries=1)
    with pytest.raises(errors.ProviderUnavailableError):
        provider.list_instances()


def test_regions_zones_types_and_images_that_are_not_there(fake: GceFake, make: Make) -> None:
    with pytest.raises(errors.UnknownRegionError, match="written like"):
        make("moon")
    with pytest.raises(errors.UnknownRegionError, match="was not found"):
        make("us-moon1").list_instances()
    with pytest.raises(errors.UnknownRegionError, match="There are: us-central1-a"):
        make().launch(order(zone="us-central1-z"))
    with pytest.raises(errors.InvalidInputError, match="does not exist"):
        make().launch(order(instance_type="g2-standard-5"))
    with pytest.raises(errors.InvalidInputError, match="no instance type"):
        make().launch(order(instance_type="g2-standard-4+nvidia-l4x1"))
    with pytest.raises(errors.InvalidInputError, match="missing"):
        make().launch(order(image="projects/p/global/images/missing"))
    with pytest.raises(errors.InvalidInputError, match="image=") as caught:
        make(image=None).launch(order())
    assert "no image" in str(caught.value) and fake.machines() == []


@pytest.mark.parametrize("text", ["<html>Log in to the guest network</html>", "", "nul", '{"error":'])
def test_answers_that_are_none_are_told_as_such(fake: GceFake, make: Make, text: str) -> None:
    fake.inject(ControlPlaneFault("garble", message=text, times=99))
    with pytest.raises(errors.ProviderUnavailableError):
        make(retries=1).list_instances()
    with pytest.raises(errors.ProviderUnavailableError):  # a 404, too, that is not in the API's words
        make(retries=1).describe([f"{ZONE}/nobody"])
    fake.heal()
    assert make().describe([f"{ZONE}/nobody"]) == []


# --- looking and changing -------------------------------------------------------------------------------------


def test_lists_have_pages_regions_and_labels(fake: GceFake, make: Make) -> None:
    make().launch(order("launch-1", count=4, tags={"team": "nlp"}))
    make("europe-west4").launch(order("launch-2", zone=None))
    make().launch(order("launch-3", zone="us-central1-b", tags={OWNER_TAG: "fleet-b"}))
    assert len(make().list_instances()) == 5
    assert len(make().list_instances({"team": "nlp"})) == 4
    assert [one.launch_id for one in make().list_instances({OWNER_TAG: "fleet-b"})] == ["launch-3"]
    assert make().list_instances({"team": "nlp", LAUNCH_TAG: "launch-3"}) == []
    ids = [
        "us-central1-b/launch-3-m0",
        "europe-west4-a/launch-2-m0",
        f"{ZONE}/nobody",
        "x",
        f"{ZONE}/launch-1-m1",
    ]
    assert [one.instance_id for one in make().describe(ids)] == [ids[0], ids[4]]
    assert make().zones(L4) == [ZONE, "us-central1-b"]
    assert make().zones("n1-standard-8+nvidia-tesla-t4x1") == [ZONE]
    assert make().zones("n1-standard-8") == [ZONE, "us-central1-b", "us-central1-c"]


def test_a_spot_machine_that_is_taken_back_says_so(fake: GceFake, make: Make) -> None:
    one = make().launch(order(market=Market.SPOT)).instances[0]
    fake.preempt(ZONE, "launch-1-m0")
    seen = make().describe([one.instance_id])[0]
    assert seen.state is InstanceState.STOPPED and seen.state.alive
    assert seen.reason is not None and seen.reason.startswith("preempted")
    make().start([one.instance_id])
    assert make().describe([one.instance_id])[0].state is InstanceState.RUNNING
    make().stop([one.instance_id])
    stopped = make().describe([one.instance_id])[0]
    assert stopped.state is InstanceState.STOPPED and not (stopped.reason or "").startswith("stopped by")


def test_stop_start_and_terminate_may_be_repeated(fake: GceFake, make: Make) -> None:
    provider = make()
    ids = [one.instance_id for one in provider.launch(order(count=2)).instances]
    for change, states in [
        (provider.stop, [InstanceState.STOPPED] * 2),
        (provider.start, [InstanceState.RUNNING] * 2),
    ]:
        change(ids)
        change(ids)
        assert [one.state for one in provider.describe(ids)] == states
    provider.terminate([*ids, f"{ZONE}/nobody", "x"])
    provider.terminate(ids)
    assert fake.machines() == [] and free(fake) == 4
    for change in (provider.stop, provider.start):
        with pytest.raises(errors.InstanceNotFoundError):
            change(ids)


def test_a_start_without_capacity_says_so(fake: GceFake, make: Make) -> None:
    one = make().launch(order()).instances[0].instance_id
    make().stop([one])
    fake.state.zone_of(ZONE)["nvidia-l4"] = 0
    with pytest.raises(errors.CapacityError):
        make().start([one])
    assert make().describe([one])[0].state is InstanceState.STOPPED


def test_one_that_fails_does_not_keep_others_from_ending(fake: GceFake, make: Make) -> None:
    ids = [one.instance_id for one in make().launch(order(count=3)).instances]
    fake.inject(
        ControlPlaneFault(
            "status", method="DELETE", path="launch-1-m0", code=403, reason="forbidden", times=9
        )
    )
    with pytest.raises(errors.AuthenticationError):
        make().terminate(ids)
    assert [f"{ZONE}/{one.name}" for one in fake.machines()] == ids[:1]


def test_labels_of_two_writers_are_both_kept(fake: GceFake, make: Make) -> None:
    one = make().launch(order(tags={"a": "1"})).instances[0].instance_id
    barrier = threading.Barrier(4)

    def write(place: int) -> None:
        barrier.wait()
        make().tag([one], {f"writer-{place}": "yes", "a": "2"})

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    labels = make().describe([one])[0].tags
    assert labels["a"] == "2" and all(labels[f"writer-{place}"] == "yes" for place in range(4))
    with pytest.raises(errors.InvalidInputError, match="no key of a label"):
        make().tag([one], {"Team": "nlp"})
    with pytest.raises(errors.InstanceNotFoundError):
        make().tag([f"{ZONE}/nobody"], {"a": "1"})


# --- the SDK --------------------------------------------------------------------------------------------------


def test_the_sdk_is_imported_when_a_provider_is_made_and_not_before() -> None:
    code = (
        "import sys; sys.modules['google.cloud.compute_v1'] = None\n"
        "from textnlp_fast.gpu.providers import gcp\n"
        "assert not [name for name in sys.modules if name.startswith(('google', 'requests'))"
        " and sys.modules[name]]\n"
        "try: gcp.GcpProvider('us-central1')\n"
        "except ImportError as error: print(type(error).__name__, error.hint)\n"
    )
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert told.split(None, 1) == ["MissingPackageError", "Run: pip install 'textnlp-fast[gpu-gcp]'\n"]
