"""What EC2 makes of an instant fleet: which of its places gets the machines, and what is said of the others.

After the user guide, "Allocation strategies for Spot Instances": with `price-capacity-optimized` the pools with the
most capacity for the number asked for, and of these the cheapest. What is played here is a launch in one pool.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape

__all__ = ["Override", "chosen", "fleet_answer", "only", "overrides_of"]

_OVERRIDE = re.compile(r"LaunchTemplateConfigs\.1\.Overrides\.(\d+)\.(\w+)")


class Override(NamedTuple):
    instance_type: str
    zone: str
    subnet: str | None
    max_price: float | None


def overrides_of(form: Mapping[str, str]) -> list[Override]:
    found: dict[int, dict[str, str]] = {}
    for name, value in form.items():
        matched = _OVERRIDE.fullmatch(name)
        if matched is not None:
            found.setdefault(int(matched[1]), {})[matched[2]] = value
    return [
        Override(
            one["InstanceType"],
            one.get("AvailabilityZone", ""),
            one.get("SubnetId"),
            float(one["MaxPrice"]) if "MaxPrice" in one else None,
        )
        for _, one in sorted(found.items())
    ]


def chosen(
    overrides: Sequence[Override], wanted: int, least: int, pool: Callable[[Override], tuple[int, float]]
) -> tuple[Override | None, int, list[tuple[Override, str, str]]]:
    """The place, how many it gives, and the errors of the others."""
    errors: list[tuple[Override, str, str]] = []
    usable: list[tuple[int, float, Override]] = []
    for one in overrides:
        there, price = pool(one)
        if one.max_price is not None and one.max_price < price:
            said = f"Your Spot request price of {one.max_price} is lower than the minimum of {price}."
            errors.append((one, "SpotMaxPriceTooLow", said))
        elif there < max(1, least):
            said = f"We currently do not have sufficient {one.instance_type} capacity."
            errors.append((one, "InsufficientInstanceCapacity", said))
        else:
            usable.append((-min(there, wanted), price, one))
    if not usable:
        return None, 0, errors
    best = min(usable, key=lambda one: one[:2])
    if -best[0] < wanted:
        said = "There is not enough capacity to fulfill your request."
        errors.append((best[2], "UnfulfillableCapacity", said))
    return best[2], -best[0], errors


def only(form: Mapping[str, str], place: Override, subnet: str, granted: int) -> dict[str, str]:
    """The request for one place, in words that moto understands."""
    first = "LaunchTemplateConfigs.1.Overrides.1."
    kept = {name: value for name, value in form.items() if not _OVERRIDE.fullmatch(name)}
    kept |= {f"{first}InstanceType": place.instance_type, f"{first}SubnetId": subnet}
    for name in ("Total", "Spot"):
        kept[f"TargetCapacitySpecification.{name}TargetCapacity"] = str(granted)
    return kept


def fleet_answer(
    form: Mapping[str, str],
    errors: Sequence[tuple[Override, str, str]],
    place: Override | None = None,
    instance_ids: Sequence[str] = (),
) -> bytes:
    """CreateFleetResponse, by the names of EC2's service model."""
    template = form["LaunchTemplateConfigs.1.LaunchTemplateSpecification.LaunchTemplateName"]

    def at(one: Override) -> str:
        where = (
            f"<subnetId>{one.subnet}</subnetId>"
            if one.subnet
            else f"<availabilityZone>{one.zone}</availabilityZone>"
        )
        return (
            "<launchTemplateAndOverrides><launchTemplateSpecification>"
            f"<launchTemplateName>{template}</launchTemplateName><version>1</version></launchTemplateSpecification>"
            f"<overrides><instanceType>{one.instance_type}</instanceType>{where}</overrides>"
            "</launchTemplateAndOverrides><lifecycle>spot</lifecycle>"
        )

    said = "".join(
        f"<item>{at(one)}<errorCode>{code}</errorCode><errorMessage>{escape(message)}</errorMessage></item>"
        for one, code, message in errors
    )
    ids = "".join(f"<item>{one}</item>" for one in instance_ids)
    launched = (
        f"<item>{at(place)}<instanceIds>{ids}</instanceIds><instanceType>{place.instance_type}</instanceType></item>"
        if place is not None
        else ""
    )
    return (
        '<CreateFleetResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"><requestId>0</requestId>'
        f"<fleetId>fleet-{uuid.uuid4()}</fleetId><errorSet>{said}</errorSet>"
        f"<fleetInstanceSet>{launched}</fleetInstanceSet></CreateFleetResponse>"
    ).encode()
