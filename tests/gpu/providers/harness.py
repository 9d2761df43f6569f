"""What a provider's tests hand to the contract's cases: a cloud that can be broken, and that says what is true."""

from __future__ import annotations

import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeVar

import pytest

from textnlp_fast.gpu.providers.contract import OWNER_TAG, LaunchRequest, Provider
from textnlp_fast.gpu.types import Market

__all__ = ["Harness", "eventually", "request_for"]

Value = TypeVar("Value")


class Harness(ABC):
    """A cloud for one test. Everything but what `cannot` excuses has to work; a fault lasts until `heal`.

    `truth` asks the cloud's server itself, not the provider: it is what the cases believe.
    """

    name: ClassVar[str]
    region: ClassVar[str]
    bad_region: ClassVar[str]
    """None that the cloud has."""
    instance_type: str
    other_type: str
    bad_type: ClassVar[str]
    zone: str | None
    """One that offers `instance_type`."""
    bad_zone: ClassVar[str]
    market: ClassVar[Market] = Market.ON_DEMAND
    """What the cases launch where they do not say: a cloud may have another road for each."""
    image: str | None = None
    bad_image: ClassVar[str] = "no-such-image"
    spot_price_usd: float = 0.2
    sdk: ClassVar[str | None] = None
    """A module of the cloud's SDK: nothing may import it before a provider is made."""
    cannot: ClassVar[Mapping[str, str]] = {}
    """What this cloud has no notion of, and why: spot, zones, images, disks, user data, stop, price cap (one that the
    cloud itself takes), unknown prices, quota, throttling, lost answers, eventual consistency, credentials, regions."""

    @abstractmethod
    def provider(self, **options: Any) -> Provider:
        """A new provider of the same cloud, as another process would make it."""

    @abstractmethod
    def truth(self) -> dict[str, str | None]:
        """All instances that exist and are not ended or ending: id -> launch id. Any owner's, tagged or not."""

    @abstractmethod
    def heal(self) -> None:
        """All faults are gone."""

    def forget(self) -> None:  # noqa: B027 - most clouds forget by themselves
        """What has ended is not listed any more, where the cloud of the tests would list it for good."""

    def needs(self, *notions: str) -> None:
        """Skips the case where the cloud has no such notion."""
        for notion in notions:
            if notion in self.cannot:
                pytest.skip(f"{self.name}: {self.cannot[notion]}")

    # --- faults -----------------------------------------------------------------------------------------------

    @abstractmethod
    def no_capacity(self) -> None:
        """Nothing is to be had."""

    @abstractmethod
    def capacity(self, count: int) -> None:
        """A launch gets `count` instances at most."""

    def no_quota(self) -> None:
        raise NotImplementedError

    def throttle(self, times: int) -> None:
        """The next `times` requests are throttled."""
        raise NotImplementedError

    def lose_answer(self, verb: str, times: int = 1) -> None:
        """The server does it, the connection is cut. `verb`: launch, terminate, tag, stop, start or describe."""
        raise NotImplementedError

    def lose_request(self, verb: str, times: int = 1) -> None:
        """The connection is cut before the server hears of it."""
        raise NotImplementedError

    def hide_new(self, looks: int) -> None:
        """Instances launched from now on are not seen by the next so many requests."""
        raise NotImplementedError

    def expire_credentials(self) -> None:
        raise NotImplementedError

    def deny(self) -> None:
        """The credentials are good, and may not do this."""
        raise NotImplementedError

    def launches_asked(self) -> int:
        """How many requests to launch the server has heard of."""
        raise NotImplementedError

    # --- what became of a launch ------------------------------------------------------------------------------

    def user_data_of(self, instance_id: str) -> str:
        raise NotImplementedError

    def disk_gib_of(self, instance_id: str) -> int:
        raise NotImplementedError


def request_for(harness: Harness, **changes: Any) -> LaunchRequest:
    """A request that the cloud can carry out, with an id of its own and an owner."""
    chosen: dict[str, Any] = {
        "launch_id": f"l{uuid.uuid4().hex[:20]}",
        "instance_type": harness.instance_type,
        "image": harness.image,
        "market": harness.market,
        "tags": {OWNER_TAG: "fleet-a"},
    }
    return LaunchRequest(**{**chosen, **changes})


def eventually(
    look: Callable[[], Value], wanted: Callable[[Value], bool], *, within_s: float = 60.0
) -> Value:
    """What `look` sees once it is as wanted."""
    until = time.monotonic() + within_s
    while True:
        seen = look()
        if wanted(seen):
            return seen
        if time.monotonic() > until:
            raise AssertionError(f"still {seen!r} after {within_s} s")
        time.sleep(0.05)
