"""What Compute Engine is asked, and what its answers mean, as plain data: no client, no network."""

from __future__ import annotations

import datetime
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from textnlp_fast.errors import InvalidInputError
from textnlp_fast.gpu.providers.contract import (
    LAUNCH_TAG,
    OWNER_TAG,
    Instance,
    InstanceState,
    LaunchRequest,
)
from textnlp_fast.gpu.types import Market

__all__ = [
    "Machine",
    "bulk_insert",
    "check_labels",
    "filter_for",
    "instance_from",
    "instance_names",
    "last_part",
    "moment",
    "parse_instance_id",
    "parse_machine",
    "request_id",
]

_STATES: Final = {
    "PENDING": InstanceState.PENDING,
    "PROVISIONING": InstanceState.PENDING,
    "STAGING": InstanceState.PENDING,
    "RUNNING": InstanceState.RUNNING,
    # After an error of its host an instance is made anew elsewhere: it comes back by itself.
    "REPAIRING": InstanceState.PENDING,
    "PENDING_STOP": InstanceState.STOPPING,
    "STOPPING": InstanceState.STOPPING,
    "SUSPENDING": InstanceState.STOPPING,
    "STOPPED": InstanceState.STOPPED,
    "SUSPENDED": InstanceState.STOPPED,
    # Compute Engine's word for stopped: the machine and its disks are there. An ended one is not there at all.
    "TERMINATED": InstanceState.STOPPED,
    "DEPROVISIONING": InstanceState.TERMINATING,
}
# Boot disks that families take: https://cloud.google.com/compute/docs/disks (machine series support).
_DISKS: Final = (
    ("a4", "hyperdisk-balanced"),
    ("g4", "hyperdisk-balanced"),
    ("a3-ultra", "hyperdisk-balanced"),
    ("", "pd-balanced"),
)
# https://cloud.google.com/compute/docs/networking/using-gvnic: newer families know nothing else.
_GVNIC: Final = ("a3-", "a4", "g4-")
_REQUESTS: Final = uuid.UUID("5d0c5a5e-7a3c-5a8f-9f0e-2f4a3c1b7d66")


@dataclass(frozen=True)
class Machine:
    """A machine type as Compute Engine takes it: N1 gets its GPUs one by one, other families have theirs."""

    machine_type: str
    accelerator: str | None = None
    accelerator_count: int = 0


def parse_machine(name: str) -> Machine:
    """`g2-standard-4`, or `n1-standard-8+nvidia-tesla-t4x2`: N1 with accelerators. Raises InvalidInputError."""
    found = re.fullmatch(r"([a-z][a-z0-9-]{0,62})(?:\+([a-z][a-z0-9-]{0,50})x([1-9]\d?))?", name, re.ASCII)
    if found is None or (found[2] and not found[1].startswith("n1-")):
        raise InvalidInputError(
            f"{name!r} is no instance type of Google's",
            hint="Write a machine type (g2-standard-4), or N1 with its GPUs (n1-standard-8+nvidia-tesla-t4x2).",
        )
    return Machine(found[1], found[2], int(found[3] or 0))


def check_labels(labels: Mapping[str, str]) -> None:
    """Raises InvalidInputError for tags that Google does not take as labels."""
    if len(labels) > 64:
        raise InvalidInputError(f"{len(labels)} labels: Compute Engine takes at most 64")
    for key, value in labels.items():
        # Letters that are no capitals: other alphabets are allowed, and counted in characters.
        if not re.fullmatch(r"[^\W\d_][\w-]{0,62}", key) or key != key.lower():
            raise InvalidInputError(
                f"{key[:80]!r} is no key of a label: 1 to 63 lower-case letters, digits, _ and -, a letter first"
            )
        if not re.fullmatch(r"[\w-]{0,63}", value) or value != value.lower():
            raise InvalidInputError(
                f"{value[:80]!r} is no value of the label {key!r}: at most 63 lower-case letters, digits, _ and -"
            )


def instance_names(request: LaunchRequest) -> list[str]:
    """The names of a launch's machines. They follow from its id: two machines of one name cannot be in a zone."""
    return [f"{request.launch_id}-m{place}" for place in range(request.count)]


def request_id(launch_id: str, scope: str, attempt: int) -> str:
    """The UUID under which Compute Engine takes an order once; `attempt` counts orders that failed and left nothing."""
    return str(uuid.uuid5(_REQUESTS, f"{launch_id}/{scope}/{attempt}"))


def bulk_insert(
    request: LaunchRequest, *, image: str, labels: Mapping[str, str], options: Mapping[str, Any]
) -> dict[str, Any]:
    """A BulkInsertInstanceResource for the client. `options`: network, subnetwork, external_ip, service_account."""
    machine = parse_machine(request.instance_type)
    disk = next(kind for prefix, kind in _DISKS if machine.machine_type.startswith(prefix))
    interface: dict[str, Any] = {}
    if options.get("subnetwork"):
        interface["subnetwork"] = options["subnetwork"]
    else:
        interface["network"] = options.get("network") or "global/networks/default"
    if options.get("external_ip"):
        interface["access_configs"] = [{"type_": "ONE_TO_ONE_NAT", "name": "external-nat"}]
    if machine.machine_type.startswith(_GVNIC):
        interface["nic_type"] = "GVNIC"
    # GPUs cannot be moved while they run: a host's maintenance ends or restarts the machine.
    scheduling: dict[str, Any] = {"on_host_maintenance": "TERMINATE", "automatic_restart": True}
    if request.market is Market.SPOT:
        scheduling.update(
            provisioning_model="SPOT", automatic_restart=False, instance_termination_action="STOP"
        )
    properties: dict[str, Any] = {
        "machine_type": machine.machine_type,
        "labels": dict(labels),
        "scheduling": scheduling,
        "network_interfaces": [interface],
        "disks": [
            {
                "boot": True,
                "auto_delete": True,
                "initialize_params": {
                    "source_image": image,
                    "disk_size_gb": request.disk_gib,
                    "disk_type": disk,
                    "labels": dict(labels),
                },
            }
        ],
    }
    if machine.accelerator:
        properties["guest_accelerators"] = [
            {"accelerator_type": machine.accelerator, "accelerator_count": machine.accelerator_count}
        ]
    if options.get("service_account"):
        properties["service_accounts"] = [
            {
                "email": options["service_account"],
                "scopes": ["https://www.googleapis.com/auth/cloud-platform"],
            }
        ]
    if request.user_data is not None:
        properties["metadata"] = {"items": [_user_data(request.user_data)]}
    return {
        "count": request.count,
        "min_count": request.min_count,
        "per_instance_properties": {name: {} for name in instance_names(request)},
        "instance_properties": properties,
    }


def _user_data(text: str) -> dict[str, str]:
    """cloud-init reads one key, and Google's own agent, which every image of theirs has, another."""
    cloud_init = text.startswith(("#cloud-config", "Content-Type: multipart/"))
    return {"key": "user-data" if cloud_init else "startup-script", "value": text}


def filter_for(tags: Mapping[str, str] | None) -> str | None:
    """The filter of a list: all of the labels, or, for None, any OWNER_TAG. None: nothing can have such labels."""
    if tags is None:
        return f"labels.{OWNER_TAG}:*"
    try:
        check_labels(tags)
    except InvalidInputError:
        return None
    return " AND ".join(f'(labels.{key}="{value}")' for key, value in sorted(tags.items()))


def parse_instance_id(instance_id: str, region: str) -> tuple[str, str] | None:
    """Zone and name of `us-central1-a/name`, or None where it cannot be an instance of this region."""
    zone, _, name = instance_id.partition("/")
    fits = re.fullmatch(re.escape(region) + r"-[a-z]+[0-9]*", zone, re.ASCII)
    named = re.fullmatch(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", name, re.ASCII)
    return (zone, name) if fits and named else None


def moment(text: str) -> datetime.datetime:
    """A time of Compute Engine's, in UTC."""
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).astimezone(datetime.timezone.utc)


def last_part(url: str) -> str:
    return url.rpartition("/")[2]


def instance_from(described: Any, *, region: str, reason: str | None) -> Instance:
    """One instance of an answer (`compute_v1.Instance`)."""
    zone, labels = last_part(described.zone), dict(described.labels)
    accelerators = described.guest_accelerators
    machine_type = last_part(described.machine_type)
    if accelerators and machine_type.startswith("n1-"):
        machine_type += f"+{last_part(accelerators[0].accelerator_type)}x{accelerators[0].accelerator_count}"
    interface = described.network_interfaces[0] if described.network_interfaces else None
    access = interface.access_configs if interface else ()
    spot = described.scheduling.provisioning_model == "SPOT" or described.scheduling.preemptible
    return Instance(
        provider="gcp",
        region=region,
        zone=zone,
        instance_id=f"{zone}/{described.name}",
        instance_type=machine_type,
        market=Market.SPOT if spot else Market.ON_DEMAND,
        state=_STATES.get(described.status, InstanceState.PENDING),
        launched_at=moment(described.creation_timestamp),
        launch_id=labels.get(LAUNCH_TAG),
        tags=labels,
        public_ip=(access[0].nat_i_p or None) if access else None,
        private_ip=(interface.network_i_p or None) if interface else None,
        reason=reason or described.status_message or None,
    )
