"""Azure's prices: the public Retail Prices API, which asks for no login."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final
from urllib.parse import quote, urlencode

from textnlp_fast.gpu.catalog.document import Key, Listed
from textnlp_fast.gpu.catalog.refresh.http import JsonClient
from textnlp_fast.gpu.catalog.refresh.readings import Part, Place, Price, Reading, decimal, field_of, strange
from textnlp_fast.gpu.types import Market

__all__ = ["AzurePrices", "prices_of"]

_ORIGIN: Final = "https://prices.azure.com"
_SOURCE: Final = "Azure Retail Prices API"
# A filter of all types would make a URL that servers cut.
_NAMES_A_FILTER: Final = 12
# A dozen types have some 10 rows each in a region; a page has 100 at the least.
_MOST_PAGES: Final = 50


class AzurePrices:
    """Prices of the Azure types in `kinds`: the list has names and prices, and nothing of what a machine has."""

    def __init__(
        self,
        kinds: Mapping[Key, Listed],
        *,
        today: datetime.date,
        client: JsonClient | None = None,
    ) -> None:
        self._names = sorted(name for provider, name in kinds if provider == "azure")
        self._today = today
        self._client = client or JsonClient("Azure's price list", _ORIGIN)

    def parts(self, regions: tuple[str, ...]) -> Iterator[Part]:
        """One part a region."""
        for region in regions:
            yield Part(what=f"azure: prices of {region}", read=partial(self._read, region))

    def _read(self, region: str) -> Reading:
        found: list[Price] = []
        notes: list[str] = []
        for start in range(0, len(self._names), _NAMES_A_FILTER):
            names = self._names[start : start + _NAMES_A_FILTER]
            prices, more = prices_of(self._items(region, names), region, names, self._today)
            found += prices
            notes += more
        return Reading(prices=tuple(found), notes=tuple(notes))

    def _items(self, region: str, names: Sequence[str]) -> Iterator[Any]:
        either = " or ".join(f"armSkuName eq '{name}'" for name in names)
        wanted = (
            f"serviceName eq 'Virtual Machines' and armRegionName eq '{region.replace(chr(39), chr(39) * 2)}' "
            f"and priceType eq 'Consumption' and ({either})"
        )
        query = urlencode(
            {"api-version": "2023-01-01-preview", "currencyCode": "USD", "$filter": wanted}, quote_via=quote
        )
        url: str | None = f"{self._client.origin}/api/retail/prices?{query}"
        seen: set[str] = set()
        while url is not None:
            if url in seen or len(seen) >= _MOST_PAGES:
                raise strange("Azure's price list", "its pages do not end")
            seen.add(url)
            page = self._client.get(url)
            items = field_of(page, "Items", list)
            if items is None:
                raise strange("Azure's price list", "it has no Items")
            yield from items
            url = field_of(page, "NextPageLink", str) or None


def prices_of(
    items: Iterable[Any], region: str, names: Sequence[str], today: datetime.date
) -> tuple[list[Price], list[str]]:
    """The Linux prices, on demand and spot, among the list's items, and what could not be used.

    Other rows are of Windows, of low priority (what Batch calls spot), of the retired Cloud Services, of reservations
    and of tests. Of prices that take effect one after the other the last one that has counts.
    """
    wanted = set(names)
    latest: dict[Place, tuple[str, Price]] = {}
    notes: list[str] = []
    for item in items:
        name = field_of(item, "armSkuName", str)
        if name not in wanted or field_of(item, "armRegionName", str) != region:
            continue
        market = _market(item)
        if market is None:
            continue
        place = Place("azure", name, region, None, market)
        usd = decimal(item.get("retailPrice"))
        if usd is None or field_of(item, "currencyCode", str) != "USD":
            notes.append(f"{place}: the price is not a number of dollars")
            continue
        since = field_of(item, "effectiveStartDate", str) or ""
        if since[:10] > today.isoformat():
            continue
        before, price = latest.get(place, ("", None))
        if since < before:
            continue
        if price is not None and since == before and usd != price.usd_per_hour:
            notes.append(f"{place}: two prices, {price.usd_per_hour:g} and {usd:g}; the higher is taken")
            usd = max(usd, price.usd_per_hour)
        latest[place] = (since, Price(place, usd, _SOURCE))
    return [price for _, price in latest.values()], notes


def _market(item: dict[str, Any]) -> Market | None:
    """The market of a row; None for rows of other systems and ways to pay."""
    meter = field_of(item, "meterName", str) or ""
    product = field_of(item, "productName", str) or ""
    kind = f"{meter} {field_of(item, 'skuName', str) or ''}".lower()
    if (
        "windows" in product.lower()
        or "cloud services" in product.lower()
        or "cloudservices" in product.lower()
        or "low priority" in kind
        or field_of(item, "type", str) != "Consumption"
        or field_of(item, "unitOfMeasure", str) != "1 Hour"
        or field_of(item, "serviceName", str) != "Virtual Machines"
        or (decimal(item.get("tierMinimumUnits")) or 0) > 0
    ):
        return None
    return Market.SPOT if kind.endswith("spot") or " spot " in kind else Market.ON_DEMAND
