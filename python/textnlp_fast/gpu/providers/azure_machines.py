"""Single machines of Azure, with the disk, the network card and the address that are made and go with each."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from textnlp_fast.errors import (
    ConflictError,
    InstanceNotFoundError,
    ProviderUnavailableError,
    TextnlpFastError,
)
from textnlp_fast.gpu.providers.azure_client import Arm
from textnlp_fast.gpu.providers.azure_requests import allocated, failure_of, leftovers
from textnlp_fast.gpu.providers.calling import at_once
from textnlp_fast.gpu.providers.contract import LAUNCH_TAG, OWNER_TAG

__all__ = ["Machines"]

_VMS: Final = "virtual_machines"
_NAME: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,62}[A-Za-z0-9_])?", re.ASCII)


class Machines:
    """What is done to one machine at a time. `until` is a moment of the monotonic clock; each step may be repeated."""

    def __init__(self, arm: Arm) -> None:
        self._arm = arm

    # --- looking ----------------------------------------------------------------------------------------------

    def get(self, name: str, *, until: float) -> dict[str, Any] | None:
        """The machine with its instance view; None for one that is not there, or not in this region."""
        if not _NAME.fullmatch(name):
            return None
        try:
            machine = self._arm.get(_VMS, name, until=until, expand="instanceView")
        except InstanceNotFoundError:
            return None
        return machine if _place(machine) == self._arm.region else None

    def all(self, tags: Mapping[str, str] | None, *, until: float) -> list[dict[str, Any]]:
        """The region's machines with these tags, or, for None, with any OWNER_TAG.

        Lists of a group come without instance views: those are asked for one by one.
        """
        names = []
        for machine in self._arm.pages(_VMS, until=until):
            has = machine.get("tags") or {}
            wanted = OWNER_TAG in has if tags is None else tags.items() <= has.items()
            if wanted and _place(machine) == self._arm.region:
                names.append(str(machine["name"]))
        seen = at_once(lambda name: self.get(name, until=until), names)
        return [one for one in seen if one is not None]

    def addresses(
        self, machines: Sequence[Mapping[str, Any]], *, until: float
    ) -> dict[str, tuple[str | None, str | None]]:
        """Private and public address of each machine, by name: one list of cards, and one of addresses if needed."""
        found: dict[str, tuple[str | None, str | None]] = {one["name"]: (None, None) for one in machines}
        if not machines:
            return found
        cards = {one["id"].lower(): one for one in self._arm.pages("network_interfaces", until=until)}
        pending: dict[str, tuple[str | None, str]] = {}
        for machine in machines:
            profile = (machine.get("properties") or {}).get("networkProfile") or {}
            for reference in profile.get("networkInterfaces") or ():
                card = cards.get(str(reference.get("id", "")).lower())
                for one in ((card or {}).get("properties") or {}).get("ipConfigurations") or ():
                    properties = one.get("properties") or {}
                    private = properties.get("privateIPAddress")
                    public = (properties.get("publicIPAddress") or {}).get("id")
                    found[machine["name"]] = (private, None)
                    if public:
                        pending[machine["name"]] = (private, str(public).lower())
        if pending:
            listed = self._arm.pages("public_ip_addresses", until=until)
            known = {one["id"].lower(): (one.get("properties") or {}).get("ipAddress") for one in listed}
            found.update({name: (private, known.get(public)) for name, (private, public) in pending.items()})
        return found

    # --- making -----------------------------------------------------------------------------------------------

    def make(self, name: str, document: Mapping[str, Any], *, until: float) -> TextnlpFastError | None:
        """Orders a machine, unless it is there already; the error if it cannot be had."""
        for again in (True, False):
            try:
                self._arm.ask(
                    _VMS, "begin_create_or_update", name, document, until=until, **self._arm.if_missing
                )
            except ConflictError as conflict:
                machine = self.get(name, until=until)
                if machine is None and again:
                    continue  # one that was being deleted stood in the way, and is gone by now
                ours = ((machine or {}).get("tags") or {}).get(LAUNCH_TAG) == document["tags"][LAUNCH_TAG]
                return None if ours else conflict
            except TextnlpFastError as error:
                return error
            break
        return None

    def hardware(self, name: str, *, until: float) -> TextnlpFastError | None:
        """Waits until Azure has found hardware for the machine, and says why if it has not.

        None, too, when time is over: the order stands, and the machine is pending.
        """
        pause = self._arm.patience.pauses(until=until)
        while True:
            try:
                machine = self.get(name, until=max(until, self._arm.patience.until()))
            except TextnlpFastError as error:
                return error
            if machine is None:
                return ProviderUnavailableError(f"{name} vanished while it was made in {self._arm.region}")
            failure = failure_of(machine, action="provisioning", place=self._arm.region)
            if failure is not None or allocated(machine):
                return failure
            if not pause():
                return None

    # --- changing ---------------------------------------------------------------------------------------------

    def start(self, name: str, *, until: float) -> None:
        self._existing(name, until)
        self._arm.ask(_VMS, "begin_start", name, until=until)
        failure = self.hardware(name, until=until)
        if failure is not None:
            raise failure

    def stop(self, name: str, *, settle: float) -> None:
        until = self._arm.patience.until()
        self._existing(name, until)
        self._arm.ask(_VMS, "begin_deallocate", name, until=until)
        pause = self._arm.patience.pauses(until=settle)
        while pause():
            machine = self.get(name, until=until)
            if machine is None or (machine.get("properties") or {}).get("provisioningState") != "Updating":
                failure = (
                    failure_of(machine, action="deallocate", place=self._arm.region) if machine else None
                )
                if failure is not None:
                    raise failure
                return

    def _existing(self, name: str, until: float) -> None:
        if self.get(name, until=until) is None:
            raise InstanceNotFoundError(f"{self._arm.region} has no instance {name!r}")

    def retag(self, name: str, tags: Mapping[str, str], etag: str, *, until: float) -> None:
        unchanged = self._arm.if_unchanged(etag) if etag else {}
        self._arm.ask(_VMS, "begin_update", name, {"tags": dict(tags)}, until=until, **unchanged)

    def end(self, name: str, *, settle: float) -> None:
        """Orders the machine's end. What is made with it goes with it; if it is gone already, that is looked after."""
        if not _NAME.fullmatch(name):
            return
        until = self._arm.patience.until()
        machine = self.get(name, until=until)
        if machine is not None:
            self._arm.ask(_VMS, "begin_delete", name, until=until)
            if not self._gone(_VMS, name, settle):
                return
        self._sweep(name, until)

    def clear(self, name: str, *, until: float) -> TextnlpFastError | None:
        """Ends a machine that failed, and waits until nothing is left; the error if something may be."""
        try:
            self._arm.ask(_VMS, "begin_delete", name, until=until)
            if not self._gone(_VMS, name, until):
                return ProviderUnavailableError(f"{name} is still being deleted in {self._arm.region}")
            self._sweep(name, until)
        except TextnlpFastError as error:
            return error
        return None

    def _sweep(self, name: str, until: float) -> None:
        """Deletes what was made for a machine and did not go with it: the card before the address that it holds.

        For machines of our naming only: another's card may be called like one of ours would be.
        """
        if not re.search(rf"-{self._arm.region}-m\d+$", name):
            return
        for kind, thing in leftovers(name).items():
            try:
                self._arm.get(kind, thing, until=until)
            except InstanceNotFoundError:
                continue
            self._arm.ask(kind, "begin_delete", thing, until=until)
            self._gone(kind, thing, until)

    def _gone(self, kind: str, name: str, until: float) -> bool:
        pause = self._arm.patience.pauses(until=until)
        while True:
            try:
                self._arm.get(kind, name, until=max(until, self._arm.patience.until()))
            except InstanceNotFoundError:
                return True
            if not pause():
                return False


def _place(machine: Mapping[str, Any]) -> str:
    # Azure writes `westeurope` or `West Europe`.
    return str(machine.get("location", "")).replace(" ", "").lower()
