"""The resource manager: machines with GPUs from whichever cloud has them, each known and paid for on purpose."""

from __future__ import annotations

import asyncio
import datetime
import functools
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from textnlp_fast.config import Settings, load_settings
from textnlp_fast.errors import InvalidInputError, NoPlanError, TextnlpFastError
from textnlp_fast.gpu.catalog import Catalog
from textnlp_fast.gpu.providers.contract import Instance, InstanceState, Provider
from textnlp_fast.gpu.providers.registry import create_provider
from textnlp_fast.gpu.resources.acquiring import Held, acquisition_of, gather
from textnlp_fast.gpu.resources.candidates import (
    Plan,
    check_types,
    fitting,
    nothing_here,
    on_demand_prices,
    planned,
)
from textnlp_fast.gpu.resources.failures import Failure, Failures
from textnlp_fast.gpu.resources.failures import Place as LaunchPlace
from textnlp_fast.gpu.resources.fleet import FleetInstance, fleet_instance
from textnlp_fast.gpu.resources.journal import Journal
from textnlp_fast.gpu.resources.keeping import Keeper, Place, Problem
from textnlp_fast.gpu.resources.launching import Launcher
from textnlp_fast.gpu.resources.ledger import Costs, costs_of, total
from textnlp_fast.gpu.resources.owners import checked_owner, default_owner
from textnlp_fast.gpu.resources.provider_settings import options_of, region_of
from textnlp_fast.gpu.resources.records import InstanceRecord, LaunchRecord
from textnlp_fast.gpu.resources.requests import AcquireRequest, Budget, MarketChoice
from textnlp_fast.gpu.types import GPUType, Market, Offer
from textnlp_fast.telemetry import operation

__all__ = ["CostReport", "GPUResourceManager", "Orphans"]


@dataclass(frozen=True, kw_only=True)
class Orphans:
    """What journal and clouds do not agree on."""

    strays: tuple[Instance, ...]
    """They run and carry this owner's tag, and no record has them."""
    lost: tuple[tuple[str, str], ...]
    """Launch and instance id: alive by the journal, and not there. They are written down as ended."""
    problems: tuple[Problem, ...]
    """Places that could not be looked at."""


@dataclass(frozen=True, kw_only=True)
class CostReport:
    """What the fleet costs, together and for each launch, oldest first."""

    total: Costs
    launches: tuple[tuple[LaunchRecord, Costs], ...]
    budget: Budget
    at: datetime.datetime


class GPUResourceManager:
    """Rents, lists and gives back machines. Thread-safe; several processes may share one `state`.

    `state` is a folder or a URL of a bucket for the journal (default: the setting `fleet_state`, or a folder of the
    user's), `owner` the name of the fleet on its machines' tags (default: the setting `fleet_owner`, or user and host).
    Budgets, caps and defaults come from the settings where they are not given.
    """

    def __init__(
        self,
        *,
        state: str | os.PathLike[str] | None = None,
        owner: str | None = None,
        budget: Budget | None = None,
        max_usd_per_hour: float | None = None,
        catalog: Catalog | None = None,
        settings: Settings | None = None,
        now: Callable[[], datetime.datetime] | None = None,
    ) -> None:
        self.settings = load_settings() if settings is None else settings
        self.owner = checked_owner(owner or self.settings.fleet_owner or default_owner())
        self.budget = budget or Budget(
            usd_per_hour=self.settings.gpu_budget_usd_per_hour, total_usd=self.settings.gpu_budget_usd
        )
        self._cap = max_usd_per_hour or self.settings.gpu_max_usd_per_hour
        self._catalog = catalog
        self._now = now or (lambda: datetime.datetime.now(datetime.timezone.utc))
        self._providers: dict[Place, Provider] = {}
        self._unsettled: set[Place] = set()
        self._lock = threading.Lock()
        self.journal = Journal.open(self.settings.fleet_state if state is None else state)
        self._failures = Failures(self.journal.store)
        self._keeper = Keeper(self.journal, self._providers, owner=self.owner, now=self._now)
        self._launcher = Launcher(
            self.journal,
            self._failures,
            owner=self.owner,
            budget=self.budget,
            provider_at=self._provider_at,
            now=self._now,
        )

    @property
    def catalog(self) -> Catalog:
        """Prices; loaded when first used."""
        with self._lock:
            if self._catalog is None:
                self._catalog = Catalog.load()
            return self._catalog

    # --- providers --------------------------------------------------------------------------------------------

    def register_provider(self, name: str, region: str | None = None, **options: Any) -> Provider:
        """Makes a region of a provider one that is rented from; its SDK is imported now.

        `region` defaults to the setting `aws_region` for AWS. Options are the provider's own. Raises
        InvalidInputError, UnknownRegionError, MissingPackageError.
        """
        if region is None and isinstance(name, str):
            region = region_of(name, self.settings)
        if region is None:
            raise InvalidInputError(f"no region was given for {name}", hint="Name one.")
        for option, value in options_of(name, self.settings).items():
            options.setdefault(option, value)
        options.setdefault("price_of", lambda kind, market: self._price(name, region, kind, market))
        return self.add_provider(create_provider(name, region, **options))

    def add_provider(self, provider: Provider) -> Provider:
        """The same, for a provider that was made already."""
        place = (provider.name, provider.region)
        with self._lock:
            self._providers[place] = provider
            self._unsettled.add(place)
        return provider

    @property
    def places(self) -> Sequence[Place]:
        """Provider and region of all that are registered."""
        with self._lock:
            return sorted(self._providers)

    def _provider_at(self, name: str, region: str) -> Provider:
        try:
            return self._providers[name, region]
        except KeyError:
            raise InvalidInputError(
                f"{name} in {region} is not registered",
                hint=f"register_provider({name!r}, {region!r}) does it.",
            ) from None

    # --- renting ----------------------------------------------------------------------------------------------

    def get_gpu_instance(
        self,
        provider: str,
        gpu_type: GPUType | str | None = None,
        count: float = 1,
        *,
        market: MarketChoice | None = None,
        **request: Any,
    ) -> FleetInstance:
        """One machine of `provider` with at least `count` GPUs of the type, the cheapest that is to be had.

        `gpu_type` defaults to the setting `default_gpu_type`, `market` to spot first if `enable_spot_instances` is set.
        `request` takes the other fields of :class:`AcquireRequest`. Raises as :meth:`acquire`.
        """
        if not any(name == provider for name, _ in self.places):
            raise InvalidInputError(
                f"provider {provider!r} is not registered", hint="Call register_provider(name, region) first."
            )
        if request.get("instances", 1) != 1:
            raise InvalidInputError("get_gpu_instance gives one machine", hint="acquire() gives several.")
        (found,) = self.acquire(
            self.request(gpu_types=gpu_type, gpu_count=count, market=market, providers=(provider,), **request)
        )
        return found

    def request(
        self,
        *,
        gpu_types: Sequence[GPUType | str] | GPUType | str | None = None,
        market: MarketChoice | None = None,
        max_usd_per_hour: float | None = None,
        **fields: Any,
    ) -> AcquireRequest:
        """A request, with settings for what is not given."""
        chosen = self.settings.default_gpu_type or () if gpu_types in (None, (), "") else gpu_types
        if market is None:
            market = "spot-first" if self.settings.enable_spot_instances else "on-demand"
        cap = self._cap if max_usd_per_hour is None else max_usd_per_hour
        try:
            return AcquireRequest(gpu_types=chosen, market=market, max_usd_per_hour=cap, **fields)
        except TypeError as error:
            raise InvalidInputError(f"a request has no such field: {error}") from None

    def acquire(self, request: AcquireRequest) -> Sequence[FleetInstance]:
        """Machines for a request, tried place after place: the cheapest first, what failed lately last.

        Raises NoPlanError where no offer fits, PriceTooHighError, BudgetExceededError (before anything is launched),
        and where all places failed the error that they agree on, or CapacityError.
        """
        if request.max_usd_per_hour is None and self._cap is not None:
            request = replace(request, max_usd_per_hour=self._cap)
        with operation("gpu.acquire"):
            self._settle_once()
            held = gather(
                request,
                acquisition_of(self.owner, request.key),
                journal=self.journal,
                launcher=self._launcher,
                plan=lambda: self._planned(request),
                alive=self._keeper.alive,
                give_back=self._give_back,
            )
            return self._shown(held)

    def plan(self, request: AcquireRequest) -> Plan:
        """What :meth:`acquire` would try, in that order, and what it would not and why. Launches nothing.

        Asks the providers where they offer the types; those that do not answer are taken as offering them. Raises as
        :meth:`acquire` where nothing fits, or all that does is over a cap or a budget.
        """
        return self._launcher.affordable(
            self._planned(request), request, acquisition_of(self.owner, request.key)
        )

    def _planned(self, request: AcquireRequest) -> Plan:
        """The same, whatever there is money for: an acquisition looks at that launch by launch."""
        if request.max_usd_per_hour is None and self._cap is not None:
            request = replace(request, max_usd_per_hour=self._cap)
        offers = self._offers(request)
        fit = fitting(request, offers)
        zones = self._zones({(one.instance_type.provider, one.region, one.instance_type.name) for one in fit})
        chooses = {
            (name, region, market)
            for name, region in self.places
            for market in self._provider_at(name, region).chooses_zone
        }
        prices = on_demand_prices(offers)
        tried = functools.partial(planned, request, offers, zones=zones, cloud_chooses=chooses)
        try:
            plan = tried(list_prices=prices, failures={})
        except NoPlanError as error:
            raise (
                nothing_here(request, offers) if {name for name, _ in self.places} == {"local"} else error
            ) from None
        now = self._now()
        failures: dict[LaunchPlace, Failure] = {}
        for candidate in plan.candidates:
            failure = self._failures.of(candidate.place, now)
            if failure is not None:
                failures[candidate.place] = failure
        return tried(list_prices=prices, failures=failures) if failures else plan

    def _offers(self, request: AcquireRequest) -> Sequence[Offer]:
        """All offers of the regions that are registered, in any market: list prices say what spot saves."""
        found: list[Offer] = []
        for name, region in self.places:
            if request.providers is not None and name not in request.providers:
                continue
            provider = self._providers[name, region]
            found.extend(provider.offers())
            if name in self.catalog.providers and region in self.catalog.regions(name):
                found.extend(
                    self.catalog.offers(providers=name, regions=region, gpu_types=list(request.gpu_types))
                )
        check_types(request, found, self.catalog, {name for name, _ in self.places})
        return found

    def _zones(self, groups: Iterable[tuple[str, str, str]]) -> dict[tuple[str, str, str], Sequence[str]]:
        found: dict[tuple[str, str, str], Sequence[str]] = {}
        for name, region, kind in sorted(groups):
            try:
                found[name, region, kind] = self._providers[name, region].zones(kind)
            except TextnlpFastError:
                # The launch will say what is wrong, and others can be tried.
                continue
        return found

    def _price(self, name: str, region: str, kind: str, market: Market) -> float | None:
        if name not in self.catalog.providers or region not in self.catalog.regions(name):
            return None
        # A machine that somebody launched by hand may be of a type that the catalogue does not know.
        offers = self.catalog.offers(providers=name, regions=region, markets=market)
        return max((one.usd_per_hour for one in offers if one.instance_type.name == kind), default=None)

    # --- keeping ----------------------------------------------------------------------------------------------

    def list(self, *, refresh: bool = True) -> Sequence[FleetInstance]:
        """All machines of the journal that have not ended; `refresh` asks the registered providers first."""
        if refresh:
            self.settle()
        held = [
            (record, one) for record in self.journal.records() for one in record.instances if one.state.alive
        ]
        return self._shown(held)

    def release(self, instances: Iterable[FleetInstance | str]) -> Sequence[str]:
        """Ends machines, by id or as they were acquired; those that have ended already are left out of the answer.

        Idempotent. Raises InstanceNotFoundError for an id that the journal does not have.
        """
        return self._keeper.change(_ids(instances), InstanceState.TERMINATED)

    terminate = release

    def stop(self, instances: Iterable[FleetInstance | str]) -> Sequence[str]:
        """Stops machines, which then cost their disks only."""
        return self._keeper.change(_ids(instances), InstanceState.STOPPED)

    def start(self, instances: Iterable[FleetInstance | str]) -> Sequence[str]:
        """Starts stopped machines."""
        return self._keeper.change(_ids(instances), InstanceState.RUNNING)

    def settle(self) -> Sequence[Problem]:
        """Brings journal and clouds in step: launches whose process died are found, what ended is written down.

        Happens by itself before the first acquisition. Returns the places that did not answer.
        """
        places = self.places
        done, problems = self._keeper.settle(places)
        with self._lock:
            self._unsettled -= set(done)
        return problems

    def orphans(self, *, terminate: bool = False) -> Orphans:
        """What runs and is in no record, and the reverse; `terminate` ends the former."""
        done, problems = self._keeper.settle(self.places)
        strays = [(place, one) for place, found in done.items() for one in found.strays]
        if terminate:
            for place in dict.fromkeys(place for place, _ in strays):
                self._providers[place].terminate([one.instance_id for home, one in strays if home == place])
        lost = [(record.launch_id, one.instance_id) for found in done.values() for record, one in found.lost]
        return Orphans(strays=tuple(one for _, one in strays), lost=tuple(lost), problems=tuple(problems))

    def costs(self) -> CostReport:
        """What the fleet costs now, has cost, and has saved by spot, from the journal."""
        now = self._now()
        records = sorted(self.journal.records(), key=lambda one: (one.created_at, one.launch_id))
        launches = tuple((one, costs_of(one, now)) for one in records if one.instances)
        return CostReport(total=total(records, now), launches=launches, budget=self.budget, at=now)

    # --- the same, without waiting ----------------------------------------------------------------------------

    async def get_gpu_instance_async(
        self, provider: str, gpu_type: GPUType | str | None = None, count: float = 1, **request: Any
    ) -> FleetInstance:
        """:meth:`get_gpu_instance` on a thread. Cancelled, the launch goes on, and the journal has it."""
        return await asyncio.to_thread(self.get_gpu_instance, provider, gpu_type, count, **request)

    async def acquire_async(self, request: AcquireRequest) -> Sequence[FleetInstance]:
        """:meth:`acquire` on a thread. Cancelled, it goes on, and the journal has what it launches."""
        return await asyncio.to_thread(self.acquire, request)

    async def release_async(self, instances: Iterable[FleetInstance | str]) -> Sequence[str]:
        """:meth:`release` on a thread."""
        return await asyncio.to_thread(self.release, list(instances))

    # --- inside -----------------------------------------------------------------------------------------------

    def _settle_once(self) -> None:
        with self._lock:
            places = sorted(self._unsettled)
        done, _ = self._keeper.settle(places)
        with self._lock:
            self._unsettled -= set(done)

    def _give_back(self, held: Sequence[Held]) -> None:
        if held:
            self._keeper.change([one.instance_id for _, one in held], InstanceState.TERMINATED)

    def _shown(self, held: Sequence[tuple[LaunchRecord, InstanceRecord]]) -> Sequence[FleetInstance]:
        described: dict[str, Instance] = {}
        for place in dict.fromkeys((record.provider, record.region) for record, _ in held):
            provider = self._providers.get(place)
            if provider is None:
                continue
            ids = [one.instance_id for record, one in held if (record.provider, record.region) == place]
            try:
                described |= {one.instance_id: one for one in provider.describe(ids)}
            except TextnlpFastError:
                continue  # the journal knows enough to show them
        now = self._now()
        return [fleet_instance(record, one, described, now) for record, one in held]


def _ids(instances: Iterable[FleetInstance | str]) -> Sequence[str]:
    if isinstance(instances, str):
        raise InvalidInputError("a list of instances is wanted, not one id", hint="Put it in brackets.")
    return [one if isinstance(one, str) else one.instance_id for one in instances]
