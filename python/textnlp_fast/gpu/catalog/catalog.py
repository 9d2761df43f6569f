"""What can be rented: instance types, where, and at what price, as of when. No network, no clock but `today`."""

from __future__ import annotations

import datetime
import difflib
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Final

from textnlp_fast.errors import (
    CorruptDataError,
    InvalidInputError,
    UnknownInstanceTypeError,
    UnknownRegionError,
)
from textnlp_fast.gpu.catalog.document import Document, Key, Listed, parse
from textnlp_fast.gpu.types import GPUSpec, GPUType, InstanceType, Market, Offer

__all__ = ["MAX_AGE_DAYS", "SPOT_MAX_AGE_DAYS", "Catalog", "packaged", "read_refreshed", "refreshed_path"]

#: Clouds change a list price about once a year, spot's from day to day.
MAX_AGE_DAYS: Final = 180
SPOT_MAX_AGE_DAYS: Final = 14
# A refreshed file with every zone of three clouds has some MB.
_LIMIT_BYTES: Final = 64 << 20


class Catalog:
    """An immutable catalogue. Made by :meth:`load`; threads may share it."""

    def __init__(
        self,
        document: Document,
        *,
        today: datetime.date | None = None,
        max_age_days: int = MAX_AGE_DAYS,
        spot_max_age_days: int = SPOT_MAX_AGE_DAYS,
    ) -> None:
        for name, days in (("max_age_days", max_age_days), ("spot_max_age_days", spot_max_age_days)):
            if days < 0:
                raise InvalidInputError(f"{name} cannot be {days}")
        self.today = today or datetime.datetime.now(datetime.timezone.utc).date()
        self._gpus = {spec.gpu_type: spec for spec in document.gpus}
        self._types = dict(sorted(document.instance_types.items()))
        ages = {Market.ON_DEMAND: max_age_days, Market.SPOT: spot_max_age_days}
        stale = {
            (market, day): (self.today - day).days > ages[market]
            for market, day in {(offer.market, offer.as_of) for offer in document.offers}
        }
        offers = [
            replace(offer, stale=True) if stale[offer.market, offer.as_of] else offer
            for offer in document.offers
        ]
        self._offers = tuple(sorted(offers, key=_by_price))
        regions: dict[str, set[str]] = {provider: set() for provider, _ in self._types}
        for offer in offers:
            regions.setdefault(offer.instance_type.provider, set()).add(offer.region)
        self._regions = {provider: tuple(sorted(names)) for provider, names in sorted(regions.items())}

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str] | None = None,
        *,
        today: datetime.date | None = None,
        max_age_days: int = MAX_AGE_DAYS,
        spot_max_age_days: int = SPOT_MAX_AGE_DAYS,
    ) -> Catalog:
        """The packaged facts, overlaid by the refreshed file at `path` (None: :func:`refreshed_path`), if there is one.

        Of the prices that both have for a type, region and market, the newer ones count. Raises CorruptDataError
        for a refreshed file that cannot be read.
        """
        base = packaged()
        refreshed = read_refreshed(Path(path) if path is not None else refreshed_path(), base)
        document = base if refreshed is None else overlaid(base, refreshed)
        return cls(document, today=today, max_age_days=max_age_days, spot_max_age_days=spot_max_age_days)

    @property
    def providers(self) -> tuple[str, ...]:
        """Providers that the catalogue knows, by name."""
        return tuple(self._regions)

    @property
    def gpus(self) -> Mapping[GPUType, GPUSpec]:
        """All specifications."""
        return MappingProxyType(self._gpus)

    def spec(self, gpu_type: GPUType | str) -> GPUSpec:
        """What one GPU of the type can do. Raises UnknownGPUTypeError for a name that means none."""
        return self._gpus[GPUType.parse(gpu_type)]

    def instance_types(self, provider: str | None = None) -> list[InstanceType]:
        """All types, or those of a provider, by name."""
        if provider is not None:
            self._check_provider(provider)
        return [one.instance_type for key, one in self._types.items() if provider in (None, key[0])]

    def instance_type(self, provider: str, name: str) -> InstanceType:
        """The type of that name. Raises UnknownInstanceTypeError, with the nearest name."""
        return self._listed(provider, name).instance_type

    def provenance(self, provider: str, name: str) -> tuple[datetime.date, str]:
        """As of when, and from where, an instance type's facts are."""
        listed = self._listed(provider, name)
        return listed.as_of, listed.source

    def regions(self, provider: str) -> tuple[str, ...]:
        """Regions of a provider in which the catalogue has a price."""
        self._check_provider(provider)
        return self._regions[provider]

    def check_region(self, provider: str, region: str) -> None:
        """Raises UnknownRegionError, with the nearest name, for a region without a price here."""
        if region not in self.regions(provider):
            raise _unknown_region(region, {provider: self._regions[provider]})

    def check_instance_types(self, names: Collection[str], providers: Collection[str] | None = None) -> None:
        """Raises UnknownInstanceTypeError, with the nearest name, for one that no provider of these (None: all) has."""
        asked = [one for one in self._regions if providers is None or one in providers]
        known = {name for owner, name in self._types if owner in asked}
        for name in sorted(names):
            if name not in known:
                raise _unknown_type(name, known, asked)

    def offers(
        self,
        *,
        providers: Iterable[str] | str | None = None,
        regions: Iterable[str] | str | None = None,
        gpu_types: Iterable[GPUType | str] | GPUType | str | None = None,
        gpu_type: GPUType | str | None = None,
        instance_types: Iterable[str] | str | None = None,
        min_gpus: float | None = None,
        markets: Iterable[Market | str] | Market | str | None = None,
        max_usd_per_hour: float | None = None,
        include_stale: bool = True,
    ) -> list[Offer]:
        """All offers that pass every filter that is given, the cheapest first.

        Raises UnknownRegionError, UnknownGPUTypeError, UnknownInstanceTypeError and InvalidInputError for names that
        are none, so that a slip does not look like an empty market; an empty list of names passes nothing.
        """
        wanted = self._wanted_providers(providers)
        places = _names("regions", regions)
        if places is not None:
            self._check_regions(places, wanted)
        gpus = _gpu_types(gpu_types, gpu_type)
        kinds = _names("instance_types", instance_types)
        if kinds is not None:
            self.check_instance_types(kinds, wanted)
        ways = _markets(markets)
        for name, value in (("min_gpus", min_gpus), ("max_usd_per_hour", max_usd_per_hour)):
            if value is not None and not (isinstance(value, (int, float)) and value >= 0):
                raise InvalidInputError(f"{name} cannot be {value!r}")
        return [
            offer
            for offer in self._offers
            if (wanted is None or offer.instance_type.provider in wanted)
            and (places is None or offer.region in places)
            and (gpus is None or offer.instance_type.gpu_type in gpus)
            and (kinds is None or offer.instance_type.name in kinds)
            and (ways is None or offer.market in ways)
            and (min_gpus is None or offer.instance_type.gpu_count >= min_gpus)
            and (max_usd_per_hour is None or offer.usd_per_hour <= max_usd_per_hour)
            and (include_stale or not offer.stale)
        ]

    def _listed(self, provider: str, name: str) -> Listed:
        self._check_provider(provider)
        listed = self._types.get((provider, name))
        if listed is None:
            names = {known for owner, known in self._types if owner == provider}
            raise _unknown_type(name, names, [provider])
        return listed

    def _wanted_providers(self, providers: Iterable[str] | str | None) -> frozenset[str] | None:
        wanted = _names("providers", providers)
        for provider in sorted(wanted or ()):
            self._check_provider(provider)
        return wanted

    def _check_provider(self, provider: str) -> None:
        if provider not in self._regions:
            near = difflib.get_close_matches(provider, self._regions, 1, 0.5)
            raise InvalidInputError(
                f"the catalogue has no provider {provider!r}",
                hint=f"Did you mean {near[0]}?" if near else f"Known are: {', '.join(self._regions)}.",
            )

    def _check_regions(self, places: Collection[str], providers: Collection[str] | None) -> None:
        asked = {
            provider: names
            for provider, names in self._regions.items()
            if providers is None or provider in providers
        }
        for place in sorted(places):
            if not any(place in names for names in asked.values()):
                raise _unknown_region(place, asked)


def packaged() -> Document:
    """What ships with the package."""
    data = resources.files(__package__).joinpath("data").joinpath("catalog.json").read_bytes()
    return parse(data, "the packaged catalogue")


def refreshed_path() -> Path:
    """Where `gpu catalog refresh` writes: the setting `gpu_catalog`, or a file in the user's cache."""
    if any(os.environ.get(f"TEXTNLP_FAST_{name}") for name in ("GPU_CATALOG", "CONFIG", "ENV_FILE")):
        from textnlp_fast.config import load_settings  # noqa: PLC0415 - takes longer than all else here

        chosen = load_settings().gpu_catalog
        if chosen is not None:
            return chosen
    root = os.environ.get("XDG_CACHE_HOME") or str(Path("~/.cache").expanduser())
    return Path(root) / "textnlp-fast" / "gpu-catalog.json"


def read_refreshed(path: Path, base: Document) -> Document | None:
    """The refreshed file; None if there is none."""
    try:
        with path.open("rb") as file:
            data = file.read(_LIMIT_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InvalidInputError(
            f"cannot read the refreshed catalogue {path}: {error.strerror}",
            hint="Set TEXTNLP_FAST_GPU_CATALOG to a file that can be read.",
        ) from error
    if len(data) > _LIMIT_BYTES:
        raise CorruptDataError(f"{path} has more than {_LIMIT_BYTES} bytes: it is no catalogue")
    return parse(data, str(path), base.instance_types)


def overlaid(base: Document, newer: Document) -> Document:
    """Both together. For a type, region and market the prices of the later date count, all zones of them; on the same
    day, those of `newer`. The later facts of an instance type count, for the prices of both."""
    types = dict(base.instance_types)
    for key, listed in newer.instance_types.items():
        if key not in types or listed.as_of >= types[key].as_of:
            types[key] = listed
    groups: dict[tuple[Key, str, Market], list[Offer]] = {}
    for offer in base.offers:
        groups.setdefault(_group(offer), []).append(offer)
    fresh: dict[tuple[Key, str, Market], list[Offer]] = {}
    for offer in newer.offers:
        fresh.setdefault(_group(offer), []).append(offer)
    for group, offers in fresh.items():
        old = groups.get(group)
        if old is None or max(one.as_of for one in offers) >= max(one.as_of for one in old):
            groups[group] = offers
    offers = [
        offer
        if offer.instance_type is types[group[0]].instance_type
        else replace(offer, instance_type=types[group[0]].instance_type)
        for group, members in groups.items()
        for offer in members
    ]
    gpus = {spec.gpu_type: spec for spec in (*base.gpus, *newer.gpus)}
    return Document(gpus=tuple(gpus.values()), instance_types=types, offers=tuple(offers))


def _group(offer: Offer) -> tuple[Key, str, Market]:
    return (offer.instance_type.provider, offer.instance_type.name), offer.region, offer.market


def _by_price(offer: Offer) -> tuple[float, str, str, str, str, str]:
    kind = offer.instance_type
    return offer.usd_per_hour, kind.provider, kind.name, offer.region, offer.zone or "", offer.market.value


def _names(what: str, names: Iterable[str] | str | None) -> frozenset[str] | None:
    if names is None:
        return None
    if not isinstance(names, (str, Iterable)):
        raise InvalidInputError(f"{what} cannot be {names!r}", hint="Give a name, or a list of names.")
    several = [names] if isinstance(names, str) else [*names]
    for name in several:
        if not isinstance(name, str):
            raise InvalidInputError(f"{what} cannot have {name!r}", hint="Give a name, or a list of names.")
    return frozenset(several)


def _gpu_types(
    many: Iterable[GPUType | str] | GPUType | str | None, one: GPUType | str | None
) -> frozenset[GPUType] | None:
    if many is not None and one is not None:
        raise InvalidInputError("give gpu_type or gpu_types, not both")
    chosen = one if many is None else many
    if chosen is None:
        return None
    several = chosen if isinstance(chosen, Iterable) and not isinstance(chosen, str) else [chosen]
    return frozenset(GPUType.parse(name) for name in several)


def _markets(markets: Iterable[Market | str] | Market | str | None) -> frozenset[Market] | None:
    names = _names("markets", markets)
    if names is None:
        return None
    try:
        return frozenset(Market(name) for name in names)
    except ValueError as error:
        raise InvalidInputError(str(error), hint=f"Markets are: {', '.join(Market)}.") from None


def _unknown_type(name: str, known: Collection[str], providers: Sequence[str]) -> UnknownInstanceTypeError:
    near = difflib.get_close_matches(name, sorted(known), 1, 0.5)
    ask = f"Did you mean {near[0]}? " if near else ""
    show = f" --provider {providers[0]}" if len(providers) == 1 else ""
    return UnknownInstanceTypeError(
        f"the catalogue has no instance type {name!r} of {' or '.join(providers)}",
        hint=f"{ask}`textnlp-fast gpu catalog show{show} --limit 0` lists them.",
    )


def _unknown_region(region: str, asked: Mapping[str, Sequence[str]]) -> UnknownRegionError:
    names = [name for known in asked.values() for name in known]
    near = difflib.get_close_matches(region, names, 1, 0.5)
    ask = f"Did you mean {near[0]}? " if near else ""
    return UnknownRegionError(
        f"the catalogue has no price in a region {region!r} of {' or '.join(asked)}",
        hint=f"{ask}`textnlp-fast gpu catalog refresh --region {region}` asks the cloud for prices there.",
    )
