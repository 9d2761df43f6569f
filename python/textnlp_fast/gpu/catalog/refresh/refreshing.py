"""A refresh: asks the price lists part by part, checks what they say, and puts what is believed into the file.

A part that fails leaves its former prices as they are, with their date; so does a price that is not believed.
"""

from __future__ import annotations

import datetime
import difflib
import fcntl
import os
import secrets
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from textnlp_fast.errors import (
    AuthenticationError,
    InvalidInputError,
    MissingPackageError,
    TextnlpFastError,
)
from textnlp_fast.gpu.catalog.catalog import overlaid, packaged, read_refreshed, refreshed_path
from textnlp_fast.gpu.catalog.document import Document, Key, Listed, render
from textnlp_fast.gpu.catalog.refresh.aws import AwsPrices
from textnlp_fast.gpu.catalog.refresh.azure import AzurePrices
from textnlp_fast.gpu.catalog.refresh.gcp import GcpPrices
from textnlp_fast.gpu.catalog.refresh.readings import Place, Price, Source
from textnlp_fast.gpu.catalog.refresh.vetting import Refused, vetted
from textnlp_fast.gpu.types import Offer

__all__ = ["PROVIDERS", "RefreshReport", "merged", "refresh", "write"]

PROVIDERS: Final = ("aws", "azure", "gcp")
# Parts of a provider that refuse a login before it is given up: those of one region of AWS.
_REFUSALS: Final = 3


@dataclass(frozen=True, kw_only=True)
class RefreshReport:
    """What a refresh brought. `failed` are parts without an answer: their former prices stay."""

    path: Path
    believed: int = 0
    refused: tuple[Refused, ...] = ()
    notes: tuple[str, ...] = ()
    failed: Mapping[str, TextnlpFastError] = field(default_factory=dict)
    new_types: tuple[str, ...] = ()


def refresh(
    *,
    providers: Iterable[str] | None = None,
    regions: Iterable[str] | None = None,
    path: Path | None = None,
    today: datetime.date | None = None,
    accept_jumps: bool = False,
    sources: Callable[[str, Mapping[Key, Listed], datetime.date], Source] | None = None,
    tell: Callable[[str], None] = lambda what: None,
) -> RefreshReport:
    """Asks for new prices and writes those that are believed to `path` (None: where the catalogue looks for them).

    Without `regions`, those of the catalogue are asked for; with them and without `providers`, whoever has such a
    region. `tell` hears of each part before it is asked for. Raises the error of the first part if every one failed,
    and InvalidInputError for names that are none; then nothing is written.
    """
    today = today or datetime.datetime.now(datetime.timezone.utc).date()
    path = path or refreshed_path()
    base = packaged()
    old = read_refreshed(path, base) or Document()
    now = overlaid(base, old)
    kinds: dict[Key, Listed] = dict(now.instance_types)
    asked = _asked(now, providers, regions)

    failed: dict[str, TextnlpFastError] = {}
    prices: list[Price] = []
    notes: list[str] = []
    types: dict[Key, Listed] = {}
    answered = 0
    for provider, places in asked.items():
        source = (sources or _source)(provider, kinds, today)
        refusals, let_in = 0, False
        for part in source.parts(places):
            tell(part.what)
            try:
                reading = part.read()
            except TextnlpFastError as error:
                failed[part.what] = error
                refusals += isinstance(error, AuthenticationError)
                # A region may be closed to an account that is let in elsewhere: that alone is no reason to stop.
                if isinstance(error, MissingPackageError) or (refusals >= _REFUSALS and not let_in):
                    break
                continue
            answered, let_in = answered + 1, True
            prices += reading.prices
            notes += reading.notes
            types |= reading.instance_types
    if failed and not answered:
        raise next(iter(failed.values()))

    known = kinds | types
    believed, refused = vetted(prices, known, now.offers, accept_jumps=accept_jumps)
    offers = [_offer(price, known, today) for price in believed]
    doubted = {one.price.place for one in refused}
    write(path, lambda newest: merged(newest or Document(), types, offers, doubted), base)
    return RefreshReport(
        path=path,
        believed=len(believed),
        refused=tuple(refused),
        notes=tuple(notes),
        failed=failed,
        new_types=tuple(sorted(key[1] for key in types if key not in kinds)),
    )


def merged(
    old: Document, types: Mapping[Key, Listed], offers: Iterable[Offer], doubted: Collection[Place] = ()
) -> Document:
    """The old file with new prices in it.

    New prices of a machine, region and market take the place of all former ones: a zone that the list no longer
    names does not offer the machine. Those of `doubted` places stay, for their new price was not believed.
    """
    fresh = {_place(offer): offer for offer in offers}
    renewed = {place._replace(zone=None) for place in fresh}
    kept = {
        place: offer
        for place, offer in ((_place(one), one) for one in old.offers)
        if place in doubted or place._replace(zone=None) not in renewed
    }
    return Document(instance_types={**old.instance_types, **types}, offers=tuple({**kept, **fresh}.values()))


def write(path: Path, change: Callable[[Document | None], Document], base: Document) -> None:
    """Replaces the file by what `change` makes of it, in one step and one writer at a time.

    Who reads meanwhile, or after a kill, finds the old file or the new one.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            data = render(change(read_refreshed(path, base)))
            # Under the lock nobody else has one: these are of writers that were killed.
            for left in path.parent.glob(f".{path.name}.new-*"):
                left.unlink(missing_ok=True)
            temporary = path.with_name(f".{path.name}.new-{secrets.token_hex(8)}")
            try:
                with temporary.open("xb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)
        finally:
            os.close(lock)
    except OSError as error:
        raise InvalidInputError(
            f"cannot write the refreshed catalogue {path}: {error.strerror or error}",
            hint="Set TEXTNLP_FAST_GPU_CATALOG to a file that can be written.",
        ) from error


def _asked(
    now: Document, providers: Iterable[str] | None, regions: Iterable[str] | None
) -> dict[str, tuple[str, ...]]:
    """Providers and their regions to ask for."""
    chosen = list(dict.fromkeys(providers)) if providers is not None else list(PROVIDERS)
    for provider in chosen:
        if provider not in PROVIDERS:
            near = difflib.get_close_matches(provider, PROVIDERS, 1, 0.5)
            raise InvalidInputError(
                f"no price list of {provider!r} is known",
                hint=f"Did you mean {near[0]}?" if near else f"Known are: {', '.join(PROVIDERS)}.",
            )
    have: dict[str, set[str]] = {provider: set() for provider in chosen}
    for offer in now.offers:
        if offer.instance_type.provider in have:
            have[offer.instance_type.provider].add(offer.region)
    if regions is None:
        return {provider: tuple(sorted(names)) for provider, names in have.items()}
    wanted = list(dict.fromkeys(regions))
    asked: dict[str, list[str]] = {provider: [] for provider in chosen}
    for region in wanted:
        owners = [provider for provider in chosen if region in have[provider]]
        if not owners and len(chosen) == 1:
            owners = chosen  # the catalogue may not know the region yet
        if not owners:
            raise InvalidInputError(
                f"no provider is known to have a region {region!r}",
                hint="Say whose it is: --provider aws, azure or gcp.",
            )
        for provider in owners:
            asked[provider].append(region)
    return {provider: tuple(names) for provider, names in asked.items() if names}


def _source(provider: str, kinds: Mapping[Key, Listed], today: datetime.date) -> Source:
    if provider == "aws":
        return AwsPrices(kinds, today=today)
    if provider == "azure":
        return AzurePrices(kinds, today=today)
    return GcpPrices(kinds)


def _offer(price: Price, kinds: Mapping[Key, Listed], today: datetime.date) -> Offer:
    place = price.place
    return Offer(
        instance_type=kinds[place[:2]].instance_type,
        region=place.region,
        zone=place.zone,
        market=place.market,
        usd_per_hour=price.usd_per_hour,
        as_of=today,
        source=price.source,
    )


def _place(offer: Offer) -> Place:
    kind = offer.instance_type
    return Place(kind.provider, kind.name, offer.region, offer.zone, offer.market)
