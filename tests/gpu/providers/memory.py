"""A cloud in memory, under the same contract: for tests that take a thousand launches, and die amid some."""

from __future__ import annotations

import datetime
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from gpu.providers.harness import Harness
from textnlp_fast.errors import (
    AuthenticationError,
    CapacityError,
    InstanceNotFoundError,
    InvalidInputError,
    PriceTooHighError,
    ProviderUnavailableError,
    QuotaError,
    TextnlpFastError,
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
from textnlp_fast.gpu.types import GPUType, InstanceType, Market, Offer

__all__ = ["MemoryCloud", "MemoryHarness", "MemoryProvider"]

TYPES = {"t4.1": 1.0, "t4.4": 4.0}


@dataclass
class MemoryCloud:
    """What there is, and what is wrong with it. Thread-safe."""

    zones: tuple[str, ...] = ("za", "zb")
    capacity: dict[tuple[str, Market], int] = field(default_factory=dict)
    """Instances left, by zone and market; without an entry there is no end of them."""
    most: int | None = None
    error: TextnlpFastError | None = None
    lose_answers: int = 0
    lose_requests: int = 0
    hide_for: int = 0
    spot_price_usd: float = 0.2
    now: Callable[[], datetime.datetime] = lambda: datetime.datetime.now(datetime.timezone.utc)
    instances: dict[str, Instance] = field(default_factory=dict)
    launches: dict[str, tuple[LaunchRequest, list[str], int]] = field(default_factory=dict)
    hidden: dict[str, int] = field(default_factory=dict)
    user_data: dict[str, tuple[str, int]] = field(default_factory=dict)
    asked: int = 0
    lock: threading.RLock = field(default_factory=threading.RLock)

    def alive(self) -> dict[str, str | None]:
        with self.lock:
            return {one.instance_id: one.launch_id for one in self.instances.values() if one.state.alive}


class MemoryProvider(Provider):
    """One region of a cloud in memory."""

    name = "memory"

    def __init__(
        self,
        region: str,
        *,
        cloud: MemoryCloud,
        name: str = "memory",
        price_of: PriceOf | None = None,
        image: str | None = None,
        tries: int = 5,
    ) -> None:
        if region == "nowhere":
            raise UnknownRegionError("there is no region nowhere")
        self.name = name
        self.region = region
        self.cloud = cloud
        self._price_of = price_of
        self._image = image
        self._tries = tries

    def launch(self, request: LaunchRequest) -> LaunchOutcome:
        check_request(request)
        if request.instance_type not in TYPES:
            raise InvalidInputError(f"there is no type {request.instance_type}")
        if (request.image or self._image) == "no-such-image":
            raise InvalidInputError("there is no image no-such-image")
        if request.zone is not None and request.zone not in self.cloud.zones:
            raise UnknownRegionError(f"there is no zone {request.zone}")
        if request.market is Market.ON_DEMAND and request.max_usd_per_hour is not None:
            price = self._price_of(request.instance_type, request.market) if self._price_of else None
            refuse_over_cap(request, price)
        for _ in range(self._tries):
            with self.cloud.lock:
                self.cloud.asked += 1
                if self.cloud.lose_requests:
                    self.cloud.lose_requests -= 1
                    continue
                outcome = self._launch(request)
                if self.cloud.lose_answers:
                    self.cloud.lose_answers -= 1
                    continue
                return outcome
        raise ProviderUnavailableError(f"no answer in {self.region}")

    def _launch(self, request: LaunchRequest) -> LaunchOutcome:
        cloud = self.cloud
        before = cloud.launches.get(request.launch_id)
        if before is not None:
            if before[0].instance_type != request.instance_type:
                raise InvalidInputError(f"{request.launch_id} was another launch")
            instances = tuple(cloud.instances[one] for one in before[1])
            return LaunchOutcome(instances=instances, missing=before[2], why="before" if before[2] else None)
        self._fail()
        cap = request.max_usd_per_hour
        if request.market is Market.SPOT and cap is not None and cap < cloud.spot_price_usd:
            raise PriceTooHighError(f"spot costs {cloud.spot_price_usd} in {self.region}")
        zone = request.zone or cloud.zones[0]
        place = (zone, request.market)
        left = min(one for one in (cloud.capacity.get(place), cloud.most, 10**9) if one is not None)
        granted = min(left, request.count)
        if granted < request.min_count:
            raise CapacityError(f"no {request.instance_type} in {zone}")
        if place in cloud.capacity:
            cloud.capacity[place] -= granted
        made = []
        for _ in range(granted):
            one = Instance(
                provider=self.name,
                region=self.region,
                zone=zone,
                instance_id=f"m-{len(cloud.instances):06d}",
                instance_type=request.instance_type,
                market=request.market,
                state=InstanceState.RUNNING,
                launched_at=cloud.now(),
                launch_id=request.launch_id,
                tags={**request.tags, LAUNCH_TAG: request.launch_id},
            )
            cloud.instances[one.instance_id] = one
            cloud.user_data[one.instance_id] = (request.user_data or "", request.disk_gib)
            if cloud.hide_for:
                cloud.hidden[one.instance_id] = cloud.hide_for
            made.append(one)
        missing = request.count - granted
        cloud.launches[request.launch_id] = (request, [one.instance_id for one in made], missing)
        return LaunchOutcome(instances=tuple(made), missing=missing, why="no more" if missing else None)

    def _fail(self) -> None:
        if self.cloud.error is not None:
            raise self.cloud.error

    def _seen(self) -> dict[str, Instance]:
        with self.cloud.lock:
            hidden = set(self.cloud.hidden)
            self.cloud.hidden = {one: left - 1 for one, left in self.cloud.hidden.items() if left > 1}
            return {
                one.instance_id: one
                for one in self.cloud.instances.values()
                if one.instance_id not in hidden and one.region == self.region and one.provider == self.name
            }

    def _check_login(self) -> None:
        if isinstance(self.cloud.error, AuthenticationError):
            raise self.cloud.error

    def describe(self, instance_ids: Sequence[str]) -> list[Instance]:
        self._check_login()
        seen = self._seen()
        return [seen[one] for one in dict.fromkeys(instance_ids) if one in seen]

    def list_instances(self, tags: Mapping[str, str] | None = None) -> list[Instance]:
        self._check_login()
        found = self._seen().values()
        if tags is None:
            return [one for one in found if OWNER_TAG in one.tags]
        return [one for one in found if tags.items() <= one.tags.items()]

    def _set(self, ids: Sequence[str], state: InstanceState, *, strict: bool) -> None:
        self._check_login()
        with self.cloud.lock:
            for one in ids:
                found = self.cloud.instances.get(one)
                if found is None:
                    if strict:
                        raise InstanceNotFoundError(f"there is no {one}")
                    continue
                if found.state.alive:
                    self.cloud.instances[one] = replace(found, state=state)
                elif state.alive:
                    raise InvalidInputError(f"{one} has ended")

    def stop(self, instance_ids: Sequence[str]) -> None:
        self._set(instance_ids, InstanceState.STOPPED, strict=True)

    def start(self, instance_ids: Sequence[str]) -> None:
        self._set(instance_ids, InstanceState.RUNNING, strict=True)

    def terminate(self, instance_ids: Sequence[str]) -> None:
        self._set(instance_ids, InstanceState.TERMINATED, strict=False)

    def tag(self, instance_ids: Sequence[str], tags: Mapping[str, str]) -> None:
        with self.cloud.lock:
            for one in instance_ids:
                if one not in self.cloud.instances:
                    raise InstanceNotFoundError(f"there is no {one}")
                found = self.cloud.instances[one]
                self.cloud.instances[one] = replace(found, tags={**found.tags, **tags})

    def zones(self, instance_type: str) -> list[str]:
        self._check_login()
        return list(self.cloud.zones) if instance_type in TYPES else []

    def offers(self) -> Sequence[Offer]:
        found = []
        for name, gpus in TYPES.items():
            kind = InstanceType(
                provider=self.name,
                name=name,
                gpu_type=GPUType.NVIDIA_T4,
                gpu_count=gpus,
                gpu_memory_gib=16,
                vcpus=4,
                memory_gib=16,
                network_gbps=None,
                local_nvme_gib=0,
            )
            for market, usd in ((Market.ON_DEMAND, gpus), (Market.SPOT, gpus * self.cloud.spot_price_usd)):
                found.append(
                    Offer(
                        instance_type=kind,
                        region=self.region,
                        zone=None,
                        market=market,
                        usd_per_hour=usd,
                        as_of=datetime.date(2026, 1, 1),
                        source="memory",
                    )
                )
        return found


class MemoryHarness(Harness):
    name = "memory"
    region = "here"
    bad_region = "nowhere"
    instance_type = "t4.1"
    other_type = "t4.4"
    bad_type = "t4.99"
    zone = "za"
    bad_zone = "zz"
    image = "some-image"
    cannot: ClassVar[Mapping[str, str]] = {"throttling": "memory does not throttle"}

    def __init__(self) -> None:
        self.cloud = MemoryCloud()
        self.spot_price_usd = self.cloud.spot_price_usd

    def provider(self, *, region: str | None = None, **options: Any) -> Provider:
        return MemoryProvider(region or self.region, cloud=self.cloud, **options)

    def truth(self) -> dict[str, str | None]:
        return self.cloud.alive()

    def heal(self) -> None:
        self.cloud.error = self.cloud.most = None
        self.cloud.lose_answers = self.cloud.lose_requests = self.cloud.hide_for = 0

    def no_capacity(self) -> None:
        self.cloud.most = 0

    def capacity(self, count: int) -> None:
        self.cloud.most = count

    def no_quota(self) -> None:
        self.cloud.error = QuotaError("no quota")
        self.cloud.error.quota = "gpus"

    def lose_answer(self, verb: str, times: int = 1) -> None:
        if verb == "launch":
            self.cloud.lose_answers = times

    def lose_request(self, verb: str, times: int = 1) -> None:
        self.cloud.lose_requests = times

    def hide_new(self, looks: int) -> None:
        self.cloud.hide_for = looks

    def expire_credentials(self) -> None:
        self.cloud.error = AuthenticationError("expired")

    def deny(self) -> None:
        self.cloud.error = AuthenticationError("denied")

    def launches_asked(self) -> int:
        return self.cloud.asked

    def user_data_of(self, instance_id: str) -> str:
        return self.cloud.user_data[instance_id][0]

    def disk_gib_of(self, instance_id: str) -> int:
        return self.cloud.user_data[instance_id][1]
