"""EC2, through boto3.

Launches are RunInstances with a client token; spot that names no zone is an instant fleet (`aws_fleet`), which finds
the zone where it lasts. `docs/decisions` says why two roads.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from textnlp_fast.errors import (
    CapacityError,
    ConflictError,
    InvalidInputError,
    ProviderUnavailableError,
    TextnlpFastError,
    UnknownRegionError,
)
from textnlp_fast.gpu.providers import aws_fleet, aws_requests
from textnlp_fast.gpu.providers.aws_client import connected, imported
from textnlp_fast.gpu.providers.aws_errors import NOT_FOUND, client_meaning, code_of, message_of
from textnlp_fast.gpu.providers.aws_templates import Templates, template
from textnlp_fast.gpu.providers.contract import (
    LAUNCH_TAG,
    OWNER_TAG,
    Instance,
    LaunchOutcome,
    LaunchRequest,
    PriceOf,
    Provider,
    check_request,
    refuse_over_cap,
)
from textnlp_fast.gpu.types import Market
from textnlp_fast.telemetry import count

__all__ = ["AwsProvider"]

DEFAULT_IMAGES: Final = {
    architecture: "resolve:ssm:/aws/service/deeplearning/ami/"
    f"{architecture}/base-oss-nvidia-driver-gpu-ubuntu-22.04/latest/ami-id"
    for architecture in ("x86_64", "arm64")
}
"""AWS's own images with NVIDIA's driver, by the names under which it publishes the newest of them."""
_ARM_FAMILIES: Final = ("g5g.", "p6e-gb200.", "p6e-gb300.")
_PAGE: Final = 100
# How long EC2 may not know an instance yet that it has given out: it promises no bound, and has taken minutes.
_SETTLE_S: Final = 60.0
_LONGEST_PAUSE_S: Final = 8.0


class AwsProvider(Provider):
    """One region of EC2.

    `image` is an AMI's id or `resolve:ssm:NAME` (default: AWS's image with NVIDIA's driver), `subnets` gives a subnet
    for each zone to use (default: those of the default VPC), `price_of` the prices that caps on on-demand are held
    against. Credentials come from boto3's default chain. A call is tried `retries` more times within `deadline_s`;
    repeating is safe, for every launch carries its id as EC2's client token.
    """

    name = "aws"

    def __init__(
        self,
        region: str,
        *,
        image: str | None = None,
        root_device: str = "/dev/sda1",
        subnets: Mapping[str, str] | None = None,
        security_groups: Sequence[str] = (),
        key_name: str | None = None,
        instance_profile: str | None = None,
        price_of: PriceOf | None = None,
        endpoint_url: str | None = None,
        profile: str | None = None,
        timeout_s: float = 30.0,
        deadline_s: float = 120.0,
        retries: int = 5,
        first_pause_s: float = 0.3,
        settle_s: float = _SETTLE_S,
    ) -> None:
        self.region = region
        self._image = image
        self._root_device = root_device
        self._subnets = dict(subnets or {})
        self._price_of = price_of
        self._deadline_s = deadline_s
        self._retries = retries
        self._first_pause_s = first_pause_s
        self._settle_s = settle_s
        self._extra: dict[str, Any] = {}
        if security_groups:
            self._extra["SecurityGroupIds"] = list(security_groups)
        if key_name:
            self._extra["KeyName"] = key_name
        if instance_profile:
            kind = "Arn" if instance_profile.startswith("arn:") else "Name"
            self._extra["IamInstanceProfile"] = {kind: instance_profile}
        # What this object launched and EC2 may not know everywhere yet: id -> when, by the monotonic clock.
        self._fresh: dict[str, float] = {}
        self._lock = threading.Lock()
        self._errors = imported("botocore.exceptions")
        self._client = connected(region, endpoint_url=endpoint_url, profile=profile, timeout_s=timeout_s)
        self._fleets = aws_fleet.Fleets(
            self._call,
            Templates(self._call, self._pages),
            region=region,
            retries=retries,
            first_pause_s=first_pause_s,
        )
        if aws_fleet.known_to(self._client):
            self.chooses_zone = frozenset({Market.SPOT})

    # --- launching --------------------------------------------------------------------------------------------

    def launch(self, request: LaunchRequest) -> LaunchOutcome:
        check_request(request)
        tags = {**request.tags, LAUNCH_TAG: request.launch_id}
        tags.setdefault(OWNER_TAG, "")
        aws_requests.check_tags(tags)
        # EC2 keeps a token for a day after its instances ended: from then on only what they left behind tells.
        before = self.list_instances({LAUNCH_TAG: request.launch_id})
        if before and not any(one.state.alive for one in before):
            return self._found(request, before)
        if request.market is not Market.SPOT and request.max_usd_per_hour is not None:
            price = self._price_of(request.instance_type, request.market) if self._price_of else None
            refuse_over_cap(request, price)
        image = request.image or self._image or _default_image(request.instance_type)
        pools = self._pools(request)
        try:
            if pools:
                instances, why = self._fleets.launch(
                    request,
                    pools,
                    template=template(
                        request, image=image, root_device=self._root_device, tags=tags, extra=self._extra
                    ),
                    tags=tags,
                )
                # What EC2 shows of them says more than the fleet's answer does.
                shown = {one.instance_id: one for one in before}
                instances = [shown.get(one.instance_id, one) for one in instances]
            else:
                parameters = aws_requests.run_instances(
                    request,
                    image=image,
                    root_device=self._root_device,
                    subnet=self._subnet(request.zone),
                    tags=tags,
                    extra=self._extra,
                )
                answer = self._call("run_instances", **parameters)
                instances, why = [self._instance(one) for one in answer["Instances"]], None
        except ConflictError as error:
            # Launched before, by a provider that was made with other options: what came of it is in the tags.
            return self._found(request, before or self._seen_late(request.launch_id, error))
        with self._lock:
            self._fresh.update(dict.fromkeys((one.instance_id for one in instances), time.monotonic()))
        if len(instances) < request.min_count:  # EC2 says it never does so
            self.terminate([one.instance_id for one in instances])
            raise CapacityError(
                f"only {len(instances)} of {request.instance_type} could be had in {self.region}"
            )
        return _outcome(request, instances, why)

    def _pools(self, request: LaunchRequest) -> list[aws_fleet.Pool]:
        """Where a fleet may look, in a stable order; empty where the launch is RunInstances'.

        That depends on the request and on what boto3 can alone: a token counts for one of the two only.
        """
        if request.market not in self.chooses_zone or request.zone is not None:
            return []
        return [
            aws_fleet.Pool(kind, zone, self._subnets.get(zone))
            for kind in dict.fromkeys((request.instance_type, *request.alternatives))
            for zone in self.zones(kind)
        ]

    def _found(self, request: LaunchRequest, instances: list[Instance]) -> LaunchOutcome:
        asked_for = (request.instance_type, *request.alternatives)
        other = next((one for one in instances if one.instance_type not in asked_for), None)
        if other is not None:
            raise InvalidInputError(
                f"launch {request.launch_id} was of {other.instance_type}, not of {request.instance_type}",
                hint="Give every launch an id of its own.",
            )
        return _outcome(request, instances)

    def _seen_late(self, launch_id: str, error: ConflictError) -> list[Instance]:
        """The instances of a launch that has happened, once EC2 lists them."""
        until = time.monotonic() + self._settle_s
        pause_s = self._first_pause_s
        while True:
            found = self.list_instances({LAUNCH_TAG: launch_id})
            if found:
                return found
            if time.monotonic() >= until:
                raise error
            time.sleep(random.uniform(0, pause_s))
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def _subnet(self, zone: str | None) -> str | None:
        if not self._subnets or zone is None:
            return next(iter(self._subnets.values()), None)
        if zone not in self._subnets:
            raise UnknownRegionError(
                f"no subnet was given for zone {zone}", hint=f"There are: {', '.join(sorted(self._subnets))}."
            )
        return self._subnets[zone]

    # --- looking ----------------------------------------------------------------------------------------------

    def describe(self, instance_ids: Sequence[str]) -> list[Instance]:
        found: dict[str, Instance] = {}
        ids = list(dict.fromkeys(instance_ids))
        for start in range(0, len(ids), _PAGE):
            # As a filter: asked for by id, EC2 refuses all of them for one that it does not know.
            some = ids[start : start + _PAGE]
            for one in self._describe([{"Name": "instance-id", "Values": some}]):
                found[one.instance_id] = one
        return [found[one] for one in ids if one in found]

    def list_instances(self, tags: Mapping[str, str] | None = None) -> list[Instance]:
        if tags is not None:
            return self._describe(aws_requests.filters_for(tags))
        return self._describe([{"Name": "tag-key", "Values": [OWNER_TAG]}])

    def zones(self, instance_type: str) -> list[str]:
        answer = self._pages(
            "describe_instance_type_offerings",
            "InstanceTypeOfferings",
            LocationType="availability-zone",
            Filters=[{"Name": "instance-type", "Values": [instance_type]}],
        )
        offered = sorted({one["Location"] for one in answer})
        return [zone for zone in offered if not self._subnets or zone in self._subnets]

    def _describe(self, filters: list[dict[str, Any]]) -> list[Instance]:
        reservations = self._pages("describe_instances", "Reservations", Filters=filters, MaxResults=500)
        return [self._instance(one) for group in reservations for one in group["Instances"]]

    def _instance(self, document: Mapping[str, Any]) -> Instance:
        return aws_requests.instance_from(document, provider=self.name, region=self.region)

    # --- changing ---------------------------------------------------------------------------------------------

    def stop(self, instance_ids: Sequence[str]) -> None:
        self._on_instances("stop_instances", instance_ids, InstanceIds=None)

    def start(self, instance_ids: Sequence[str]) -> None:
        self._on_instances("start_instances", instance_ids, InstanceIds=None)

    def terminate(self, instance_ids: Sequence[str]) -> None:
        self._on_instances("terminate_instances", instance_ids, unknown_is_fine=True, InstanceIds=None)

    def tag(self, instance_ids: Sequence[str], tags: Mapping[str, str]) -> None:
        if not tags:
            return
        aws_requests.check_tags(tags)
        pairs = [{"Key": key, "Value": value} for key, value in sorted(tags.items())]
        self._on_instances("create_tags", instance_ids, Resources=None, Tags=pairs)

    def _on_instances(
        self, action: str, instance_ids: Sequence[str], *, unknown_is_fine: bool = False, **parameters: Any
    ) -> None:
        """Does `action` to all of them; the parameter that is None takes the ids.

        EC2 refuses the whole call for one id that it does not know. One that this object has just launched is asked
        for again until EC2 knows it: taken as ended, it would run on.
        """
        place = next(name for name, value in parameters.items() if value is None)
        left = list(dict.fromkeys(instance_ids))
        until = time.monotonic() + self._settle_s
        pause_s = self._first_pause_s
        while left:
            some = left[:_PAGE]
            try:
                self._call(action, **{**parameters, place: some})
            except _UnknownInstanceError as unknown:
                named = {one for one in some if one in unknown.message}
                fresh = [one for one in named if self._is_fresh(one)]
                if fresh and time.monotonic() < until:
                    time.sleep(random.uniform(0, pause_s))
                    pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
                    continue
                if fresh:
                    raise ProviderUnavailableError(
                        f"EC2 does not know {', '.join(fresh)} yet, which it launched a moment ago"
                    ) from unknown
                if not unknown_is_fine or not named:
                    raise unknown.error from unknown
                left = [one for one in left if one not in named]
                continue
            left = left[_PAGE:]

    def _is_fresh(self, instance_id: str) -> bool:
        with self._lock:
            since = self._fresh.get(instance_id)
            return since is not None and time.monotonic() - since < 10 * self._settle_s

    # --- asking -----------------------------------------------------------------------------------------------

    def _pages(self, action: str, key: str, **parameters: Any) -> list[Any]:
        found: list[Any] = []
        token = None
        while True:
            more: dict[str, str] = {"NextToken": token} if token else {}
            answer = self._call(action, **parameters, **more)
            found.extend(answer.get(key) or ())
            token = answer.get("NextToken")
            if not token:
                return found

    def _call(self, action: str, **parameters: Any) -> dict[str, Any]:
        """One action, again where EC2 throttles or does not answer. All that is called here may be repeated."""
        method: Callable[..., dict[str, Any]] = getattr(self._client, action)
        until = time.monotonic() + self._deadline_s
        ceiling_s = self._first_pause_s
        for attempt in range(self._retries + 1):
            if attempt:
                count(retries=1)
                time.sleep(random.uniform(0, ceiling_s))
                ceiling_s = min(2 * ceiling_s, _LONGEST_PAUSE_S)
            try:
                return method(**parameters)
            except Exception as error:
                meaning = client_meaning(error, action=action, region=self.region)
                if isinstance(error, self._errors.ClientError) and code_of(error) in NOT_FOUND:
                    raise _UnknownInstanceError(message_of(error), meaning.error) from error
                if not meaning.again:
                    raise meaning.error from error
                last = error
            if time.monotonic() >= until:
                break
        raise meaning.error from last


class _UnknownInstanceError(Exception):
    """EC2 knows no instance of some id; `message` names it."""

    def __init__(self, message: str, error: TextnlpFastError) -> None:
        super().__init__(message)
        self.message = message
        self.error = error


def _outcome(request: LaunchRequest, instances: list[Instance], why: str | None = None) -> LaunchOutcome:
    missing = max(0, request.count - len(instances))
    if not missing:
        return LaunchOutcome(instances=tuple(instances))
    had = f"EC2 had {len(instances)} of the {request.count} asked for"
    return LaunchOutcome(instances=tuple(instances), missing=missing, why=f"{had}: {why}" if why else had)


def _default_image(instance_type: str) -> str:
    return DEFAULT_IMAGES["arm64" if instance_type.startswith(_ARM_FAMILIES) else "x86_64"]
