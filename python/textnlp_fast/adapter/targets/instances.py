"""Plain machines: cloud-init that fetches, starts and watches, and the requests by which they are rented."""

from __future__ import annotations

import json
from typing import Any, Final

from textnlp_fast.adapter.planning import DeploymentPlan
from textnlp_fast.adapter.targets import File
from textnlp_fast.adapter.targets.units import LIBRARY, machine_files, unit_names
from textnlp_fast.adapter.targets.yaml_text import yaml_text
from textnlp_fast.errors import InvalidInputError
from textnlp_fast.gpu.resources.requests import AcquireRequest, MarketChoice
from textnlp_fast.gpu.types import Market

__all__ = ["compile_files", "launch_requests", "user_data"]

#: EC2 takes no more, and the others do.
_MOST_BYTES: Final = 16 * 1024


def compile_files(plan: DeploymentPlan) -> tuple[File, ...]:
    """`user-data-CLOUD.yaml` for each cloud, and `launch.json`, what is asked of `gpu/resources`."""
    clouds = _clouds(plan)
    files = [
        File(f"{plan.name}-user-data{'-' + one if one else ''}.yaml", user_data(plan, cloud=one or None))
        for one in clouds or [""]
    ]
    if clouds:
        requests = [_shown(one) for one in launch_requests(plan)]
        files.append(File(f"{plan.name}-launch.json", json.dumps(requests, indent=2) + "\n"))
    return tuple(files)


def user_data(plan: DeploymentPlan, *, cloud: str | None = None, library: str = LIBRARY) -> str:
    """cloud-init's user data of one machine. Raises InvalidInputError if it is more than EC2 takes."""
    names = unit_names(plan)
    files = machine_files(plan, cloud=cloud, library=library)
    made = {path.rpartition("/")[2] for path, _, _ in files}
    enabled = [name for name in names.values() if name in made]
    # These bring the others.
    started = [names[one] for one in ("engine", "notice") if names[one] in made]
    setup = plan.deployment.machines.setup
    commands: list[list[str]] = []
    if setup:
        text = "#!/bin/sh\nset -eu\n" + "".join(f"{line}\n" for line in setup)
        files.append((f"{library}/{plan.name}/setup", text, 0o755))
        commands.append([f"{library}/{plan.name}/setup"])
    commands += [
        ["systemctl", "daemon-reload"],
        # Without waiting: a version may take long, and cloud-init has an end.
        ["systemctl", "enable", *enabled],
        ["systemctl", "start", "--no-block", *started],
    ]
    document: dict[str, Any] = {
        "write_files": [
            {"path": path, "owner": "root:root", "permissions": f"0{mode:o}", "content": text}
            for path, text, mode in files
        ],
        "runcmd": commands,
    }
    text = "#cloud-config\n" + yaml_text(document)
    if len(text.encode()) > _MOST_BYTES:
        raise InvalidInputError(
            f"the user data has {len(text.encode())} bytes, and machines take {_MOST_BYTES}",
            hint="Put long arguments and environments into the machine's image, or the model's folder.",
        )
    return text


def launch_requests(plan: DeploymentPlan) -> list[AcquireRequest]:
    """What is asked of `GPUResourceManager.acquire`, one request for each cloud and market that has a part in it.

    The key holds the version: machines of another one are others.
    """
    hardware, deployment = plan.hardware, plan.deployment
    if not hardware.offers or hardware.gpu is None:
        raise InvalidInputError(
            "no machine was chosen to be rented", hint="Give workload or machines, and placement.clouds."
        )
    on_spot = int(plan.replicas * deployment.spot.share + 1e-9)
    first = hardware.offers[0]
    parts: list[tuple[MarketChoice, int]] = [("on-demand", plan.replicas)]
    if first.market is Market.SPOT and on_spot:
        spot: MarketChoice = "spot-first" if deployment.spot.fall_back else "spot"
        parts = [(spot, on_spot), ("on-demand", plan.replicas - on_spot)]
    machine = first.instance_type
    return [
        AcquireRequest(
            gpu_types=[hardware.gpu],
            gpu_count=machine.gpu_count,
            instances=count,
            spread=True,
            market=market,
            providers=[machine.provider],
            regions=deployment.placement.regions or None,
            instance_types=[machine.name],
            image=deployment.machines.image,
            disk_gib=deployment.machines.disk_gib,
            user_data=user_data(plan, cloud=machine.provider),
            tags={"textnlp-fast-deployment": plan.name},
            key=f"{plan.name}/{plan.version.version}/{market}",
        )
        for market, count in parts
        if count
    ]


def _clouds(plan: DeploymentPlan) -> list[str]:
    return [plan.hardware.offers[0].instance_type.provider] if plan.hardware.offers else []


def _shown(request: AcquireRequest) -> dict[str, Any]:
    """The request as JSON, its user data by the name of their file."""
    found: dict[str, Any] = {
        "key": request.key,
        "gpu_types": [str(one) for one in request.gpu_types],
        "gpu_count": request.gpu_count,
        "instances": request.instances,
        "spread": request.spread,
        "market": request.market,
        "providers": list(request.providers or ()),
        "regions": list(request.regions or ()),
        "instance_types": list(request.instance_types or ()),
        "image": request.image,
        "disk_gib": request.disk_gib,
        "tags": dict(request.tags),
    }
    return {key: value for key, value in found.items() if value not in (None, [])}
