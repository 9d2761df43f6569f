"""A running gateway, through HAProxy's runtime socket: who is behind it, with which weight, and who gets no more.

Nothing is remembered here: HAProxy is asked each time, so any number of processes may do this beside each other. What
is set lasts until HAProxy is restarted; a restart begins with what the configuration says.
"""

from __future__ import annotations

import csv
import ipaddress
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from textnlp_fast.adapter.gateway.haproxy_config import agent_word
from textnlp_fast.adapter.gateway.plan import BACKEND, Endpoint, endpoint
from textnlp_fast.errors import InvalidInputError, ProviderUnavailableError

__all__ = ["Gateway", "RuntimeSocket", "Slot"]

_MOST_ANSWER_BYTES: Final = 8 << 20
_TRIES: Final = 3
_POLL_S: Final = 0.1
# Not 0x04: where maintenance came from, which stays when it is over.
_MAINTENANCE: Final = 0x01 | 0x02 | 0x20
_DRAINING: Final = 0x08 | 0x10


@dataclass(frozen=True, slots=True)
class Slot:
    """One of HAProxy's places for a replica. `address` is None where nobody has it."""

    name: str
    address: Endpoint | None
    is_up: bool
    is_draining: bool
    weight: int
    in_flight: int
    queued: int


class RuntimeSocket:
    """One command, one connection, one answer: bounded in time, size and tries."""

    def __init__(self, path: Path, *, timeout_s: float = 5.0) -> None:
        self._path = path
        self._timeout_s = timeout_s

    def ask(self, *commands: str) -> str:
        """The answers to commands, run at once. Raises ProviderUnavailableError where none comes."""
        if any(ord(c) < 32 or c == ";" for command in commands for c in command):
            raise InvalidInputError(f"{commands!r:.200} are more commands than they say")
        command = ";".join(commands)
        for left in reversed(range(_TRIES)):
            try:
                return self._exchange(command)
            except OSError as error:
                if not left:
                    raise ProviderUnavailableError(
                        f"HAProxy does not answer at {self._path}: {error.strerror or error}",
                        hint="Does it run? `textnlp-fast gateway run` starts one.",
                    ) from None
                time.sleep(_POLL_S)
        raise AssertionError("the last try raises or returns")

    def _exchange(self, command: str) -> str:
        end = time.monotonic() + self._timeout_s
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(self._timeout_s)
            connection.connect(str(self._path))
            connection.sendall(f"{command}\n".encode())
            answer = bytearray()
            while True:
                connection.settimeout(max(0.001, end - time.monotonic()))
                piece = connection.recv(65536)
                if not piece:
                    return answer.decode("utf-8", "replace").strip()
                answer += piece
                if len(answer) > _MOST_ANSWER_BYTES:
                    raise OSError("its answer has no end")


class Gateway:
    """The `Traffic` of a rollout over HAProxy, and replicas that come and go.

    A replica is called by its address, `HOST:PORT`, or by what `names` calls that.
    """

    def __init__(
        self, socket_path: Path, *, names: Mapping[str, str] | None = None, timeout_s: float = 5.0
    ) -> None:
        self._socket = RuntimeSocket(socket_path, timeout_s=timeout_s)
        self._names = dict(names or {})

    # --- looking ------------------------------------------------------------------------------------------

    def slots(self) -> list[Slot]:
        """All slots, in HAProxy's order. Raises ProviderUnavailableError."""
        counts = self._counts()
        found = []
        for line in self._socket.ask(f"show servers state {BACKEND}").splitlines()[1:]:
            words = line.split()
            if line.startswith("#") or len(words) < 19:
                continue
            name, host, state, admin, weight = words[3], words[4], int(words[5]), int(words[6]), int(words[7])
            port = int(words[18])
            free = bool(admin & _MAINTENANCE)
            flight, queued = counts.get(name, (0, 0))
            address = None if free or port < 2 else Endpoint(host, port)
            found.append(
                Slot(name, address, state == 2 and not free, bool(admin & _DRAINING), weight, flight, queued)
            )
        return found

    def slot(self, replica: str) -> Slot:
        """The slot that a replica has. Raises InvalidInputError if it has none."""
        address = self._address(replica)
        for one in self.slots():
            if one.address == address:
                return one
        raise InvalidInputError(
            f"the gateway knows no replica {replica!r}",
            hint="`textnlp-fast gateway status` lists them by address.",
        )

    # --- Traffic ------------------------------------------------------------------------------------------

    def set_weight(self, replica: str, percent: int) -> None:
        """As `Traffic` has it: the share of a replica, 1 to 100."""
        if not 1 <= percent <= 100:
            raise InvalidInputError(f"a weight of {percent} percent; it may be 1 to 100")
        self._weigh(self.slot(replica), percent)

    def drain(self, replica: str, deadline_s: float) -> None:
        """As `Traffic` has it: no new requests; returns when the others are answered, or at the deadline."""
        end = time.monotonic() + deadline_s
        slot = self.slot(replica)
        self._do(f"set server {BACKEND}/{slot.name} state drain")
        while time.monotonic() < end:
            flight, queued = self._counts().get(slot.name, (0, 0))
            if not flight and not queued:
                return
            time.sleep(_POLL_S)

    def resume(self, replica: str) -> None:
        """As `Traffic` has it: new requests again, by the weight that was set last."""
        self._do(f"set server {BACKEND}/{self.slot(replica).name} state ready")

    # --- replicas that come and go --------------------------------------------------------------------------

    def add(self, replica: str) -> None:
        """Puts a replica into a free slot; it gets requests from its first good check on. Nothing if it is there.

        Raises InvalidInputError where no slot is free.
        """
        address = self._address(replica)
        slots = self.slots()
        if any(one.address == address for one in slots):
            return
        free = next((one for one in slots if one.address is None and not one.in_flight), None)
        if free is None:
            raise InvalidInputError(
                f"all {len(slots)} slots of the gateway are taken",
                hint="Start it with more of them (--slots).",
            )
        where = f"{BACKEND}/{free.name}"
        self._do(f"set server {where} addr {address.host} port {address.port}")
        self._weigh(free, 100, address)
        # Not before it has been seen: a slot that comes out of maintenance counts as up.
        self._do(f"set server {where} state ready", f"set server {where} health down")

    def remove(self, replica: str, *, deadline_s: float = 600.0) -> None:
        """Drains a replica and frees its slot. Nothing if it is not there. What still runs at the deadline is cut."""
        try:
            slot = self.slot(replica)
        except InvalidInputError:
            return
        self.drain(replica, deadline_s)
        self._do(f"set server {BACKEND}/{slot.name} state maint")
        self._do(f"shutdown sessions server {BACKEND}/{slot.name}")

    # --- asking -------------------------------------------------------------------------------------------

    def _weigh(self, slot: Slot, percent: int, address: Endpoint | None = None) -> None:
        where = f"{BACKEND}/{slot.name}"
        address = address or slot.address
        assert address is not None
        # For the agent, which multiplies by it from now on; a gateway without one says that it has none.
        answer = self._socket.ask(f"set server {where} agent-send {agent_word(address, percent / 100)}")
        if answer and "agent" not in answer.lower():
            raise _refused(answer)
        self._do(f"set server {where} weight {percent}%")

    def _counts(self) -> dict[str, tuple[int, int]]:
        """Requests in flight and queued, by slot."""
        text = self._socket.ask(f"show stat {BACKEND} 4 -1").removeprefix("# ")
        return {
            row["svname"]: (int(row["scur"] or 0), int(row["qcur"] or 0))
            for row in csv.DictReader(text.splitlines())
            if row.get("svname") and row.get("scur") is not None
        }

    def _do(self, *commands: str) -> None:
        answer = self._socket.ask(*commands)
        # HAProxy says nothing, or what it changed.
        if answer and "changed from" not in answer and "no need to change" not in answer:
            raise _refused(answer)

    def _address(self, replica: str) -> Endpoint:
        """With a host's name looked up: HAProxy tells addresses only."""
        found = endpoint(self._names.get(replica, replica))
        try:
            ipaddress.ip_address(found.host)
        except ValueError:
            try:
                first = socket.getaddrinfo(found.host, found.port, type=socket.SOCK_STREAM)[0]
            except OSError as error:
                raise InvalidInputError(f"{found.host} has no address: {error.strerror or error}") from None
            return Endpoint(str(first[4][0]), found.port)
        return found


def _refused(answer: str) -> ProviderUnavailableError:
    return ProviderUnavailableError(
        f"HAProxy refused: {answer[:200]}", hint="Was it started from `textnlp-fast gateway config`?"
    )
