"""Machines of the fake Compute Engine: zones with capacity, quotas of a region, instances and operations in time."""

from __future__ import annotations

import base64
import hashlib
import itertools
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any

__all__ = ["ACCELERATORS", "MACHINE_TYPES", "ApiError", "Machine", "Operation", "State", "stamp"]

# Name -> (vCPUs, MiB, accelerators that come with it).
MACHINE_TYPES: dict[str, tuple[int, int, tuple[str, int] | None]] = {
    "n1-standard-4": (4, 15360, None),
    "n1-standard-8": (8, 30720, None),
    "n1-standard-16": (16, 61440, None),
    "g2-standard-4": (4, 16384, ("nvidia-l4", 1)),
    "g2-standard-24": (24, 98304, ("nvidia-l4", 2)),
    "a2-highgpu-1g": (12, 87040, ("nvidia-tesla-a100", 1)),
    "a3-highgpu-8g": (208, 1916928, ("nvidia-h100-80gb", 8)),
    "a4-highgpu-8g": (224, 4063232, ("nvidia-b200", 8)),
}
# Accelerators that N1 takes, and how many at a time.
ACCELERATORS: dict[str, tuple[int, ...]] = {
    "nvidia-tesla-t4": (1, 2, 4),
    "nvidia-tesla-v100": (1, 2, 4, 8),
    "nvidia-tesla-p100": (1, 2, 4),
}
_METRICS = {
    "nvidia-tesla-t4": "NVIDIA_T4_GPUS",
    "nvidia-tesla-v100": "NVIDIA_V100_GPUS",
    "nvidia-tesla-p100": "NVIDIA_P100_GPUS",
    "nvidia-l4": "NVIDIA_L4_GPUS",
    "nvidia-tesla-a100": "NVIDIA_A100_GPUS",
    "nvidia-h100-80gb": "NVIDIA_H100_GPUS",
    "nvidia-b200": "NVIDIA_B200_GPUS",
}


class ApiError(Exception):
    """An answer that is an error, in the words of Google's JSON APIs."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.message = message


def stamp(age_s: float = 0.0) -> str:
    """A moment as Compute Engine writes it."""
    moment = datetime.now(timezone.utc) - timedelta(seconds=age_s)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass
class Machine:
    """An instance. Its disk is there for as long as it is: `autoDelete` is checked at creation."""

    name: str
    zone: str
    properties: dict[str, Any]
    accelerator: tuple[str, int] | None
    number: int
    created: str = field(default_factory=stamp)
    status: str = "PROVISIONING"
    labels: dict[str, str] = field(default_factory=dict)
    visible_at: float = 0.0
    visible_after: int = 0
    """So many more lists do not show it."""
    ending: bool = False
    stopped: str | None = None
    holds: bool = True
    """Whether it takes capacity and quota: stopped machines do not."""

    @property
    def spot(self) -> bool:
        return bool(self.properties["scheduling"].get("provisioningModel") == "SPOT")

    @property
    def label_fingerprint(self) -> str:
        digest = hashlib.sha256(repr(sorted(self.labels.items())).encode()).digest()
        return base64.urlsafe_b64encode(digest[:8]).decode()

    @property
    def metric(self) -> str | None:
        if self.accelerator is None:
            return None
        return ("PREEMPTIBLE_" if self.spot else "") + _METRICS[self.accelerator[0]]


@dataclass
class Operation:
    """A long-running operation: `finish` is run when its time has come, `error` is a list of code and message."""

    kind: str
    scope: tuple[str, str]
    """`zones` or `regions`, and its name."""
    target: str
    target_id: int
    request_id: str | None
    done_at: float
    finish: Callable[[Operation], None] | None = None
    name: str = field(default_factory=lambda: f"operation-{uuid.uuid4().hex[:16]}")
    number: int = 0
    group: str | None = None
    status: str = "RUNNING"
    errors: list[tuple[str, str]] = field(default_factory=list)
    error_status: int = 0
    metadata: dict[str, Any] | None = None
    started: str = field(default_factory=stamp)
    ended: str | None = None


class State:
    """All there is. `lock` is held for every request; time passes at the beginning of each."""

    def __init__(self, regions: dict[str, dict[str, dict[str, int]]], *, operation_s: float) -> None:
        self.lock = threading.RLock()
        self.regions = regions
        """Region -> zone -> accelerator -> how many GPUs are free; one that is absent is not offered there."""
        self.quotas: dict[str, dict[str, int]] = {region: {} for region in regions}
        """Region -> metric -> limit; what is absent has no limit."""
        self.operation_s = operation_s
        self.machines: dict[tuple[str, str], Machine] = {}
        self.operations: dict[str, Operation] = {}
        self.by_request: dict[str, Operation] = {}
        self.lag_s = 0.0
        """How long a new instance is missing from lists."""
        self.hide_for = 0
        """From how many lists a new instance is missing."""
        self._numbers = itertools.count(4_000_000_000_000_000_001)

    def number(self) -> int:
        return next(self._numbers)

    def zone_of(self, zone: str) -> dict[str, int]:
        for zones in self.regions.values():
            if zone in zones:
                return zones[zone]
        raise ApiError(400, "invalid", f"Invalid value for field 'zone': '{zone}'. Unknown zone.")

    def region_of(self, zone: str) -> str:
        return next(name for name, zones in self.regions.items() if zone in zones)

    def settle(self) -> None:
        """Let time pass: operations whose moment has come end."""
        now = time.monotonic()
        for operation in list(self.operations.values()):
            if operation.status != "DONE" and operation.done_at <= now:
                if operation.finish is not None:
                    operation.finish(operation)
                operation.status, operation.ended = "DONE", stamp()

    def begin(self, kind: str, scope: tuple[str, str], target: str, **more: Any) -> Operation:
        operation = Operation(
            kind, scope, target, done_at=time.monotonic() + self.operation_s, number=self.number(), **more
        )
        self.operations[operation.name] = operation
        if operation.request_id:
            self.by_request[operation.request_id] = operation
        return operation

    # --- capacity and quota --------------------------------------------------------------------------------

    def usage(self, region: str, metric: str) -> int:
        return sum(
            machine.accelerator[1]
            for machine in self.machines.values()
            if machine.accelerator
            and machine.holds
            and machine.metric == metric
            and machine.zone in self.regions[region]
        )

    def over_quota(self, machine: Machine, count: int) -> str | None:
        """Why `count` of these are too many, or None."""
        region, metric = self.region_of(machine.zone), machine.metric
        if metric is None or metric not in self.quotas[region]:
            return None
        limit = self.quotas[region][metric]
        assert machine.accelerator is not None
        if self.usage(region, metric) + count * machine.accelerator[1] <= limit:
            return None
        return f"Quota '{metric}' exceeded.  Limit: {limit}.0 in region {region}."

    def take(self, machine: Machine) -> bool:
        """Takes the machine's GPUs out of its zone, if they are there."""
        if machine.accelerator is None:
            return True
        kind, count = machine.accelerator
        free = self.zone_of(machine.zone)
        if free.get(kind, 0) < count:
            return False
        free[kind] -= count
        machine.holds = True
        return True

    def release(self, machine: Machine) -> None:
        if machine.accelerator is not None and machine.holds:
            self.zone_of(machine.zone)[machine.accelerator[0]] += machine.accelerator[1]
        machine.holds = False

    def remove(self, machine: Machine) -> None:
        self.release(machine)
        self.machines.pop((machine.zone, machine.name), None)
