"""The provider of Azure: Microsoft's own clients against a fake that their models check."""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("azure.mgmt.compute", reason="needs azure-mgmt-compute")
pytest.importorskip("azure.mgmt.network", reason="needs azure-mgmt-network")

import azure.mgmt.compute.models as compute

from fakes.azure_arm.specification import Mismatch, check_model, routes
from fakes.control_plane import ControlPlaneFault
from gpu.providers.azure_harness import AzureHarness
from gpu.providers.harness import eventually, request_for
from textnlp_fast import errors
from textnlp_fast.gpu import Market
from textnlp_fast.gpu.providers import azure_requests
from textnlp_fast.gpu.providers.azure_client import Arm
from textnlp_fast.gpu.providers.azure_errors import error_of_code
from textnlp_fast.gpu.providers.azure_records import _packed, _unpacked
from textnlp_fast.gpu.providers.contract import LAUNCH_TAG, InstanceState

EMPTY = {"networkInterfaces": [], "publicIPAddresses": [], "disks": []}


@pytest.fixture
def harness(azure: AzureHarness) -> AzureHarness:
    return azure


def left_of(names: list[str], *, public: bool = False) -> dict[str, list[str]]:
    return {
        "networkInterfaces": [f"{name}-nic" for name in names],
        "publicIPAddresses": [f"{name}-ip" for name in names] if public else [],
        "disks": [f"{name}-os" for name in names],
    }


# --- what is asked --------------------------------------------------------------------------------------------


def test_what_is_made_with_a_machine_goes_with_it(harness: AzureHarness) -> None:
    provider = harness.provider(public_ip=True)
    request = request_for(
        harness, zone="westeurope-2", disk_gib=200, market=Market.SPOT, max_usd_per_hour=0.5
    )
    (one,) = provider.launch(request).instances
    assert one.public_ip and one.private_ip and one.zone == "westeurope-2"
    (asked,) = (request.body for request in harness.fake.asked("PUT", "/virtualMachines/"))
    assert asked["zones"] == ["2"]
    properties = asked["properties"]
    assert (properties["priority"], properties["evictionPolicy"]) == ("Spot", "Deallocate")
    assert properties["billingProfile"] == {"maxPrice": 0.5}
    assert properties["osProfile"]["linuxConfiguration"]["disablePasswordAuthentication"] is True
    assert "adminPassword" not in properties["osProfile"]
    card = properties["networkProfile"]["networkInterfaceConfigurations"][0]["properties"]
    address = card["ipConfigurations"][0]["properties"]["publicIPAddressConfiguration"]["properties"]
    options = {each["deleteOption"] for each in (card, address, properties["storageProfile"]["osDisk"])}
    assert options == {"Delete"}
    assert harness.fake.left() == left_of([one.instance_id], public=True)
    harness.provider(settle_s=0.0).terminate([one.instance_id])
    assert eventually(harness.fake.left, lambda left: left == EMPTY) == EMPTY


def test_what_runs_is_never_put_again(harness: AzureHarness) -> None:
    harness.provider().launch(request_for(harness, count=2))
    for request in harness.fake.asked("PUT", "/virtualMachines/"):
        assert request.headers["if-none-match"] == "*"


@pytest.mark.parametrize(
    ("image", "field"),
    [
        ("a:b:c:latest", "publisher"),
        ("/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/images/i", "id"),
        ("/CommunityGalleries/g/images/i", "communityGalleryImageId"),
        ("/SharedGalleries/g/images/i", "sharedGalleryImageId"),
    ],
)
def test_images_have_four_forms(harness: AzureHarness, image: str, field: str) -> None:
    harness.provider().launch(request_for(harness, image=image))
    (asked,) = (request.body for request in harness.fake.asked("PUT", "/virtualMachines/"))
    assert field in asked["properties"]["storageProfile"]["imageReference"]
    with pytest.raises(errors.InvalidInputError, match="no image"):
        harness.provider().launch(request_for(harness, image="ubuntu"))


@pytest.mark.parametrize("missing", ["subnet", "ssh_public_key"])
def test_without_a_subnet_or_a_key_the_hint_says_how(harness: AzureHarness, missing: str) -> None:
    with pytest.raises(errors.InvalidInputError) as caught:
        harness.provider(**{missing: None}).launch(request_for(harness))
    assert missing in caught.value.hint and harness.fake.exchanges == []


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"subnet": "network"}, "no subnet"),
        ({"subnet": "a/b/c"}, "no subnet"),
        ({"ssh_public_key": "hunter2"}, "no public SSH key"),
        ({"ssh_public_key": Path("/nonexistent/key.pub")}, "cannot be read"),
    ],
)
def test_subnets_and_keys_that_are_none_are_told_before_anything_is_asked(
    harness: AzureHarness, given: dict[str, Any], said: str
) -> None:
    provider = harness.provider(**given)
    assert provider.list_instances() == []  # who only looks needs neither
    asked = len(harness.fake.exchanges)
    with pytest.raises(errors.InvalidInputError, match=said) as caught:
        provider.launch(request_for(harness))
    assert "TEXTNLP_FAST_AZURE_S" in caught.value.hint
    assert "hunter2" not in str(caught.value)
    assert len(harness.fake.exchanges) == asked


@pytest.mark.parametrize("setting", ["resource_group", "subscription"])
def test_what_is_not_set_is_asked_for(
    harness: AzureHarness, setting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AZURE_SUBSCRIPTION_ID", raising=False)
    monkeypatch.delenv("AZURE_RESOURCE_GROUP", raising=False)
    with pytest.raises(errors.InvalidInputError) as caught:
        harness.provider(**{setting: None}).list_instances()
    assert f"AZURE_{setting.upper()}"[:18] in caught.value.hint


def test_the_checker_refuses_what_azure_does_not_know() -> None:
    good = {"location": "x", "properties": {"priority": "Spot", "billingProfile": {"maxPrice": -1}}}
    check_model(good, compute.VirtualMachine, "request", asked=True)
    for bad in (
        {"location": "x", "size": 1},
        {"location": "x", "properties": {"priority": "Cheap"}},
        {"properties": {}},
        {"location": "x", "properties": {"vmId": "1"}},
        {"location": "x", "zones": "1"},
        {"location": "x", "properties": {"billingProfile": {"maxPrice": "1"}}},
        {"location": "x", "tags": {"a": 1}},
    ):
        with pytest.raises(Mismatch):
            check_model(bad, compute.VirtualMachine, "request", asked=True)
    found = routes("compute")["virtual_machines_delete"]
    assert (found.method, found.statuses) == ("DELETE", {200, 202, 204})


@given(st.sets(st.integers(0, 999), max_size=40))
def test_places_fit_a_tag_or_are_cut(places: set[int]) -> None:
    names = tuple(f"m{place}" for place in sorted(places))
    text = _packed(names)
    assert len(text) <= 256
    again = tuple(_unpacked(text))
    assert again == names[: len(again)] and (len(text) > 240 or again == names)
    assert len(_unpacked("0-99999999999")) <= 1001
    assert _unpacked("x,1-,-2,,3") == ["m1", "m3"]


@given(st.dictionaries(st.text(max_size=20), st.text(max_size=20), max_size=4))
def test_any_tags_are_taken_or_refused(tags: dict[str, str]) -> None:
    try:
        azure_requests.check_tags(tags)
    except errors.InvalidInputError:
        return
    assert all(key and not set(key) & set("<>%&\\?/") for key in tags)
    assert len({key.lower() for key in tags}) == len(tags)


@given(st.none() | st.text(max_size=8) | st.from_regex(r"(westeurope|eastus)?-?[0-9]{0,2}", fullmatch=True))
def test_zones_are_numbers_of_the_region(zone: str | None) -> None:
    try:
        number = azure_requests.zone_number(zone, "westeurope")
    except errors.UnknownRegionError:
        return
    if number is None:
        assert zone in {None, "westeurope"}
    else:
        assert zone in {number, f"westeurope-{number}"} and number in "123456789"


# --- launching once, and leaving nothing ------------------------------------------------------------------------


class _Killed(BaseException):
    """The process is gone: nothing catches it."""


def _killed_after(requests: int, monkeypatch: pytest.MonkeyPatch, *, answered: bool) -> None:
    """Every request after this one fails, too: threads of a process end together."""
    counter, original = itertools.count(), Arm.ask

    def ask(self: Arm, *arguments: Any, **options: Any) -> Any:
        place = next(counter)
        if place > requests or (place == requests and not answered):
            raise _Killed
        answer = original(self, *arguments, **options)
        if place == requests:
            raise _Killed
        return answer

    monkeypatch.setattr(Arm, "ask", ask)


@pytest.mark.parametrize("answered", [False, True])
def test_killed_at_any_request_and_launched_again_there_are_as_many_as_asked_for(
    harness: AzureHarness, monkeypatch: pytest.MonkeyPatch, answered: bool
) -> None:
    for requests in range(60):
        request = request_for(harness, launch_id=f"launch-{requests}", count=3, min_count=3)
        survived = False
        with monkeypatch.context() as patched:
            _killed_after(requests, patched, answered=answered)
            try:
                harness.provider(public_ip=True).launch(request)
                survived = True
            except _Killed:
                pass
        outcome = harness.provider(public_ip=True).launch(request)
        names = [f"launch-{requests}-westeurope-m{place}" for place in range(3)]
        assert sorted(harness.truth()) == names
        assert harness.fake.left() == left_of(names, public=True)
        assert outcome.missing == 0 and [one.instance_id for one in outcome.instances] == names
        harness.provider().terminate(names)
        assert harness.truth() == {} and harness.fake.left() == EMPTY
        if survived:
            break
    assert survived and requests > 10


@pytest.mark.parametrize("strands", [False, True])
def test_killed_while_a_failed_launch_is_cleared_and_asked_for_again_nothing_is_left(
    harness: AzureHarness, monkeypatch: pytest.MonkeyPatch, strands: bool
) -> None:
    """`strands`: Azure leaves the card and the address of a machine that failed, which it has been seen to do."""
    harness.capacity(1)
    harness.fake.state.strands = strands
    for requests in range(80):
        request = request_for(harness, launch_id=f"launch-{requests}", count=2, min_count=2)
        killed = False
        with monkeypatch.context() as patched:
            _killed_after(requests, patched, answered=requests % 2 == 0)
            try:
                with pytest.raises(errors.CapacityError):
                    harness.provider(public_ip=True).launch(request)
            except _Killed:
                killed = True
        for _ in range(3):  # a machine that is being deleted is told as such: the next try finds it gone
            with pytest.raises((errors.CapacityError, errors.ProviderUnavailableError)) as caught:
                harness.provider(public_ip=True).launch(request)
            if isinstance(caught.value, errors.CapacityError):
                break
        assert harness.truth() == {} and harness.fake.left() == EMPTY
        assert harness.fake.state.things["sshPublicKeys"] == {}
        if not killed:
            break
    assert not killed and requests > 10


def test_a_machine_that_was_ended_is_looked_after(harness: AzureHarness) -> None:
    """Killed between the end of a machine and of its card, an end that is asked for again ends the card."""
    (one,) = harness.provider(public_ip=True).launch(request_for(harness)).instances
    state = harness.fake.state
    for things in (
        state.things["networkInterfaces"],
        state.things["publicIPAddresses"],
        state.things["disks"],
    ):
        for thing in things.values():
            thing["goes"] = False
    operation_s, state.operation_s = (
        state.operation_s,
        3600.0,
    )  # so that the first try sees it going, never gone
    harness.provider(settle_s=0.0).terminate([one.instance_id])
    state.operation_s = operation_s
    state.machines[one.instance_id].moment = 0.0
    assert harness.truth() == {} and harness.fake.left() == left_of([one.instance_id], public=True)
    harness.provider().terminate([one.instance_id])
    assert harness.fake.left() == EMPTY


def test_what_others_made_is_not_touched(harness: AzureHarness) -> None:
    card = {"name": "web-nic", "machine": None, "number": 7, "goes": True}
    harness.fake.state.things["networkInterfaces"]["web-nic"] = card
    harness.provider().terminate(["web", "web-elsewhere-m0"])
    assert harness.fake.left()["networkInterfaces"] == ["web-nic"]


def test_a_machine_of_the_name_that_is_anothers_is_left_alone(harness: AzureHarness) -> None:
    request = request_for(harness)
    (one,) = harness.provider().launch(request).instances
    harness.fake.state.machines[one.instance_id].body["tags"][LAUNCH_TAG] = "another"
    harness.fake.state.things["sshPublicKeys"].clear()
    with pytest.raises(errors.ConflictError):
        harness.provider().launch(request)


def test_records_of_launches_are_kept_for_a_day(harness: AzureHarness) -> None:
    keys = harness.fake.state.things["sshPublicKeys"]
    first, second = request_for(harness), request_for(harness)
    harness.provider().launch(first)
    (record,) = keys.values()
    record["tags"]["textnlp-fast-at"] = str(int(time.time()) - 90_000)
    keys["mine"] = {
        "name": "mine",
        "machine": None,
        "tags": {},
        "key": "ssh-ed25519 A",
        "location": "westeurope",
    }
    harness.provider().launch(second)
    assert sorted(keys) == sorted([f"{second.launch_id}-westeurope", "mine"])


# --- errors ---------------------------------------------------------------------------------------------------

CODES = [
    ("SkuNotAvailable", 409, "The requested size is not available", errors.CapacityError),
    ("AllocationFailed", 0, "Allocation failed", errors.CapacityError),
    ("ZonalAllocationFailed", 0, "Allocation failed", errors.CapacityError),
    ("OverconstrainedAllocationRequest", 0, "Allocation failed", errors.CapacityError),
    ("OverconstrainedZonalAllocationRequest", 0, "Allocation failed", errors.CapacityError),
    ("QuotaExceeded", 409, "exceeded", errors.QuotaError),
    ("OperationNotAllowed", 409, "exceeding approved standardNCASv3_T4Family Cores quota", errors.QuotaError),
    ("OperationNotAllowed", 409, "The server is being updated", errors.InvalidInputError),
    ("OperationNotAllowed", 409, "The max price 0.1 is below the current price", errors.PriceTooHighError),
    ("TooManyRequests", 429, "slow down", errors.ProviderUnavailableError),
    ("RetryableError", 429, "again", errors.ProviderUnavailableError),
    ("InternalServerError", 500, "oops", errors.ProviderUnavailableError),
    ("ServiceUnavailable", 503, "later", errors.ProviderUnavailableError),
    ("AuthorizationFailed", 403, "no", errors.AuthenticationError),
    ("LinkedAuthorizationFailed", 403, "no", errors.AuthenticationError),
    ("RequestDisallowedByPolicy", 403, "no", errors.AuthenticationError),
    ("ExpiredAuthenticationToken", 401, "expired", errors.AuthenticationError),
    ("InvalidAuthenticationToken", 401, "bad", errors.AuthenticationError),
    ("MissingSubscriptionRegistration", 409, "not registered", errors.AuthenticationError),
    ("SubscriptionNotFound", 404, "none", errors.AuthenticationError),
    ("ResourceNotFound", 404, "none", errors.InstanceNotFoundError),
    ("ResourceGroupNotFound", 404, "none", errors.InvalidInputError),
    ("PlatformImageNotFound", 404, "none", errors.InvalidInputError),
    ("InvalidResourceReference", 400, "subnet", errors.InvalidInputError),
    ("InvalidParameter", 400, "bad", errors.InvalidInputError),
    ("InvalidAvailabilityZone", 400, "bad", errors.UnknownRegionError),
    ("NoRegisteredProviderFound", 400, "bad", errors.UnknownRegionError),
    ("PreconditionFailed", 412, "changed", errors.ConflictError),
    ("NobodyKnowsThis", 400, "?", errors.InvalidInputError),
    ("NobodyKnowsThis", 0, "?", errors.ProviderUnavailableError),
]


# Azure does not say the one of a machine that is to be made, and its client answers the other by registering.
_NOT_TO_A_PUT = {"ResourceNotFound", "MissingSubscriptionRegistration"}
ANSWERED = [one for one in CODES if one[1] and one[0] not in _NOT_TO_A_PUT]


@pytest.mark.parametrize(("code", "status", "message", "kind"), CODES)
def test_what_codes_mean(code: str, status: int, message: str, kind: Any) -> None:
    error = error_of_code(code, message, action="launch", place="westeurope", status=status)
    assert type(error) is kind and message in str(error)
    assert error.hint or kind is errors.InvalidInputError


@pytest.mark.parametrize(("code", "status", "message", "kind"), ANSWERED)
def test_codes_come_through_the_client(
    harness: AzureHarness, code: str, status: int, message: str, kind: Any
) -> None:
    fault = harness.fake.inject(
        ControlPlaneFault(
            "status",
            method="PUT",
            path="/virtualMachines/",
            code=status,
            reason=code,
            message=message,
            times=99,
        )
    )
    with pytest.raises(kind) as caught:
        harness.provider(retries=2).launch(request_for(harness))
    assert type(caught.value) is kind and message in str(caught.value)
    # What stood in the way and is not there any more is ordered once more.
    assert fault.hits == {errors.ProviderUnavailableError: 3, errors.ConflictError: 2}.get(kind, 1)
    assert harness.truth() == {} and harness.fake.left() == EMPTY


def test_a_quota_is_told_by_its_name(harness: AzureHarness) -> None:
    harness.no_quota()
    with pytest.raises(errors.QuotaError) as caught:
        harness.provider().launch(request_for(harness, count=3))
    assert caught.value.quota == "standardNCASv3_T4Family Cores"
    assert harness.launches_asked() == 1, "one refusal is enough"


@pytest.mark.parametrize("code", ["OverconstrainedZonalAllocationRequest", "OSProvisioningTimedOut"])
def test_a_failure_after_the_order_was_taken_is_told_and_cleared(harness: AzureHarness, code: str) -> None:
    harness.fake.state.fail_late = (code, "Something failed.")
    kind = errors.CapacityError if code.startswith("Over") else errors.ProviderUnavailableError
    with pytest.raises(kind, match=code):
        harness.provider(public_ip=True).launch(request_for(harness, count=2))
    assert harness.truth() == {} and harness.fake.left() == EMPTY


def test_the_pause_that_is_asked_for_is_kept(harness: AzureHarness) -> None:
    provider = harness.provider()
    harness.fake.inject(
        ControlPlaneFault("status", code=429, reason="TooManyRequests", retry_after_s=1, times=1)
    )
    began = time.monotonic()
    provider.list_instances()
    assert time.monotonic() - began >= 1
    harness.fake.inject(
        ControlPlaneFault("status", code=429, reason="TooManyRequests", retry_after_s=3600, times=1)
    )
    with pytest.raises(errors.ProviderUnavailableError):
        provider.list_instances()


def test_nobody_there_is_told_in_time(harness: AzureHarness) -> None:
    with pytest.raises(errors.ProviderUnavailableError):
        harness.provider(endpoint_url="http://127.0.0.1:9", retries=1).list_instances()


@pytest.mark.parametrize("text", ["<html>Log in to the guest network</html>", "", "[]", "nul", '{"error":'])
def test_answers_that_are_none_are_told_as_such(harness: AzureHarness, text: str) -> None:
    harness.fake.inject(ControlPlaneFault("garble", message=text, times=99))
    with pytest.raises(errors.ProviderUnavailableError):
        harness.provider(retries=1).list_instances()
    with pytest.raises(errors.ProviderUnavailableError):  # a 404, too, that is not in the API's words
        harness.provider(retries=1).describe(["nobody"])
    harness.fake.heal()
    assert harness.provider().describe(["nobody"]) == []


# --- looking and changing -------------------------------------------------------------------------------------


def test_a_spot_machine_that_is_evicted_stays_and_may_start_again(harness: AzureHarness) -> None:
    provider = harness.provider()
    (one,) = provider.launch(request_for(harness, market=Market.SPOT)).instances
    harness.fake.evict(one.instance_id)
    (seen,) = provider.describe([one.instance_id])
    assert seen.state is InstanceState.STOPPED and "evicted" in (seen.reason or "")
    harness.no_capacity()
    with pytest.raises(errors.CapacityError):
        provider.start([one.instance_id])
    (seen,) = provider.describe([one.instance_id])
    assert seen.state is InstanceState.STOPPED and "AllocationFailed" in (seen.reason or "")
    harness.heal()
    provider.start([one.instance_id])
    assert provider.describe([one.instance_id])[0].state is InstanceState.RUNNING


def test_shut_down_from_inside_says_that_it_costs(harness: AzureHarness) -> None:
    (one,) = harness.provider().launch(request_for(harness)).instances
    harness.fake.state.machines[one.instance_id].power = "stopped"
    (seen,) = harness.provider().describe([one.instance_id])
    assert seen.state is InstanceState.STOPPED and "charges" in (seen.reason or "")


def test_zones_that_are_barred_are_not_offered(harness: AzureHarness) -> None:
    harness.fake.state.sizes["standard_nc8as_t4_v3"].barred = ("1",)
    assert harness.provider().zones("standard_NC8as_t4_v3") == ["westeurope-2"]
    harness.fake.state.sizes["standard_nc4as_t4_v3"].free = {"": 1}
    assert harness.provider().zones("Standard_NC4as_T4_v3") == ["westeurope"]
    (one,) = harness.provider().launch(request_for(harness, zone="westeurope")).instances
    assert one.zone is None
    with pytest.raises(errors.UnknownRegionError, match="no region"):
        harness.provider(region="moonbase1").zones("Standard_NC4as_T4_v3")


def test_machines_of_other_regions_are_not_ours(harness: AzureHarness) -> None:
    (one,) = harness.provider().launch(request_for(harness)).instances
    other = harness.provider(region="northeurope")
    assert other.describe([one.instance_id]) == [] and other.list_instances() == []
    other.terminate([one.instance_id])
    assert list(harness.truth()) == [one.instance_id]


def test_tags_of_two_writers_are_both_kept(harness: AzureHarness) -> None:
    (one,) = harness.provider().launch(request_for(harness, tags={"a": "1"})).instances
    barrier = threading.Barrier(4)

    def write(place: int) -> None:
        barrier.wait()
        harness.provider().tag([one.instance_id], {f"writer-{place}": "yes", "A": "2"})

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    tags = harness.provider().describe([one.instance_id])[0].tags
    assert (
        tags["A"] == "2" and "a" not in tags and all(tags[f"writer-{place}"] == "yes" for place in range(4))
    )


# --- the SDK --------------------------------------------------------------------------------------------------


def test_the_sdk_is_imported_when_a_provider_is_made_and_not_before() -> None:
    code = (
        "import sys; sys.modules['azure.mgmt.compute'] = None\n"
        "from textnlp_fast.gpu.providers import azure\n"
        "assert not [name for name in sys.modules if name.startswith('azure.') and sys.modules[name]]\n"
        "try: azure.AzureProvider('westeurope')\n"
        "except ImportError as error: print(type(error).__name__, error.hint)\n"
    )
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert told.split(None, 1) == ["MissingPackageError", "Run: pip install 'textnlp-fast[gpu-azure]'\n"]
