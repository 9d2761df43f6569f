"""What EC2 is asked, and what its answers mean, as plain data: no client, no network."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any, Final

from textnlp_fast.errors import InvalidInputError
from textnlp_fast.gpu.providers.contract import (
    LAUNCH_TAG,
    Instance,
    InstanceState,
    LaunchRequest,
)
from textnlp_fast.gpu.types import Market

__all__ = ["check_tags", "filters_for", "instance_from", "run_instances"]

_STATES: Final = {
    "pending": InstanceState.PENDING,
    "running": InstanceState.RUNNING,
    "stopping": InstanceState.STOPPING,
    "stopped": InstanceState.STOPPED,
    "shutting-down": InstanceState.TERMINATING,
    "terminated": InstanceState.TERMINATED,
}


def check_tags(tags: Mapping[str, str]) -> None:
    """Raises InvalidInputError for tags that EC2 would refuse, before anything is launched."""
    if len(tags) > 50:
        raise InvalidInputError(f"{len(tags)} tags: EC2 takes at most 50")
    for key, value in tags.items():
        if not 1 <= len(key) <= 128 or key.lower().startswith("aws:"):
            raise InvalidInputError(
                f"{key[:140]!r} is no key of a tag: 1 to 128 characters, not beginning with aws:"
            )
        if len(value) > 256:
            raise InvalidInputError(f"the value of tag {key!r} is longer than 256 characters")


def run_instances(
    request: LaunchRequest,
    *,
    image: str,
    root_device: str,
    subnet: str | None,
    tags: Mapping[str, str],
    extra: Mapping[str, Any],
) -> dict[str, Any]:
    """The parameters of RunInstances.

    They depend on the request alone, so that a repetition carries the same ones: EC2 refuses a token that comes
    with others.
    """
    tag_list = [{"Key": key, "Value": value} for key, value in sorted(tags.items())]
    disk = {"VolumeSize": request.disk_gib, "VolumeType": "gp3", "DeleteOnTermination": True}
    parameters: dict[str, Any] = {
        **extra,
        "ClientToken": request.launch_id,
        "ImageId": image,
        "InstanceType": request.instance_type,
        "MinCount": request.min_count,
        "MaxCount": request.count,
        "BlockDeviceMappings": [{"DeviceName": root_device, "Ebs": disk}],
        "TagSpecifications": [{"ResourceType": kind, "Tags": tag_list} for kind in ("instance", "volume")],
        # A token for every request of the metadata service: a server that can be talked into fetching a URL must not
        # hand out the machine's role.
        "MetadataOptions": {"HttpTokens": "required", "HttpPutResponseHopLimit": 2},
    }
    if request.market is Market.SPOT:
        spot: dict[str, str] = {
            "SpotInstanceType": "one-time",
            "InstanceInterruptionBehavior": "terminate",
        }
        if request.max_usd_per_hour is not None:
            spot["MaxPrice"] = f"{request.max_usd_per_hour:.6f}"
        parameters["InstanceMarketOptions"] = {"MarketType": "spot", "SpotOptions": spot}
    if subnet is not None:
        parameters["SubnetId"] = subnet
    elif request.zone is not None:
        parameters["Placement"] = {"AvailabilityZone": request.zone}
    if request.user_data is not None:
        parameters["UserData"] = request.user_data
    return parameters


def filters_for(tags: Mapping[str, str]) -> list[dict[str, Any]]:
    """Filters of DescribeInstances: all of the tags; a `*` in a value means itself."""
    return [
        {
            "Name": f"tag:{key}",
            "Values": [value.replace("\\", "\\\\").replace("*", "\\*").replace("?", "\\?")],
        }
        for key, value in sorted(tags.items())
    ]


def instance_from(document: Mapping[str, Any], *, provider: str, region: str) -> Instance:
    """One instance of an answer. `launched_at` is when it was last started: EC2 keeps no other time."""
    tags = {tag["Key"]: tag.get("Value", "") for tag in document.get("Tags") or ()}
    launched = document.get("LaunchTime")
    if not isinstance(launched, datetime.datetime):
        launched = datetime.datetime.now(datetime.timezone.utc)
    if launched.tzinfo is None:
        launched = launched.replace(tzinfo=datetime.timezone.utc)
    reason = (document.get("StateReason") or {}).get("Message") or document.get("StateTransitionReason")
    return Instance(
        provider=provider,
        region=region,
        zone=(document.get("Placement") or {}).get("AvailabilityZone"),
        instance_id=document["InstanceId"],
        instance_type=document["InstanceType"],
        market=Market.SPOT if document.get("InstanceLifecycle") == "spot" else Market.ON_DEMAND,
        state=_STATES.get((document.get("State") or {}).get("Name", ""), InstanceState.PENDING),
        launched_at=launched.astimezone(datetime.timezone.utc),
        launch_id=tags.get(LAUNCH_TAG),
        tags=tags,
        public_ip=document.get("PublicIpAddress") or None,
        private_ip=document.get("PrivateIpAddress") or None,
        reason=reason or None,
    )
