"""This machine's GPUs as instances: a launch reserves some, a termination lets go of them.

Nothing is booted: images, disks and user data mean nothing here and are not looked at. Reservations are in a file under
a lock, so that no two processes that share the folder get the same GPU, and outlive the process that made them.
"""

from __future__ import annotations

import datetime
import fcntl
import json
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from textnlp_fast.errors import (
    CapacityError,
    CorruptDataError,
    InstanceNotFoundError,
    InvalidInputError,
    OutOfSpaceError,
    ProviderUnavailableError,
    UnknownRegionError,
)
from textnlp_fast.gpu.providers.contract import (
    LAUNCH_TAG,
    OWNER_TAG,
    Instance,
    InstanceState,
    LaunchOutcome,
    LaunchRequest,
    PriceOf,
    Provider,
    check_request,
    refuse_over_cap,
)
from textnlp_fast.gpu.providers.local_gpus import LocalGPU, gpus_of_driver
from textnlp_fast.gpu.types import GPUType, InstanceType, Market, Offer

__all__ = ["GPUS_TAG", "LocalProvider"]

#: An instance's GPUs, as CUDA_VISIBLE_DEVICES takes them.
GPUS_TAG: Final = "textnlp-fast-gpus"

_REGION: Final = "local"
_TYPE: Final = re.compile(r"([1-9][0-9]{0,2})x-(nvidia-[a-z0-9-]+)", re.ASCII)
_ENDED_KEPT: Final = 1000
_LIMIT_BYTES: Final = 64 << 20
_LOCK_WAIT_S: Final = 30.0


class LocalProvider(Provider):
    """Instance types are `1x-nvidia-t4` and so on, at no price; the region, and its only zone, is `local`.

    `state` is the folder of the reservations (default: one of the user's; give users of one machine the same).
    """

    name = "local"

    def __init__(
        self,
        region: str = _REGION,
        *,
        state: str | os.PathLike[str] | None = None,
        inventory: Callable[[], Sequence[LocalGPU]] = gpus_of_driver,
        price_of: PriceOf | None = None,
    ) -> None:
        if region != _REGION:
            raise UnknownRegionError(f"this machine is no region {region!r}", hint="Name it local.")
        self.region = region
        self._folder = _default_folder() if state is None else Path(state)
        self._inventory = inventory
        self._price_of = price_of

    def launch(self, request: LaunchRequest) -> LaunchOutcome:
        check_request(request)
        size, kind = _parsed(request.instance_type)
        if request.zone not in (None, _REGION):
            raise UnknownRegionError(f"this machine is no zone {request.zone!r}", hint="Name it local.")
        # Free of charge, unless somebody gave it a price.
        price = self._price_of(request.instance_type, request.market) if self._price_of else None
        refuse_over_cap(request, 0.0 if price is None else price)
        if request.market is Market.SPOT:
            raise CapacityError(f"{_REGION}: there is no spot of {request.instance_type} on this machine")
        gpus = [one for one in self._inventory() if one.gpu_type is kind]
        if not gpus:
            raise InvalidInputError(f"{request.instance_type}: this machine has no {kind}")
        with self._reservations() as entries:
            before = [one for one in entries if one["launch_id"] == request.launch_id]
            if before:
                other = next((one for one in before if one["instance_type"] != request.instance_type), None)
                if other is not None:
                    raise InvalidInputError(
                        f"launch {request.launch_id} was of {other['instance_type']}, not of {request.instance_type}"
                    )
                return _outcome(request, [_instance(one) for one in before])
            taken = {uuid for one in entries for uuid in one["gpus"] if _holds(one)}
            free = [one.uuid for one in gpus if one.uuid not in taken]
            count = min(request.count, len(free) // size)
            if count < request.min_count:
                raise CapacityError(
                    f"{_REGION}: {len(free)} of {len(gpus)} {kind} are free, "
                    f"and {request.min_count} of {request.instance_type} are wanted"
                )
            made = [_entry(request, free[place * size : (place + 1) * size]) for place in range(count)]
            entries.extend(made)
        return _outcome(request, [_instance(one) for one in made])

    def describe(self, instance_ids: Sequence[str]) -> list[Instance]:
        known = {one["instance_id"]: one for one in self._read()}
        return [_instance(known[one]) for one in dict.fromkeys(instance_ids) if one in known]

    def list_instances(self, tags: Mapping[str, str] | None = None) -> list[Instance]:
        found = [_instance(one) for one in self._read()]
        if tags is None:
            return [one for one in found if OWNER_TAG in one.tags]
        return [one for one in found if tags.items() <= one.tags.items()]

    def stop(self, instance_ids: Sequence[str]) -> None:
        """Lets go of the GPUs, and keeps the rest."""
        with self._reservations() as entries:
            for one in _known(entries, instance_ids):
                if InstanceState(one["state"]).alive:
                    one["state"] = str(InstanceState.STOPPED)

    def start(self, instance_ids: Sequence[str]) -> None:
        """Takes the same GPUs again. Raises CapacityError where another has one of them."""
        with self._reservations() as entries:
            for one in _known(entries, instance_ids):
                if not InstanceState(one["state"]).alive:
                    raise InvalidInputError(f"{one['instance_id']} has ended")
                others = {
                    uuid for other in entries if other is not one and _holds(other) for uuid in other["gpus"]
                }
                if others & set(one["gpus"]):
                    raise CapacityError(f"{_REGION}: the GPUs of {one['instance_id']} are another's now")
                one["state"] = str(InstanceState.RUNNING)

    def terminate(self, instance_ids: Sequence[str]) -> None:
        with self._reservations() as entries:
            ids = set(instance_ids)
            for one in entries:
                if one["instance_id"] in ids:
                    one["state"] = str(InstanceState.TERMINATED)

    def tag(self, instance_ids: Sequence[str], tags: Mapping[str, str]) -> None:
        with self._reservations() as entries:
            for one in _known(entries, instance_ids):
                one["tags"] = {**one["tags"], **tags}

    def zones(self, instance_type: str) -> list[str]:
        return [_REGION] if any(one.name == instance_type for one in self._types()) else []

    def offers(self) -> list[Offer]:
        """Every number of GPUs of a type that the machine has, free or not, at no price."""
        today = datetime.datetime.now(datetime.timezone.utc).date()
        return [
            Offer(
                instance_type=kind,
                region=_REGION,
                zone=None,
                market=Market.ON_DEMAND,
                usd_per_hour=0.0,
                as_of=today,
                source="this machine",
            )
            for kind in self._types()
        ]

    def _types(self) -> list[InstanceType]:
        by_type: dict[GPUType, list[LocalGPU]] = {}
        for gpu in self._inventory():
            by_type.setdefault(gpu.gpu_type, []).append(gpu)
        pages, page_bytes = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
        return [
            InstanceType(
                provider=self.name,
                name=f"{count}x-{kind}",
                gpu_type=kind,
                gpu_count=count,
                gpu_memory_gib=min(one.memory_gib for one in gpus),
                vcpus=os.cpu_count() or 1,
                memory_gib=pages * page_bytes / (1 << 30),
                network_gbps=None,
                local_nvme_gib=0.0,
            )
            for kind, gpus in sorted(by_type.items())
            for count in range(1, len(gpus) + 1)
        ]

    # --- the file of reservations -----------------------------------------------------------------------------

    @contextmanager
    def _reservations(self) -> Iterator[list[dict[str, Any]]]:
        """All entries, under the lock; what the block makes of them is written when it ends without an error."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            lock = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise InvalidInputError(
                f"no reservations can be kept in {self._folder}: {error.strerror}"
            ) from error
        try:
            _locked(lock, self._folder)
            entries = self._read()
            before = json.dumps(entries)
            yield entries
            if json.dumps(entries) != before:
                self._write(entries)
        finally:
            os.close(lock)

    @property
    def _file(self) -> Path:
        return self._folder / "reservations.json"

    def _read(self) -> list[dict[str, Any]]:
        """Needs no lock: the file is replaced in one step."""
        try:
            with self._file.open("rb") as file:
                data = file.read(_LIMIT_BYTES + 1)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise InvalidInputError(f"cannot read {self._file}: {error.strerror}") from error
        try:
            document = json.loads(data)
            if document["format"] != 1 or len(data) > _LIMIT_BYTES:
                raise ValueError("its format is not 1")
            entries = list(document["entries"])
            for one in entries:
                _instance(one)
                if not all(isinstance(uuid, str) for uuid in one["gpus"]):
                    raise ValueError("a GPU is no text")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise CorruptDataError(
                f"{self._file} holds no reservations: {error}",
                hint="If nothing uses the GPUs of this machine, delete it.",
            ) from None
        return entries

    def _write(self, entries: list[dict[str, Any]]) -> None:
        ended = [one for one in entries if not InstanceState(one["state"]).alive]
        forgotten = {id(one) for one in ended[:-_ENDED_KEPT]}
        kept = [one for one in entries if id(one) not in forgotten]
        temporary = self._folder / f".reservations.{secrets.token_hex(8)}"
        try:
            with temporary.open("w", encoding="utf-8") as file:
                json.dump({"format": 1, "entries": kept}, file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self._file)
            folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise OutOfSpaceError(f"cannot write reservations in {self._folder}: {error.strerror}") from error


def _locked(lock: int, folder: Path) -> None:
    until = time.monotonic() + _LOCK_WAIT_S
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                raise ProviderUnavailableError(
                    f"{_REGION}: another process holds {folder / 'lock'} for more than {_LOCK_WAIT_S:.0f} s"
                ) from None
            time.sleep(0.02)
        else:
            return


def _parsed(instance_type: str) -> tuple[int, GPUType]:
    match = _TYPE.fullmatch(instance_type)
    if match is None:
        raise InvalidInputError(
            f"{instance_type!r} is no type of this machine", hint="Write 1x-nvidia-t4, for example."
        )
    return int(match[1]), GPUType.parse(match[2])


def _entry(request: LaunchRequest, gpus: list[str]) -> dict[str, Any]:
    return {
        "instance_id": f"local-{secrets.token_hex(8)}",
        "launch_id": request.launch_id,
        "instance_type": request.instance_type,
        "gpus": gpus,
        "state": str(InstanceState.RUNNING),
        "launched_at": datetime.datetime.now(datetime.timezone.utc).isoformat(),
        "tags": {**request.tags, LAUNCH_TAG: request.launch_id},
    }


def _instance(entry: Mapping[str, Any]) -> Instance:
    launched = datetime.datetime.fromisoformat(entry["launched_at"])
    return Instance(
        provider=LocalProvider.name,
        region=_REGION,
        zone=_REGION,
        instance_id=str(entry["instance_id"]),
        instance_type=str(entry["instance_type"]),
        market=Market.ON_DEMAND,
        state=InstanceState(entry["state"]),
        launched_at=launched.astimezone(datetime.timezone.utc),
        launch_id=str(entry["launch_id"]),
        tags={**entry["tags"], GPUS_TAG: ",".join(entry["gpus"])},
        private_ip="127.0.0.1",
    )


def _holds(entry: Mapping[str, Any]) -> bool:
    """Whether its GPUs are another's to leave alone."""
    return bool(entry["state"] == InstanceState.RUNNING.value)


def _known(entries: list[dict[str, Any]], instance_ids: Sequence[str]) -> list[dict[str, Any]]:
    by_id = {one["instance_id"]: one for one in entries}
    unknown = next((one for one in instance_ids if one not in by_id), None)
    if unknown is not None:
        raise InstanceNotFoundError(f"this machine has no instance {unknown!r}")
    return [by_id[one] for one in dict.fromkeys(instance_ids)]


def _outcome(request: LaunchRequest, instances: list[Instance]) -> LaunchOutcome:
    missing = max(0, request.count - len(instances))
    why = f"{len(instances)} of {request.count} had GPUs that were free" if missing else None
    return LaunchOutcome(instances=tuple(instances), missing=missing, why=why)


def _default_folder() -> Path:
    state = os.environ.get("XDG_STATE_HOME") or str(Path("~/.local/state").expanduser())
    return Path(state) / "textnlp-fast" / "local-gpus"
