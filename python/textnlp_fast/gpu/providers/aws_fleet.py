"""Spot by CreateFleet of type `instant`: one request over all zones, and EC2 chooses where it is cheap and lasts.

A fleet launches from a launch template (`aws_templates`). User data is not in it, but in the request, for it may hold
secrets, and a template stays.

The launch's id is the token. An answer in which nothing was launched is an answer, and stays the token's: the same
launch is not begun again. Only where all that was wrong would pass by itself is the next token asked for, one that
follows from the first; so all who ask for the launch come by the same row of tokens, and at most one of them launches.

Request and answer: https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_CreateFleet.html
"""

from __future__ import annotations

import base64
import datetime
import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from textnlp_fast.errors import (
    AuthenticationError,
    CapacityError,
    InvalidInputError,
    PriceTooHighError,
    ProviderUnavailableError,
    QuotaError,
    TextnlpFastError,
)
from textnlp_fast.gpu.providers.aws_errors import MissingTemplateError, meaning_of
from textnlp_fast.gpu.providers.aws_templates import Templates
from textnlp_fast.gpu.providers.contract import (
    Instance,
    InstanceState,
    LaunchRequest,
)
from textnlp_fast.gpu.types import Market

__all__ = ["Fleets", "Pool", "create_fleet", "known_to", "refusal"]

_LONGEST_PAUSE_S: Final = 8.0
_TOKENS: Final = 4
# Of several reasons the first of these counts: a place that lacks capacity says more than one that is too dear.
_GRAVEST: Final = (AuthenticationError, QuotaError, CapacityError, PriceTooHighError, InvalidInputError)


class Pool(NamedTuple):
    """What a fleet may choose: a type in a zone, by the subnet or by the default VPC's."""

    instance_type: str
    zone: str
    subnet: str | None


def known_to(client: Any) -> bool:
    """Whether a boto3 client can give a fleet user data; those of before July 2026 cannot."""
    shape = client.meta.service_model.shape_for("FleetLaunchTemplateSpecificationRequest")
    return "LaunchTemplateSpecificationUserData" in shape.members


def create_fleet(
    request: LaunchRequest,
    pools: Sequence[Pool],
    *,
    template_name: str,
    tags: Mapping[str, str],
    number: int = 0,
) -> dict[str, Any]:
    """The parameters of CreateFleet, the `number`-th of the launch. They depend on the request and the pools alone."""
    tag_list = [{"Key": key, "Value": value} for key, value in sorted(tags.items())]
    # Version 1, not the default one: that could be set to another content.
    launched: dict[str, str] = {"LaunchTemplateName": template_name, "Version": "1"}
    if request.user_data is not None:
        coded = base64.b64encode(request.user_data.encode()).decode()
        launched["LaunchTemplateSpecificationUserData"] = coded
    overrides: list[dict[str, str]] = []
    for pool in pools:
        override = {"InstanceType": pool.instance_type}
        override |= {"SubnetId": pool.subnet} if pool.subnet else {"AvailabilityZone": pool.zone}
        if request.max_usd_per_hour is not None:
            override["MaxPrice"] = f"{request.max_usd_per_hour:.6f}"
        overrides.append(override)
    return {
        "Type": "instant",
        "ClientToken": f"{request.launch_id}.{number}" if number else request.launch_id,
        "SpotOptions": {
            "AllocationStrategy": "price-capacity-optimized",
            "InstanceInterruptionBehavior": "terminate",
            # EC2 keeps the least of a launch for machines of one type, or of one zone, only.
            "SingleInstanceType": True,
            "MinTargetCapacity": request.min_count,
        },
        "TargetCapacitySpecification": {
            "TotalTargetCapacity": request.count,
            "SpotTargetCapacity": request.count,
            "OnDemandTargetCapacity": 0,
            "DefaultTargetCapacityType": "spot",
        },
        "LaunchTemplateConfigs": [{"LaunchTemplateSpecification": launched, "Overrides": overrides}],
        "TagSpecifications": [
            {"ResourceType": kind, "Tags": tag_list} for kind in ("fleet", "instance", "volume")
        ],
    }


def refusal(answer: Mapping[str, Any], *, region: str) -> TextnlpFastError:
    """What a fleet that launched nothing says, as one error; CapacityError where it says nothing.

    ProviderUnavailableError only where every reason would pass by itself.
    """
    reasons = _reasons(answer, region)
    for kind in _GRAVEST:
        for reason in reasons:
            if isinstance(reason, kind):
                return reason
    if not reasons:
        return CapacityError(f"create_fleet in {region}: nothing was launched, and no reason given")
    return ProviderUnavailableError(str(reasons[0].args[0]))


def _reasons(answer: Mapping[str, Any], region: str) -> list[TextnlpFastError]:
    found = []
    for one in answer.get("Errors") or ():
        override = (one.get("LaunchTemplateAndOverrides") or {}).get("Overrides") or {}
        where = override.get("AvailabilityZone") or override.get("SubnetId")
        message = " ".join(
            str(one.get("ErrorMessage") or "").split("Encoded authorization failure")[0].split()
        )
        said = f"{message[:500]} [{override.get('InstanceType')} in {where}]" if where else message[:500]
        code = str(one.get("ErrorCode") or "")
        found.append(meaning_of(code, said, status=400, action="create_fleet", region=region))
    return found


class Fleets:
    """Launches by fleets, through the provider's `call`."""

    def __init__(
        self,
        call: Callable[..., dict[str, Any]],
        templates: Templates,
        *,
        region: str,
        retries: int,
        first_pause_s: float,
    ) -> None:
        self._call = call
        self._region = region
        self._retries = retries
        self._first_pause_s = first_pause_s
        self._templates = templates

    def launch(
        self,
        request: LaunchRequest,
        pools: Sequence[Pool],
        *,
        template: Mapping[str, Any],
        tags: Mapping[str, str],
    ) -> tuple[list[Instance], str | None]:
        """The launch's instances, and why there are fewer than asked for.

        Raises what kept EC2 from launching any; ConflictError where the launch was asked for with other parameters.
        """
        pause_s = self._first_pause_s
        for number in range(_TOKENS):
            answer = self._asked(request, pools, template, tags, number)
            instances = self._instances(answer, request, pools, tags)
            if instances:
                reasons = _reasons(answer, self._region)
                return instances, str(reasons[0].args[0]) if reasons else None
            reason = refusal(answer, region=self._region)
            if not isinstance(reason, ProviderUnavailableError):
                raise reason
            time.sleep(random.uniform(0, pause_s))
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        # Nothing was launched, and that is known: another place may be tried.
        raise CapacityError(str(reason.args[0]))

    def _asked(
        self,
        request: LaunchRequest,
        pools: Sequence[Pool],
        template: Mapping[str, Any],
        tags: Mapping[str, str],
        number: int,
    ) -> dict[str, Any]:
        """One fleet's answer, with its template made before it where there is none."""
        name = template["LaunchTemplateName"]
        parameters = create_fleet(request, pools, template_name=name, tags=tags, number=number)
        pause_s = self._first_pause_s
        for attempt in range(self._retries + 1):
            if attempt:
                time.sleep(random.uniform(0, pause_s))
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            self._templates.make(template)
            try:
                answer = self._call("create_fleet", **parameters)
            except MissingTemplateError as error:
                # Removed since, or not shown everywhere yet. No fleet was made, and the token is as it was.
                missing = error
                self._templates.forget(name)
                continue
            if any(isinstance(one, MissingTemplateError) for one in _reasons(answer, self._region)):
                self._templates.forget(name)
            return answer
        raise ProviderUnavailableError(str(missing.args[0]))

    def _instances(
        self,
        answer: Mapping[str, Any],
        request: LaunchRequest,
        pools: Sequence[Pool],
        tags: Mapping[str, str],
    ) -> list[Instance]:
        """As the answer has them: just ordered, without addresses."""
        zone_of: dict[str | None, str] = {pool.subnet: pool.zone for pool in pools if pool.subnet}
        now = datetime.datetime.now(datetime.timezone.utc)
        found = []
        for group in answer.get("Instances") or ():
            override = (group.get("LaunchTemplateAndOverrides") or {}).get("Overrides") or {}
            subnet = group.get("SubnetId") or override.get("SubnetId")
            zone = group.get("AvailabilityZone") or override.get("AvailabilityZone") or zone_of.get(subnet)
            found += [
                Instance(
                    provider="aws",
                    region=self._region,
                    zone=zone,
                    instance_id=instance_id,
                    instance_type=group.get("InstanceType")
                    or override.get("InstanceType")
                    or request.instance_type,
                    market=Market.SPOT,
                    state=InstanceState.PENDING,
                    launched_at=now,
                    launch_id=request.launch_id,
                    tags=dict(tags),
                )
                for instance_id in group.get("InstanceIds") or ()
            ]
        return found
