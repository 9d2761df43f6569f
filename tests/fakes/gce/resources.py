"""What the fake says of machines and operations, and the filters of its lists."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from fakes.gce.state import MACHINE_TYPES, ApiError, Machine, Operation

__all__ = ["error_body", "instance", "machine_type", "operation", "page", "parse_filter"]


def error_body(status: int, reason: str, message: str) -> dict[str, Any]:
    return {
        "error": {
            "code": status,
            "message": message,
            "errors": [{"message": message, "domain": "global", "reason": reason}],
        }
    }


def instance(machine: Machine, root: str) -> dict[str, Any]:
    """An `Instance`; `root` is the address of the project."""
    zone = f"{root}/zones/{machine.zone}"
    properties = machine.properties
    interface = {
        "kind": "compute#networkInterface",
        "name": "nic0",
        "network": f"{root}/{properties['networkInterfaces'][0].get('network', 'global/networks/default')}",
        "networkIP": f"10.128.{machine.number // 250 % 250}.{machine.number % 250 + 2}",
    }
    if properties["networkInterfaces"][0].get("accessConfigs"):
        interface["accessConfigs"] = [
            {
                "kind": "compute#accessConfig",
                "type": "ONE_TO_ONE_NAT",
                "name": "external-nat",
                "networkTier": "PREMIUM",
                **({"natIP": f"203.0.113.{machine.number % 250 + 2}"} if machine.status == "RUNNING" else {}),
            }
        ]
    described: dict[str, Any] = {
        "kind": "compute#instance",
        "id": str(machine.number),
        "creationTimestamp": machine.created,
        "name": machine.name,
        "zone": zone,
        "selfLink": f"{zone}/instances/{machine.name}",
        "machineType": f"{zone}/machineTypes/{properties['machineType']}",
        "status": machine.status,
        "labelFingerprint": machine.label_fingerprint,
        "scheduling": {
            "preemptible": machine.spot,
            "provisioningModel": "STANDARD",
            **properties["scheduling"],
        },
        "networkInterfaces": [interface],
        "disks": [
            {
                "kind": "compute#attachedDisk",
                "boot": True,
                "autoDelete": True,
                "index": 0,
                "type": "PERSISTENT",
                "mode": "READ_WRITE",
                "diskSizeGb": str(properties["disks"][0]["initializeParams"]["diskSizeGb"]),
                "source": f"{zone}/disks/{machine.name}",
            }
        ],
    }
    if machine.labels:
        described["labels"] = dict(machine.labels)
    if machine.accelerator:
        described["guestAccelerators"] = [
            {
                "acceleratorType": f"{zone}/acceleratorTypes/{machine.accelerator[0]}",
                "acceleratorCount": machine.accelerator[1],
            }
        ]
    if machine.stopped:
        described["lastStopTimestamp"] = machine.stopped
    return described


def operation(one: Operation, root: str) -> dict[str, Any]:
    """An `Operation`."""
    scope, name = one.scope
    place = f"{root}/{scope}/{name}"
    described: dict[str, Any] = {
        "kind": "compute#operation",
        "id": str(one.number),
        "name": one.name,
        "operationType": one.kind,
        "status": one.status,
        "progress": 100 if one.status == "DONE" else 0,
        "targetLink": f"{root}/{one.target}",
        "targetId": str(one.target_id),
        "user": "fleet@test-project.iam.gserviceaccount.com",
        "insertTime": one.started,
        "startTime": one.started,
        "selfLink": f"{place}/operations/{one.name}",
        scope.removesuffix("s"): place,
    }
    if one.request_id:
        described["clientOperationId"] = one.request_id
    if one.group:
        described["operationGroupId"] = one.group
    if one.metadata:
        described["instancesBulkInsertOperationMetadata"] = one.metadata
    if one.ended:
        described["endTime"] = one.ended
    if one.errors and one.status == "DONE":
        described["error"] = {"errors": [{"code": code, "message": text} for code, text in one.errors]}
        described["httpErrorStatusCode"] = one.error_status
        described["httpErrorMessage"] = "SERVICE UNAVAILABLE" if one.error_status == 503 else "FORBIDDEN"
    return described


def machine_type(name: str, zone: str, root: str) -> dict[str, Any]:
    """A `MachineType`."""
    cpus, memory_mb, accelerator = MACHINE_TYPES[name]
    described: dict[str, Any] = {
        "kind": "compute#machineType",
        "name": name,
        "zone": zone,
        "guestCpus": cpus,
        "memoryMb": memory_mb,
        "selfLink": f"{root}/zones/{zone}/machineTypes/{name}",
    }
    if accelerator:
        described["accelerators"] = [
            {"guestAcceleratorType": accelerator[0], "guestAcceleratorCount": accelerator[1]}
        ]
    return described


def page(items: list[dict[str, Any]], query: dict[str, str], kind: str, most: int) -> dict[str, Any]:
    """One page of a list. The real one gives up to 500 a page, and may always give fewer."""
    kept = [item for item in items if parse_filter(query.get("filter", ""))(item)]
    begin = int(query.get("pageToken", "0"))
    most = min(most, int(query.get("maxResults", most)))
    body: dict[str, Any] = {"kind": kind, "id": kind}
    if kept[begin : begin + most]:
        body["items"] = kept[begin : begin + most]
    if begin + most < len(kept):
        body["nextPageToken"] = str(begin + most)
    return body


def parse_filter(text: str) -> Callable[[dict[str, Any]], bool]:
    """The part of the filter language that is spoken here: `field="value"` and `labels.key:*`, AND between them."""
    tests: list[Callable[[dict[str, Any]], bool]] = []
    for part in filter(None, re.split(r"\s+AND\s+", text)):
        legacy = re.fullmatch(r'(\w+) eq "([^"]+)"', part)
        if legacy:  # the older syntax: a regular expression that has to match all of it
            name, pattern = legacy.groups()
            tests.append(lambda item, n=name, p=pattern: bool(re.fullmatch(p, str(item.get(n, "")))))
            continue
        found = re.fullmatch(r'\(?\s*([\w.-]+)\s*(=|:)\s*("([^"]*)"|\*)\s*\)?', part)
        if not found or (found[2] == ":") != (found[3] == "*"):
            raise ApiError(400, "invalid", f"Invalid value for field 'filter': '{text}'.")
        path, wanted = found[1].partition("."), found[4]

        def holds(item: dict[str, Any], path: Any = path, wanted: str | None = wanted) -> bool:
            value = item.get(path[0])
            if path[1]:
                value = (value or {}).get(path[2])
            return value is not None if wanted is None else value == wanted

        tests.append(holds)
    return lambda item: all(test(item) for test in tests)
