"""What the fake Resource Manager keeps: machines in their stages, what was made with them, sizes with capacity."""

from __future__ import annotations

import itertools
import threading
import time
import uuid
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

__all__ = ["ArmError", "Machine", "Size", "State", "stamp"]


class ArmError(Exception):
    """An answer that is an error, in the words of Resource Manager."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


def stamp() -> str:
    # Seven digits, as Azure writes them.
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%f") + "1+00:00"


@dataclass
class Size:
    """A size for rent: free machines by zone (`""`: without one), a price of spot, a quota over all."""

    free: dict[str, int]
    family: str
    spot_usd: float = 0.2
    quota: int | None = None
    barred: tuple[str, ...] = ()
    """Zones that this subscription may not use."""


@dataclass
class Machine:
    """A virtual machine. `stage` is its provisioning state; `settle` runs when its moment has come."""

    name: str
    body: dict[str, Any]
    zone: str
    vm_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    created: str = field(default_factory=stamp)
    version: int = 1
    stage: str = "Creating"
    power: str | None = None
    failure: tuple[str, str] | None = None
    moment: float = 0.0
    next: str = "create"
    holds: bool = False
    visible_after: int = 0
    """So many more lists do not show it."""

    @property
    def size(self) -> str:
        return str(self.body["properties"]["hardwareProfile"]["vmSize"])

    @property
    def spot(self) -> bool:
        return bool(self.body["properties"].get("priority") == "Spot")

    @property
    def etag(self) -> str:
        return f'"{self.version}"'


class State:
    """All there is in one resource group. `lock` is held for every request; time passes at the beginning of each."""

    def __init__(self, sizes: dict[str, Size], *, operation_s: float) -> None:
        self.lock = threading.RLock()
        self.sizes = sizes
        self.operation_s = operation_s
        self.machines: dict[str, Machine] = {}
        self.things: dict[str, dict[str, dict[str, Any]]] = {
            kind: {} for kind in ("networkInterfaces", "publicIPAddresses", "disks", "sshPublicKeys")
        }
        """Kind -> name in lower case -> `{"name", "machine", ...}`."""
        self.fail_late: tuple[str, str] | None = None
        """Code and message with which machines fail that were accepted."""
        self.strands = False
        """Whether what was made for a machine that failed outlives its end."""
        self.hide_for = 0
        self.numbers = itertools.count(4)

    def later(self, machine: Machine, what: str) -> None:
        machine.moment, machine.next = time.monotonic() + self.operation_s, what

    def used(self, name: str) -> int:
        return sum(machine.holds for machine in self.machines.values() if machine.size.lower() == name)

    def take(self, machine: Machine) -> bool:
        free = self.sizes[machine.size.lower()].free
        if free.get(machine.zone, 0) < 1:
            return False
        free[machine.zone] -= 1
        machine.holds = True
        return True

    def release(self, machine: Machine) -> None:
        if machine.holds:
            self.sizes[machine.size.lower()].free[machine.zone] += 1
        machine.holds = False

    def settle(self) -> None:
        """Let time pass: what was ordered of machines comes about."""
        now = time.monotonic()
        for machine in list(self.machines.values()):
            if machine.next and machine.moment <= now:
                done, machine.next = machine.next, ""
                getattr(self, "_" + done)(machine)
                machine.version += 1

    def _create(self, machine: Machine) -> None:
        self._start(machine)
        if machine.failure is None:
            name = f"{machine.name}-os"
            disk = machine.body["properties"]["storageProfile"]["osDisk"]
            name = disk.get("name", name)
            self.things["disks"][name.lower()] = {
                "name": name,
                "machine": machine.name,
                "size": disk["diskSizeGB"],
                "goes": disk.get("deleteOption") == "Delete",
            }

    def _start(self, machine: Machine) -> None:
        if self.fail_late is None and self.take(machine):
            machine.stage, machine.power, machine.failure = "Succeeded", "running", None
            return
        zonal = "Zonal" if machine.zone else ""
        words = "We do not have sufficient capacity for the requested VM size in this region."
        machine.stage = "Failed"
        machine.failure = self.fail_late or (f"{zonal}AllocationFailed", f"Allocation failed. {words}")

    def _deallocate(self, machine: Machine) -> None:
        self.release(machine)
        machine.stage, machine.power, machine.failure = "Succeeded", "deallocated", None

    def _delete(self, machine: Machine) -> None:
        self.release(machine)
        del self.machines[machine.name.lower()]
        for kind in ("networkInterfaces", "publicIPAddresses", "disks"):
            for name, thing in list(self.things[kind].items()):
                if thing["machine"] != machine.name:
                    continue
                if thing["goes"] and not (self.strands and machine.failure):
                    del self.things[kind][name]
                else:
                    thing["machine"] = None
