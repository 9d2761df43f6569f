"""What the fake says of machines, cards, addresses, disks and sizes."""

from __future__ import annotations

from typing import Any

from fakes.azure_arm.state import Machine, Size, State

__all__ = ["error_body", "machine", "size", "thing"]

_TYPES = {
    "networkInterfaces": "Microsoft.Network/networkInterfaces",
    "publicIPAddresses": "Microsoft.Network/publicIPAddresses",
    "disks": "Microsoft.Compute/disks",
    "sshPublicKeys": "Microsoft.Compute/sshPublicKeys",
}


def error_body(code: str, message: str) -> dict[str, Any]:
    return {"error": {"code": code, "message": message}}


def machine(one: Machine, state: State, group: str, *, view: bool) -> dict[str, Any]:
    """A `VirtualMachine`; `group` is the resource group's id."""
    asked = one.body["properties"]
    cards = [
        {
            "id": f"{group}/providers/{_TYPES['networkInterfaces']}/{thing['name']}",
            "properties": {"primary": True},
        }
        for thing in state.things["networkInterfaces"].values()
        if thing["machine"] == one.name
    ]
    disk = {key: value for key, value in asked["storageProfile"]["osDisk"].items() if key != "createOption"}
    system = {key: value for key, value in asked["osProfile"].items() if key != "customData"}
    properties: dict[str, Any] = {
        "vmId": one.vm_id,
        "timeCreated": one.created,
        "provisioningState": one.stage,
        "hardwareProfile": asked["hardwareProfile"],
        "storageProfile": {
            "imageReference": asked["storageProfile"]["imageReference"],
            "osDisk": {**disk, "createOption": "FromImage", "osType": "Linux"},
        },
        "osProfile": system,
        "networkProfile": {"networkInterfaces": cards},
    }
    for key in ("priority", "evictionPolicy", "billingProfile"):
        if key in asked:
            properties[key] = asked[key]
    if view:
        properties["instanceView"] = {"statuses": _statuses(one)}
    described: dict[str, Any] = {
        "id": f"{group}/providers/Microsoft.Compute/virtualMachines/{one.name}",
        "name": one.name,
        "type": "Microsoft.Compute/virtualMachines",
        "location": one.body["location"],
        "tags": dict(one.body.get("tags") or {}),
        "etag": one.etag,
        "properties": properties,
    }
    if one.zone:
        described["zones"] = [one.zone]
    return described


def _statuses(one: Machine) -> list[dict[str, Any]]:
    level = "Error" if one.stage == "Failed" else "Info"
    code = f"ProvisioningState/{one.stage.lower()}"
    first: dict[str, Any] = {"code": code, "level": level, "displayStatus": one.stage}
    if one.failure and one.stage == "Failed":
        first.update(
            code=f"{code}/{one.failure[0]}", message=one.failure[1], displayStatus="Provisioning failed"
        )
    statuses = [first]
    if one.power:
        statuses.append(
            {"code": f"PowerState/{one.power}", "level": "Info", "displayStatus": f"VM {one.power}"}
        )
    return statuses


def thing(kind: str, one: dict[str, Any], group: str) -> dict[str, Any]:
    """A `NetworkInterface`, `PublicIPAddress`, `Disk` or `SshPublicKeyResource`."""
    described: dict[str, Any] = {
        "id": f"{group}/providers/{_TYPES[kind]}/{one['name']}",
        "name": one["name"],
        "type": _TYPES[kind],
        "location": one.get("location", "westeurope"),
    }
    if kind == "networkInterfaces":
        address: dict[str, Any] = {
            "privateIPAddress": f"10.0.{one['number'] // 250}.{one['number'] % 250 + 1}",
            "privateIPAllocationMethod": "Dynamic",
            "primary": True,
        }
        if one.get("public"):
            address["publicIPAddress"] = {
                "id": f"{group}/providers/{_TYPES['publicIPAddresses']}/{one['public']}"
            }
        described["properties"] = {
            "provisioningState": "Succeeded",
            "ipConfigurations": [{"name": "primary", "properties": address}],
        }
    elif kind == "publicIPAddresses":
        described["properties"] = {
            "provisioningState": "Succeeded",
            "publicIPAllocationMethod": "Static",
            "ipAddress": f"203.0.113.{one['number'] % 250 + 1}",
        }
    elif kind == "disks":
        described["properties"] = {"creationData": {"createOption": "FromImage"}, "diskSizeGB": one["size"]}
    else:
        described["tags"] = one["tags"]
        described["properties"] = {"publicKey": one["key"]}
    return described


def size(name: str, one: Size, location: str) -> dict[str, Any]:
    """A `ResourceSku`."""
    zones = sorted(zone for zone in one.free if zone)
    described: dict[str, Any] = {
        "resourceType": "virtualMachines",
        "name": name,
        "family": one.family,
        "locations": [location],
        "locationInfo": [{"location": location, "zones": zones}],
        "restrictions": [],
    }
    if one.barred:
        described["restrictions"] = [
            {
                "type": "Zone",
                "values": [location],
                "restrictionInfo": {"locations": [location], "zones": list(one.barred)},
                "reasonCode": "NotAvailableForSubscription",
            }
        ]
    return described
