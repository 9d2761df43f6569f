"""The roles of the guides: what the providers were seen to ask is allowed, and little else.

What a request needs beside its own permission (a launch: a disk, a subnet) no server here can tell: those are named,
from the vendors' documentation.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from fakes.discovery import Discovery
from gpu.providers.harness import Harness, request_for
from textnlp_fast.errors import CapacityError
from textnlp_fast.gpu import Market

POLICIES = Path(__file__).parents[3] / "docs" / "guide" / "policies"

# https://cloud.google.com/compute/docs/reference/rest/v1/instances/bulkInsert and instances/insert
_WITH_A_LAUNCH = {
    "compute.disks.create",
    "compute.disks.setLabels",
    "compute.images.useReadOnly",
    "compute.instances.setMetadata",
    "compute.instances.setServiceAccount",
    "compute.subnetworks.use",
    "compute.subnetworks.useExternalIp",
}
# https://learn.microsoft.com/azure/role-based-access-control/permissions/compute: what is made with a machine.
_WITH_A_MACHINE = {
    "Microsoft.Compute/disks/write",
    "Microsoft.Compute/virtualMachines/instanceView/read",
    "Microsoft.Network/networkInterfaces/join/action",
    "Microsoft.Network/networkInterfaces/write",
    "Microsoft.Network/publicIPAddresses/join/action",
    "Microsoft.Network/publicIPAddresses/write",
    "Microsoft.Network/virtualNetworks/subnets/join/action",
}


def _whole_life(harness: Harness, *, count: int = 2, **options: Any) -> None:
    """All verbs of the contract, in a region and in a zone, and a launch that fails half way."""
    provider = harness.provider(**options)
    provider.zones(harness.instance_type)
    provider.zones(harness.other_type)
    for zone in (None, harness.zone):
        outcome = provider.launch(request_for(harness, count=count, market=Market.SPOT, zone=zone))
        ids = [one.instance_id for one in outcome.instances]
        provider.describe(ids)
        provider.list_instances()
        provider.tag(ids, {"team": "nlp"})
        provider.stop(ids)
        provider.start(ids)
        provider.terminate(ids)
    harness.capacity(1)
    try:
        provider.launch(request_for(harness, count=2, min_count=2, zone=harness.zone))
    except CapacityError:
        return
    raise AssertionError("there was capacity")


def test_googles_role_allows_what_is_asked(gcp: Any) -> None:
    _whole_life(gcp, external_ip=True)
    document = Discovery.installed("compute.v1")
    asked = {document.route(request.method, request.path)[0] for request, _ in gcp.fake.exchanges}
    needed = {re.sub(r"\.(regionInstances|instances)\.bulkInsert", ".instances.create", one) for one in asked}
    role = json.loads((POLICIES / "gcp-fleet-role.json").read_text(encoding="utf-8"))
    allowed = set(role["includedPermissions"])
    assert allowed == needed | _WITH_A_LAUNCH
    assert role["includedPermissions"] == sorted(allowed)


def test_azures_role_allows_what_is_asked(azure: Any) -> None:
    azure.fake.state.strands = True
    _whole_life(azure, public_ip=True)
    verbs = {"GET": "read", "PUT": "write", "PATCH": "write", "DELETE": "delete"}
    needed = set()
    for request, _ in azure.fake.exchanges:
        kind, rest = re.fullmatch(
            r".*/providers/(Microsoft\.\w+/\w+)(?:/[^/]+)?(/\w+)?", request.path
        ).groups()  # type: ignore[union-attr]
        needed.add(f"{kind}{rest}/action" if request.method == "POST" else f"{kind}/{verbs[request.method]}")
    role = json.loads((POLICIES / "azure-fleet-role.json").read_text(encoding="utf-8"))
    allowed = set(role["Actions"])
    assert allowed - {"Microsoft.Compute/disks/delete"} <= needed | _WITH_A_MACHINE
    assert needed <= allowed
    assert role["Actions"] == sorted(allowed) and not role["DataActions"]
