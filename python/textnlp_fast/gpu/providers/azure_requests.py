"""What Azure is asked, and what its answers mean, as plain data: no client, no network."""

from __future__ import annotations

import base64
import datetime
import re
from collections.abc import Mapping
from typing import Any, Final

from textnlp_fast.errors import InvalidInputError, TextnlpFastError, UnknownRegionError
from textnlp_fast.gpu.providers.azure_errors import error_of_code
from textnlp_fast.gpu.providers.contract import LAUNCH_TAG, Instance, InstanceState, LaunchRequest
from textnlp_fast.gpu.types import Market

__all__ = [
    "NETWORK_API",
    "allocated",
    "check_tags",
    "failure_of",
    "instance_from",
    "leftovers",
    "machine_names",
    "moment",
    "offered_zones",
    "virtual_machine",
    "zone_number",
]

#: The version of the network's API by which a machine's card and address are made with it.
NETWORK_API: Final = "2022-11-01"
_POWER: Final = {
    "starting": InstanceState.PENDING,
    "running": InstanceState.RUNNING,
    "stopping": InstanceState.STOPPING,
    "deallocating": InstanceState.STOPPING,
    "stopped": InstanceState.STOPPED,
    "deallocated": InstanceState.STOPPED,
}


def check_tags(tags: Mapping[str, str]) -> None:
    """Raises InvalidInputError for tags that Azure would refuse, before anything is launched."""
    if len(tags) > 50:
        raise InvalidInputError(f"{len(tags)} tags: Azure takes at most 50")
    lower = [key.lower() for key in tags]
    for key, value in tags.items():
        if not 1 <= len(key) <= 512 or re.search(r"[<>%&\\?/]", key):
            raise InvalidInputError(
                f"{key[:80]!r} is no name of a tag: 1 to 512 characters, none of < > % & \\ ? /"
            )
        if lower.count(key.lower()) > 1:
            raise InvalidInputError(f"the tag {key!r} is there twice: Azure does not tell capitals apart")
        if len(value) > 256:
            raise InvalidInputError(f"the value of tag {key!r} is longer than 256 characters")


def machine_names(request: LaunchRequest, region: str) -> list[str]:
    """The names of a launch's machines: they follow from its id, and Azure keeps one machine of a name in a group."""
    return [f"{request.launch_id}-{region}-m{place}" for place in range(request.count)]


def leftovers(name: str) -> dict[str, str]:
    """What a machine is made with, by kind: each follows from its name, and so can be found without it."""
    return {"network_interfaces": f"{name}-nic", "public_ip_addresses": f"{name}-ip", "disks": f"{name}-os"}


def zone_number(zone: str | None, region: str) -> str | None:
    """Azure's number of a zone: `eastus-2` is 2; a region by itself is no zone. Raises UnknownRegionError."""
    if zone is None or zone == region:
        return None
    found = re.fullmatch(rf"(?:{re.escape(region)}-)?([1-9])", zone, re.ASCII)
    if found is None:
        raise UnknownRegionError(f"{region} has no zone {zone!r}", hint=f"Zones are written like {region}-1.")
    return found[1]


def _image(image: str) -> dict[str, str]:
    if image.startswith("/"):
        kinds = {
            "/CommunityGalleries/": "communityGalleryImageId",
            "/SharedGalleries/": "sharedGalleryImageId",
        }
        return {next((field for prefix, field in kinds.items() if image.startswith(prefix)), "id"): image}
    parts = image.split(":")
    if len(parts) != 4 or not all(parts):
        raise InvalidInputError(
            f"{image!r} is no image of Azure's",
            hint="Write publisher:offer:sku:version (`az vm image list` shows them), or an image's resource id.",
        )
    return dict(zip(("publisher", "offer", "sku", "version"), parts, strict=True))


def virtual_machine(
    request: LaunchRequest,
    name: str,
    *,
    region: str,
    image: str,
    subnet: str,
    admin: str,
    ssh_public_key: str,
    public_ip: bool,
    tags: Mapping[str, str],
) -> dict[str, Any]:
    """The JSON of a VirtualMachine whose disk, network card and address are made with it and go with it."""
    names = leftovers(name)
    address: dict[str, Any] = {"subnet": {"id": subnet}, "primary": True}
    if public_ip:
        address["publicIPAddressConfiguration"] = {
            "name": names["public_ip_addresses"],
            "sku": {"name": "Standard", "tier": "Regional"},
            "properties": {"deleteOption": "Delete", "publicIPAllocationMethod": "Static"},
        }
    interface = {
        "name": names["network_interfaces"],
        "properties": {
            "primary": True,
            "deleteOption": "Delete",
            "ipConfigurations": [{"name": "primary", "properties": address}],
        },
    }
    system: dict[str, Any] = {
        "computerName": name,
        "adminUsername": admin,
        "linuxConfiguration": {
            "disablePasswordAuthentication": True,
            "ssh": {
                "publicKeys": [{"path": f"/home/{admin}/.ssh/authorized_keys", "keyData": ssh_public_key}]
            },
        },
    }
    if request.user_data is not None:
        system["customData"] = base64.b64encode(request.user_data.encode()).decode()
    properties: dict[str, Any] = {
        "hardwareProfile": {"vmSize": request.instance_type},
        "storageProfile": {
            "imageReference": _image(image),
            "osDisk": {
                "name": names["disks"],
                "createOption": "FromImage",
                "deleteOption": "Delete",
                "diskSizeGB": request.disk_gib,
                "managedDisk": {"storageAccountType": "Premium_LRS"},
            },
        },
        "osProfile": system,
        "networkProfile": {"networkApiVersion": NETWORK_API, "networkInterfaceConfigurations": [interface]},
    }
    if request.market is Market.SPOT:
        cap = request.max_usd_per_hour
        # -1: up to the on-demand price, and never taken back for the price.
        properties.update(
            priority="Spot",
            evictionPolicy="Deallocate",
            billingProfile={"maxPrice": -1 if cap is None else round(cap, 5)},
        )
    machine: dict[str, Any] = {"location": region, "tags": dict(tags), "properties": properties}
    number = zone_number(request.zone, region)
    return {**machine, "zones": [number]} if number else machine


def _statuses(machine: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    view = (machine.get("properties") or {}).get("instanceView") or {}
    return list(view.get("statuses") or ())


def _power(machine: Mapping[str, Any]) -> str | None:
    codes = [str(one.get("code", "")) for one in _statuses(machine)]
    return next((code.partition("/")[2] for code in codes if code.startswith("PowerState/")), None)


def failure_of(machine: Mapping[str, Any], *, action: str, place: str) -> TextnlpFastError | None:
    """Why the last thing that was ordered of a machine failed, if it did: its state keeps Azure's code."""
    properties = machine.get("properties") or {}
    if properties.get("provisioningState") != "Failed":
        return None
    for one in _statuses(machine):
        parts = str(one.get("code", "")).split("/")
        if parts[:2] == ["ProvisioningState", "failed"]:
            code = parts[2] if len(parts) > 2 else ""
            return error_of_code(
                code, str(one.get("message") or "provisioning failed"), action=action, place=place
            )
    return error_of_code("", "provisioning failed", action=action, place=place)


def allocated(machine: Mapping[str, Any]) -> bool:
    """Whether Azure has found hardware for a machine: it has power, or is done."""
    return _power(machine) in {"starting", "running"} or (
        (machine.get("properties") or {}).get("provisioningState") == "Succeeded" and _power(machine) is None
    )


def _state(machine: Mapping[str, Any]) -> InstanceState:
    provisioning = str((machine.get("properties") or {}).get("provisioningState", ""))
    if provisioning == "Deleting":
        return InstanceState.TERMINATING
    power = _power(machine)
    if power is not None:
        return _POWER.get(power, InstanceState.PENDING)
    # Made and failed before it had power: it does not run, and its disk is paid for until it is ended.
    return InstanceState.STOPPED if provisioning == "Failed" else InstanceState.PENDING


def _reason(machine: Mapping[str, Any], *, spot: bool) -> str | None:
    failure = failure_of(machine, action="provisioning", place=str(machine.get("location", "")))
    if failure is not None:
        return str(failure.args[0])
    power = _power(machine)
    if power == "stopped":
        return "shut down from inside: Azure charges for it until it is stopped or ended"
    if power == "deallocated" and spot:
        told = [str(one["message"]) for one in _statuses(machine) if one.get("message")]
        return "; ".join(told) or "deallocated: evicted, or stopped by somebody; Azure does not say which"
    return None


def instance_from(
    machine: Mapping[str, Any], *, region: str, private_ip: str | None, public_ip: str | None
) -> Instance:
    """One machine of an answer, with its instance view."""
    properties, tags = machine.get("properties") or {}, dict(machine.get("tags") or {})
    spot = properties.get("priority") in {"Spot", "Low"}
    zones = machine.get("zones") or ()
    created = properties.get("timeCreated")
    return Instance(
        provider="azure",
        region=region,
        zone=f"{region}-{zones[0]}" if zones else None,
        instance_id=str(machine["name"]),
        instance_type=str((properties.get("hardwareProfile") or {}).get("vmSize", "")),
        market=Market.SPOT if spot else Market.ON_DEMAND,
        state=_state(machine),
        launched_at=moment(created) if created else datetime.datetime.now(datetime.timezone.utc),
        launch_id=tags.get(LAUNCH_TAG),
        tags=tags,
        public_ip=public_ip,
        private_ip=private_ip,
        reason=_reason(machine, spot=spot),
    )


def moment(text: str) -> datetime.datetime:
    """A time of Azure's, in UTC."""
    # Azure writes up to seven digits behind the second, which Python 3.10 does not read.
    plain = re.sub(r"\.(\d{1,6})\d*", lambda found: "." + found[1].ljust(6, "0"), text).replace("Z", "+00:00")
    at = datetime.datetime.fromisoformat(plain)
    if at.tzinfo is None:
        at = at.replace(tzinfo=datetime.timezone.utc)
    return at.astimezone(datetime.timezone.utc)


def offered_zones(sizes: list[Mapping[str, Any]], instance_type: str, region: str) -> list[str]:
    """The zones that offer a size to this subscription, out of the region's `ResourceSku`s.

    A region without zones is its own only one. Raises UnknownRegionError where Azure lists nothing at all.
    """
    if not sizes:
        raise UnknownRegionError(
            f"Azure has no region {region!r}", hint="`az account list-locations` lists them."
        )
    found: set[str] = set()
    for size in sizes:
        wanted = (str(size.get("name")).lower(), size.get("resourceType"))
        if wanted != (instance_type.lower(), "virtualMachines"):
            continue
        barred: set[str] = set()
        for one in size.get("restrictions") or ():
            if one.get("type") == "Location":
                return []
            barred.update((one.get("restrictionInfo") or {}).get("zones") or ())
        for info in size.get("locationInfo") or ():
            if str(info.get("location", "")).lower() == region:
                zones = set(info.get("zones") or ())
                found.update(f"{region}-{zone}" for zone in zones - barred)
                if not zones:
                    found.add(region)
    return sorted(found)
