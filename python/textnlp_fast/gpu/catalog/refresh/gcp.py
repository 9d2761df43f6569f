"""Google Cloud's prices: the Cloud Billing catalogue has those of cores, memory, GPUs, disks; a machine is their sum.

No field links a machine type to its SKUs: descriptions do, as `A2 Instance Core running in Americas` or
`Nvidia L4 GPU attached to Spot Preemptible VMs running in Iowa`. Only descriptions that are known word for word count,
so that commitments, reservations, sole tenants, calendar mode and the workload scheduler's prices never do.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from typing import Any, Final, NamedTuple
from urllib.parse import urlencode

from textnlp_fast.errors import AuthenticationError, MissingPackageError, ProviderUnavailableError
from textnlp_fast.gpu.catalog.document import Key, Listed
from textnlp_fast.gpu.catalog.refresh.http import JsonClient
from textnlp_fast.gpu.catalog.refresh.readings import (
    Part,
    Place,
    Price,
    Reading,
    decimal,
    field_of,
    one_line,
    strange,
)
from textnlp_fast.gpu.types import InstanceType, Market

__all__ = ["GcpPrices", "Rates", "prices_of", "rate_of"]

_ORIGIN: Final = "https://cloudbilling.googleapis.com"
#: Compute Engine.
_SERVICE: Final = "services/6F81-5844-456A"
_SCOPE: Final = "https://www.googleapis.com/auth/cloud-billing.readonly"
_MOST_PAGES: Final = 100
_HOURS_A_MONTH: Final = 730
_SSD: Final = "SSD backed Local Storage"


class _Recipe(NamedTuple):
    """Whose cores and memory (None: the GPU's price has them) and which GPU a machine is billed as."""

    host: str | None
    gpus: tuple[str, ...]


# By the beginning of a machine's name. Google renamed some SKUs on the way: each has all names that it had.
_RECIPES: Final = {
    "a2-highgpu-": _Recipe("A2 Instance", ("Nvidia Tesla A100 GPU",)),
    "a2-megagpu-": _Recipe("A2 Instance", ("Nvidia Tesla A100 GPU",)),
    "a2-ultragpu-": _Recipe("A2 Instance", ("Nvidia Tesla A100 80GB GPU",)),
    "a3-highgpu-": _Recipe("A3 Instance", ("Nvidia H100 80GB GPU",)),
    "a3-megagpu-": _Recipe(
        "A3Plus Instance",
        ("Nvidia H100 80GB Mega GPU", "Nvidia H100 80GB Plus GPU", "Nvidia H100 Mega 80GB GPU"),
    ),
    "a3-ultragpu-": _Recipe("A3Ultra Instance", ("H200 141GB GPU", "Nvidia H200 141GB GPU")),
    "a4-highgpu-": _Recipe(None, ("A4 Nvidia B200 (1 gpu slice)",)),
    "g2-standard-": _Recipe("G2 Instance", ("Nvidia L4 GPU",)),
    "g4-standard-": _Recipe("G4 Instance", ("RTX 6000 96GB",)),
}
_N1: Final = re.compile(r"n1-[a-z0-9-]+\+nvidia-tesla-(?P<gpu>[a-z0-9]+)x\d+")
_N1_HOST: Final = "N1 Predefined Instance"
# Sold on spot, by reservation or through the scheduler, though the list has prices of their parts on demand.
_NOT_ON_DEMAND: Final = re.compile(r"a3-highgpu-[124]g|a3-ultragpu-.*|a4-.*")
_UNITS: Final = {"Core": "h", "Ram": "GiBy.h"}

#: Dollars an hour by label, region and market.
Rates = dict[tuple[str, str, Market], float]


class GcpPrices:
    """Prices of the Google types in `kinds`: the list does not say what a machine has."""

    def __init__(self, kinds: Mapping[Key, Listed], *, client: JsonClient | None = None) -> None:
        self._kinds = [listed.instance_type for key, listed in sorted(kinds.items()) if key[0] == "gcp"]
        self._client = client

    def parts(self, regions: tuple[str, ...]) -> Iterator[Part]:
        """One part: the list has all regions in one."""
        yield Part(what="gcp: prices", read=lambda: self._read(regions))

    def _read(self, regions: tuple[str, ...]) -> Reading:
        client = self._client or JsonClient("Google's price list", _ORIGIN, headers=_Login())
        rates: Rates = {}
        notes: list[str] = []
        wanted = frozenset(label for kind in self._kinds for label in _labels(kind))
        for sku in _skus(client):
            _take(sku, wanted, frozenset(regions), rates, notes)
        prices, more = prices_of(self._kinds, regions, rates)
        return Reading(prices=tuple(prices), notes=(*notes, *more))


def rate_of(sku: Any) -> tuple[str, Market, float | None]:
    """Label, market and dollars an hour of a SKU; None for the dollars where it has not one plain price.

    The description says the market: some of spot's SKUs have the usage type of those on demand.
    """
    label = field_of(sku, "description", str) or ""
    usage = field_of(field_of(sku, "category", dict), "usageType", str)
    market = Market.SPOT if usage == "Preemptible" else Market.ON_DEMAND
    label = re.sub(r" (running )?in [^()]*$", "", label)
    for spot in (r"^(Spot )?Preemptible ", r" attached to (Spot )?Preemptible VMs?$"):
        bare = re.sub(spot, "", label)
        if bare != label:
            label, market = bare, Market.SPOT
    if usage not in ("OnDemand", "Preemptible"):
        return label, market, None
    infos = field_of(sku, "pricingInfo", list) or [None]
    expression = field_of(infos[-1], "pricingExpression", dict)
    tiers = field_of(expression, "tieredRates", list) or []
    unit = field_of(expression, "usageUnit", str)
    expected = _UNITS.get(label.rpartition(" ")[2], "GiBy.mo" if label == _SSD else "h")
    if len(tiers) != 1 or unit != expected:
        return label, market, None
    money = field_of(tiers[0], "unitPrice", dict)
    units, nanos = decimal(field_of(money, "units", str) or "0"), field_of(money, "nanos", int) or 0
    if units is None or money is None or field_of(money, "currencyCode", str) not in (None, "USD"):
        return label, market, None
    rate = units + nanos / 1e9
    if not 0 < rate < 1e4:
        return label, market, None
    return label, market, rate / _HOURS_A_MONTH if label == _SSD else rate


def prices_of(
    kinds: Iterable[InstanceType], regions: Iterable[str], rates: Rates
) -> tuple[list[Price], list[str]]:
    """The prices of machines, and those that lack the price of a part. A region without its GPU has no such machine.

    Local disks are added where they come with the machine: A2 Ultra and A3.
    """
    prices: list[Price] = []
    notes: list[str] = []
    for kind in kinds:
        recipe = _recipe(kind)
        if recipe is None:
            notes.append(f"{kind.name}: nothing is known of how it is billed")
            continue
        for region in regions:
            for market in Market:
                if market is Market.ON_DEMAND and _NOT_ON_DEMAND.fullmatch(kind.name):
                    continue
                place = Place("gcp", kind.name, region, None, market)
                gpu = max((rates.get((name, region, market), 0.0) for name in recipe.gpus), default=0.0)
                if not gpu:
                    continue
                total = gpu * kind.gpu_count
                missing: list[str] = []
                for label, amount in _host(recipe, kind):
                    rate = rates.get((label, region, market))
                    if rate is None:
                        missing.append(label)
                    else:
                        total += rate * amount
                if missing:
                    notes.append(f"{place}: the list has no price of {' and '.join(missing)}")
                else:
                    prices.append(Price(place, round(total, 6), "Cloud Billing catalogue, sum of SKUs"))
    return prices, notes


def _recipe(kind: InstanceType) -> _Recipe | None:
    attached = _N1.fullmatch(kind.name)
    if attached:
        return _Recipe(_N1_HOST, (f"Nvidia Tesla {attached['gpu'].upper()} GPU",))
    return next((recipe for begin, recipe in _RECIPES.items() if kind.name.startswith(begin)), None)


def _host(recipe: _Recipe, kind: InstanceType) -> list[tuple[str, float]]:
    """What is billed beside GPUs, and how much of it."""
    if recipe.host is None:
        return []
    host = [(f"{recipe.host} Core", float(kind.vcpus)), (f"{recipe.host} Ram", kind.memory_gib)]
    return [*host, (_SSD, kind.local_nvme_gib)] if kind.local_nvme_gib else host


def _labels(kind: InstanceType) -> list[str]:
    recipe = _recipe(kind)
    return [] if recipe is None else [*recipe.gpus, *(label for label, _ in _host(recipe, kind))]


def _take(sku: Any, wanted: frozenset[str], regions: frozenset[str], rates: Rates, notes: list[str]) -> None:
    """Puts a SKU's price into `rates`, if it is wanted."""
    label, market, rate = rate_of(sku)
    places = [place for place in field_of(sku, "serviceRegions", list) or () if isinstance(place, str)]
    places = [place for place in places if place in regions]
    if label not in wanted or not places:
        return
    if rate is None:
        if field_of(field_of(sku, "category", dict), "usageType", str) in ("OnDemand", "Preemptible"):
            notes.append(f"gcp: {label}, {market}, in {places[0]}: it has not one price in dollars")
        return
    for place in places:
        before = rates.setdefault((label, place, market), rate)
        if before != rate:
            notes.append(
                f"gcp: {label}, {market}, in {place}: two prices, {before:g} and {rate:g}; the higher is taken"
            )
            rates[label, place, market] = max(before, rate)


def _skus(client: JsonClient) -> Iterator[Any]:
    token = ""
    seen: set[str] = set()
    while True:
        query = {"currencyCode": "USD", "pageSize": "5000", **({"pageToken": token} if token else {})}
        page = client.get(f"{client.origin}/v1/{_SERVICE}/skus?{urlencode(query)}")
        skus = page.get("skus", [])
        if not isinstance(skus, list):
            raise strange("Google's price list", "its skus are no list")
        yield from skus
        token = field_of(page, "nextPageToken", str) or ""
        if not token:
            return
        if token in seen or len(seen) >= _MOST_PAGES:
            raise strange("Google's price list", "its pages do not end")
        seen.add(token)


class _Login:
    """The headers of Google's default login, renewed when they expire."""

    def __init__(self) -> None:
        try:
            auth, exceptions = import_module("google.auth"), import_module("google.auth.exceptions")
            self._request = import_module("google.auth.transport.requests").Request
        except ImportError:
            raise MissingPackageError(
                "Google's prices need google-auth", hint="pip install 'textnlp-fast[gpu-gcp]'"
            ) from None
        self._exceptions = exceptions
        try:
            self._credentials, _ = auth.default(scopes=[_SCOPE])
        except exceptions.DefaultCredentialsError as error:
            raise AuthenticationError(
                f"Google's price list: {one_line(error)}", hint="Run `gcloud auth application-default login`."
            ) from error

    def __call__(self) -> dict[str, str]:
        headers: dict[str, str] = {}
        try:
            if not self._credentials.valid:
                self._credentials.refresh(self._request())
            self._credentials.apply(headers)
        except self._exceptions.TransportError as error:
            raise ProviderUnavailableError(f"Google's login: {one_line(error)}") from error
        except self._exceptions.GoogleAuthError as error:
            raise AuthenticationError(
                f"Google's login: {one_line(error)}", hint="Run `gcloud auth application-default login`."
            ) from error
        return headers
