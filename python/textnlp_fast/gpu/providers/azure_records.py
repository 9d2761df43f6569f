"""What Azure does not remember: that a launch was placed. Kept in the resource group, one small free thing a launch.

Azure has no client tokens: that a machine is not there says nothing of whether it ever was. So each launch has a
record, an SSH public key resource (they cost nothing) under the launch's name. It is written before the first machine
and marked as `placed` when the last was accepted: found unmarked, the launch was cut short, and is finished; found
marked, it is over, and nothing is made again. Records are deleted after a day, as EC2 forgets its tokens.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from textnlp_fast.errors import InstanceNotFoundError
from textnlp_fast.gpu.providers.azure_client import Arm
from textnlp_fast.gpu.providers.contract import LAUNCH_TAG

__all__ = ["Records"]

_AT: Final = "textnlp-fast-at"
_PLACED: Final = "textnlp-fast-placed"
_KEPT_S: Final = 86400.0


class Records:
    """The records of one region's launches."""

    def __init__(self, arm: Arm, *, ssh_public_key: Callable[[], str]) -> None:
        self._arm = arm
        self._key = ssh_public_key
        self._swept_at = float("-inf")

    def placed(self, launch_id: str, *, until: float) -> tuple[str, ...] | None:
        """The places (`m0`) of the machines that the launch came to, or None for one that is not over."""
        try:
            record = self._arm.get("ssh_public_keys", self._name(launch_id), until=until)
        except InstanceNotFoundError:
            return None
        places = (record.get("tags") or {}).get(_PLACED)
        return None if places is None else tuple(_unpacked(places))

    def begin(self, launch_id: str, *, until: float) -> None:
        self._write(launch_id, {}, until)

    def end(self, launch_id: str, places: tuple[str, ...], *, until: float) -> None:
        """Marks the launch as over, with the machines that it came to; forgets records that are old."""
        self._write(launch_id, {_PLACED: _packed(places)}, until)
        self._sweep(until)

    def forget(self, launch_id: str, *, until: float) -> None:
        self._arm.ask("ssh_public_keys", "delete", self._name(launch_id), until=until)

    def _name(self, launch_id: str) -> str:
        return f"{launch_id}-{self._arm.region}"

    def _write(self, launch_id: str, more: Mapping[str, str], until: float) -> None:
        tags = {LAUNCH_TAG: launch_id, _AT: str(int(time.time())), **more}
        document: dict[str, Any] = {
            "location": self._arm.region,
            "tags": tags,
            "properties": {"publicKey": self._key()},
        }
        self._arm.ask("ssh_public_keys", "create", self._name(launch_id), document, until=until)

    def _sweep(self, until: float) -> None:
        """Deletes records older than a day, at most once an hour."""
        if time.monotonic() - self._swept_at < 3600.0:
            return
        self._swept_at = time.monotonic()
        for record in self._arm.pages("ssh_public_keys", until=until):
            tags = record.get("tags") or {}
            at = str(tags.get(_AT, ""))
            ours = LAUNCH_TAG in tags and record.get("location") == self._arm.region and at.isdecimal()
            if ours and time.time() - int(at) > _KEPT_S:
                self._arm.ask("ssh_public_keys", "delete", record["name"], until=until)


def _packed(places: tuple[str, ...]) -> str:
    """Places as ranges (`0-3,5`): a tag has 256 characters, and a launch up to a thousand machines."""
    numbers = sorted(int(place[1:]) for place in places)
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    text = ",".join(f"{first}-{last}" if last > first else str(first) for first, last in ranges)
    # Cut where a launch is so torn that it does not fit: what is cut is told as missing, and not made again.
    return text if len(text) <= 256 else text[:256].rpartition(",")[0]


def _unpacked(text: str) -> list[str]:
    found = []
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        if first.isdecimal() and (not last or last.isdecimal()):
            found += [
                f"m{number}" for number in range(int(first), min(int(last or first), int(first) + 1000) + 1)
            ]
    return found
