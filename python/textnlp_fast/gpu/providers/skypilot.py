"""All other clouds, through SkyPilot: one cluster of one node is one instance.

SkyPilot's API server does the work and keeps the state; its Python SDK asks it. A cluster's name follows from the
launch, so that a launch that is repeated finds its clusters. What SkyPilot does otherwise `docs/guide/gpu-clouds.md`
lists.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

from textnlp_fast.errors import (
    InstanceNotFoundError,
    InvalidInputError,
    ProviderUnavailableError,
    TextnlpFastError,
    UnknownRegionError,
)
from textnlp_fast.gpu.providers.calling import Patience, imported
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
from textnlp_fast.gpu.providers.skypilot_errors import meaning_of
from textnlp_fast.gpu.types import Market

__all__ = ["SkyPilotProvider"]

_STATES: Final = {
    "PENDING": InstanceState.PENDING,
    "INIT": InstanceState.PENDING,
    "UP": InstanceState.RUNNING,
    "AUTOSTOPPING": InstanceState.STOPPING,
    "STOPPED": InstanceState.STOPPED,
}
_NAME: Final = re.compile(r"[a-zA-Z]([-_.a-zA-Z0-9]{0,60}[a-zA-Z0-9])?", re.ASCII)
_AT_ONCE: Final = 8
Answer = TypeVar("Answer")
Thing = TypeVar("Thing")


class SkyPilotProvider(Provider):
    """One region of one cloud that SkyPilot reaches: `lambda/us-east-1`, or a cloud alone (`runpod`).

    Instances are called by their clusters' names. `instance_type` is the cloud's own name of one, or SkyPilot's of
    accelerators (`H100:8`). The SDK finds its API server by SkyPilot's own settings (`SKYPILOT_API_SERVER_ENDPOINT`),
    or starts one on this machine. Waits for SkyPilot up to `deadline_s` a call; what it has begun goes on.
    """

    name = "skypilot"

    def __init__(
        self,
        region: str,
        *,
        image: str | None = None,
        price_of: PriceOf | None = None,
        deadline_s: float = 1200.0,
        retries: int = 3,
        first_pause_s: float = 0.5,
    ) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9]*(/[A-Za-z0-9_-]+)?", region, re.ASCII):
            raise UnknownRegionError(
                f"{region!r} is no place of SkyPilot's", hint="Write cloud/region: lambda/us-east-1."
            )
        self.region = region
        self._cloud, _, self._inner = region.partition("/")
        self._image = image
        self._price_of = price_of
        self._patience = Patience(
            timeout_s=deadline_s, deadline_s=deadline_s, retries=retries, first_pause_s=first_pause_s
        )
        self._sky = imported("sky", provider="skypilot", package="SkyPilot", extra="skypilot")

    # --- launching --------------------------------------------------------------------------------------------

    def launch(self, request: LaunchRequest) -> LaunchOutcome:
        check_request(request)
        until = self._patience.until()
        names = [f"{request.launch_id}-m{place}" for place in range(request.count)]
        known = {one.instance_id: one for one in self._records(until, names)}
        for one in known.values():
            if one.launch_id != request.launch_id or one.instance_type not in {request.instance_type, ""}:
                raise InvalidInputError(
                    f"launch {request.launch_id} was of {one.instance_type}, not of {request.instance_type}",
                    hint="Give every launch an id of its own.",
                )
        if request.max_usd_per_hour is not None and not known:
            price = self._price_of(request.instance_type, request.market) if self._price_of else None
            refuse_over_cap(request, price)
        tasks = {name: self._task(request, name) for name in names}
        failures = self._place(tasks, known, until)
        made = [name for name in names if name not in failures]
        enough = len(made) >= request.min_count
        problems = self._each(list(failures) if enough else names, self._down)
        if not enough:
            raise next(iter(failures.values())) from next((one for one in problems if one), None)
        why = str(next(iter(failures.values())).args[0]) if failures else None
        found = self._records(self._patience.until(), made)
        return LaunchOutcome(instances=tuple(found), missing=len(failures), why=why)

    def _place(
        self, tasks: Mapping[str, Any], known: Mapping[str, Instance], until: float
    ) -> dict[str, TextnlpFastError]:
        """Launches the clusters that are not up yet, several at a time; which failed, and why."""

        def place(name: str) -> None:
            if name in known and known[name].state in {InstanceState.RUNNING, InstanceState.STOPPED}:
                return
            self._do(
                "launch",
                lambda: self._sky.launch(tasks[name], cluster_name=name, retry_until_up=False),
                until,
            )

        found = self._each(list(tasks), place)
        return {name: error for name, error in zip(tasks, found, strict=True) if error is not None}

    def _task(self, request: LaunchRequest, name: str) -> Any:
        """A task that runs nothing: its resources are all that is wanted of it."""
        labels = {**request.tags, LAUNCH_TAG: request.launch_id}
        labels.setdefault(OWNER_TAG, "")
        kind: dict[str, Any] = {"instance_type": request.instance_type}
        if ":" in request.instance_type:
            kind = {"accelerators": request.instance_type}
        inner = request.zone not in {None, self.region}
        place = f"{self.region}/{request.zone}" if inner else self.region
        image = request.image or self._image
        try:
            resources = self._sky.Resources(
                infra=place,
                use_spot=request.market is Market.SPOT,
                disk_size=request.disk_gib,
                labels=labels,
                **kind,
                **({"image_id": image} if image else {}),
            )
            task = self._sky.Task(name=name, setup=request.user_data, num_nodes=1)
            task.set_resources(resources)
        except Exception as error:
            raise meaning_of(error, action="Resources", place=self.region).error from error
        return task

    # --- looking ----------------------------------------------------------------------------------------------

    def describe(self, instance_ids: Sequence[str]) -> list[Instance]:
        names = list(dict.fromkeys(one for one in instance_ids if _NAME.fullmatch(one)))
        found = {one.instance_id: one for one in self._records(self._patience.until(), names)}
        return [found[name] for name in names if name in found]

    def list_instances(self, tags: Mapping[str, str] | None = None) -> list[Instance]:
        found = self._records(self._patience.until(), None)
        if tags is None:
            return [one for one in found if OWNER_TAG in one.tags]
        return [one for one in found if tags.items() <= one.tags.items()]

    def _records(self, until: float, names: Sequence[str] | None) -> list[Instance]:
        """The clusters of this place that SkyPilot has on its books, looked up at the cloud (`refresh`)."""
        if names is not None and not names:
            return []
        refresh = self._sky.StatusRefreshMode.AUTO
        records = self._do(
            "status",
            lambda: self._sky.status(cluster_names=list(names) if names else None, refresh=refresh),
            until,
        )
        return [one for one in map(self._instance, records) if one is not None]

    def _instance(self, record: Mapping[str, Any]) -> Instance | None:
        handle = record["handle"]
        resources = getattr(handle, "launched_resources", None)
        cloud = str(record.get("cloud") or getattr(resources, "cloud", "")).lower()
        place = record.get("region") or getattr(resources, "region", None)
        if cloud != self._cloud or (self._inner and place and place != self._inner):
            return None
        labels = dict(getattr(resources, "labels", None) or record.get("labels") or {})
        name = str(record["name"])
        made = re.fullmatch(r"(.+)-m\d+", name)
        spot = bool(getattr(resources, "use_spot", False))
        state = _STATES.get(str(getattr(record["status"], "value", record["status"])), InstanceState.PENDING)
        return Instance(
            provider=self.name,
            region=self.region,
            zone=getattr(resources, "zone", None),
            instance_id=name,
            instance_type=self._type_of(resources),
            market=Market.SPOT if spot else Market.ON_DEMAND,
            state=state,
            launched_at=datetime.datetime.fromtimestamp(record["launched_at"], datetime.timezone.utc),
            launch_id=labels.get(LAUNCH_TAG) or (made[1] if made else None),
            tags=labels,
            public_ip=getattr(handle, "head_ip", None),
            reason=record.get("init_status_reason") or record.get("last_event") or None,
        )

    def _type_of(self, resources: Any) -> str:
        return str(getattr(resources, "instance_type", None) or "")

    def zones(self, instance_type: str) -> list[str]:
        """The region itself, as its only one: SkyPilot chooses the zone, and its SDK does not list them."""
        return [self.region]

    # --- changing ---------------------------------------------------------------------------------------------

    def stop(self, instance_ids: Sequence[str]) -> None:
        self._change(instance_ids, lambda name: self._order("stop", name))

    def start(self, instance_ids: Sequence[str]) -> None:
        self._change(instance_ids, lambda name: self._order("start", name))

    def terminate(self, instance_ids: Sequence[str]) -> None:
        self._change(instance_ids, self._down)

    def tag(self, instance_ids: Sequence[str], tags: Mapping[str, str]) -> None:
        if tags and instance_ids:
            raise InvalidInputError(
                "SkyPilot gives labels at launch, and changes none later",
                hint="Name all tags in the launch's request.",
            )

    def _order(self, verb: str, name: str) -> None:
        if not _NAME.fullmatch(name):
            raise InstanceNotFoundError(f"SkyPilot has no cluster {name!r}")
        self._do(verb, lambda: getattr(self._sky, verb)(name), self._patience.until())

    def _down(self, name: str) -> None:
        try:
            self._order("down", name)
        except InstanceNotFoundError:
            return

    def _change(self, names: Sequence[str], change: Callable[[str], None]) -> None:
        for error in self._each(list(dict.fromkeys(names)), change):
            if error is not None:
                raise error

    def _each(self, names: Sequence[str], change: Callable[[str], None]) -> list[TextnlpFastError | None]:
        """Does it to all, several at a time, whatever becomes of one."""

        def told(name: str) -> TextnlpFastError | None:
            try:
                change(name)
            except TextnlpFastError as error:
                return error
            return None

        if not names:
            return []
        with ThreadPoolExecutor(min(_AT_ONCE, len(names)), thread_name_prefix="skypilot") as pool:
            return list(pool.map(told, names))

    # --- asking -----------------------------------------------------------------------------------------------

    def _do(self, verb: str, begin: Callable[[], Any], until: float) -> Any:
        """Begins a request at SkyPilot's server and waits for its end, up to the deadline."""

        def ask(timeout_s: float) -> Any:
            # The SDK's `get` waits without end: it is waited for here, and goes on in its thread if it takes too long.
            pool = ThreadPoolExecutor(1, thread_name_prefix="skypilot-get")
            try:
                return pool.submit(lambda: self._sky.get(begin())).result(timeout=timeout_s)
            except TimeoutError as error:
                raise ProviderUnavailableError(
                    f"{verb}: SkyPilot is not done with it in time in {self.region}",
                    hint="Run the command again: it waits for the same cluster.",
                ) from error
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

        return self._patience.call(
            ask, lambda error: meaning_of(error, action=verb, place=self.region), until=until
        )
