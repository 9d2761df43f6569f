"""The file that a catalogue is kept in: JSON, one row a line, each with its date and its source.

`gpus`: one object a type (the packaged file alone has them). `instance_types`: one object a type. `prices`: rows of
provider, instance type, region, zone or null, market, US dollars an hour, date, and which of `sources` it is from.
"""

from __future__ import annotations

import datetime
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from textnlp_fast.errors import CorruptDataError, UnknownGPUTypeError, UnsupportedFormatError
from textnlp_fast.gpu.types import GPUSpec, GPUType, InstanceType, Market, Offer

__all__ = ["FORMAT", "Document", "Key", "Listed", "parse", "render"]

FORMAT: Final = 1
#: Provider and name of an instance type.
Key = tuple[str, str]
# No machine with GPUs costs less or more; far apart, so that only placeholders and slips fall outside.
LEAST_USD_PER_HOUR: Final = 0.005
MOST_USD_PER_HOUR: Final = 2000.0


@dataclass(frozen=True, kw_only=True)
class Listed:
    """An instance type and where it is known from."""

    instance_type: InstanceType
    as_of: datetime.date
    source: str


@dataclass(frozen=True, kw_only=True)
class Document:
    """What one file says. `offers` are in no order, and none is marked stale."""

    gpus: tuple[GPUSpec, ...] = ()
    instance_types: Mapping[Key, Listed] = field(default_factory=dict)
    offers: tuple[Offer, ...] = ()


def parse(data: bytes, where: str, known: Mapping[Key, Listed] | None = None) -> Document:
    """Reads a file; `known` are instance types that its prices may name beside its own.

    Prices of instance types that neither has are left out: a newer version of the package may have dropped a type.
    Raises CorruptDataError, which names the row, and UnsupportedFormatError for files of newer versions.
    """
    reader = _Reader(where)
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise reader.corrupt(f"it is not JSON ({error})") from None
    if not isinstance(document, dict):
        raise reader.corrupt("it is no JSON object")
    version = document.get("format")
    if type(version) is not int or version < 1:
        raise reader.corrupt("it says no format")
    if version > FORMAT:
        raise UnsupportedFormatError(f"{where} has format {version}; this version reads up to {FORMAT}")
    gpus = tuple(reader.gpu(row) for row in reader.rows(document, "gpus"))
    listed = [reader.listed(row) for row in reader.rows(document, "instance_types")]
    own = {(one.instance_type.provider, one.instance_type.name): one for one in listed}
    sources = [reader.text(row) for row in reader.rows(document, "sources")]
    types = {**(known or {}), **own}
    offers = (reader.offer(row, types, sources) for row in reader.rows(document, "prices"))
    return Document(gpus=gpus, instance_types=own, offers=tuple(one for one in offers if one is not None))


def render(document: Document) -> bytes:
    """The file of a document, the same bytes for the same facts; :func:`parse` reads it back."""
    sources: dict[str, int] = {}
    prices = [
        [
            offer.instance_type.provider,
            offer.instance_type.name,
            offer.region,
            offer.zone,
            offer.market.value,
            offer.usd_per_hour,
            offer.as_of.isoformat(),
            sources.setdefault(offer.source, len(sources)),
        ]
        for offer in sorted(document.offers, key=_order)
    ]
    listed = [_listed_row(document.instance_types[key]) for key in sorted(document.instance_types)]
    parts: dict[str, Iterable[Any]] = {
        "gpus": [_gpu_row(gpu) for gpu in document.gpus],
        "instance_types": listed,
        "sources": list(sources),
        "prices": prices,
    }
    text = [f'{{\n "format": {FORMAT}']
    for name, rows in parts.items():
        lines = ",\n".join("  " + json.dumps(row, allow_nan=False) for row in rows)
        text.append(f' "{name}": [\n{lines}\n ]' if lines else f' "{name}": []')
    return (",\n".join(text) + "\n}\n").encode("ascii")


def _order(offer: Offer) -> tuple[str, ...]:
    kind = offer.instance_type
    return (kind.provider, kind.name, offer.region, offer.zone or "", offer.market.value)


def _gpu_row(gpu: GPUSpec) -> dict[str, Any]:
    return {**vars(gpu), "gpu_type": gpu.gpu_type.value, "compute_capability": list(gpu.compute_capability)}


def _listed_row(one: Listed) -> dict[str, Any]:
    kind = one.instance_type
    return {
        **vars(kind),
        "gpu_type": kind.gpu_type.value,
        "as_of": one.as_of.isoformat(),
        "source": one.source,
    }


class _Reader:
    """Takes rows apart, and says of a bad one which it is."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._row = ""
        self._dates: dict[str, datetime.date] = {}
        self._markets = {market.value: market for market in Market}

    def corrupt(self, why: str) -> CorruptDataError:
        return CorruptDataError(
            f"{self._where}: {self._row}{why}",
            hint="Delete the file: the package has prices of its own. `gpu catalog refresh` makes it anew.",
        )

    def rows(self, document: dict[str, Any], name: str) -> Iterable[Any]:
        rows = document.get(name, [])
        if not isinstance(rows, list):
            raise self.corrupt(f"{name} is no list")
        for number, row in enumerate(rows):
            self._row = f"row {number} of {name}: "
            yield row
        self._row = ""

    def text(self, value: Any) -> str:
        if not isinstance(value, str) or not value:
            raise self.corrupt(f"{ascii(value)[:40]} is no text")
        return value

    def number(self, value: Any, name: str, least: float = 0.0) -> float:
        """A finite number of at least `least`."""
        if type(value) is float and least <= value < math.inf:
            return value
        # No integer that big is a fact, and far bigger ones are no floats.
        if type(value) is int and least <= value < 1 << 53:
            return value
        raise self.corrupt(f"{name} cannot be {ascii(value)[:40]}")

    def maybe(self, value: Any, name: str) -> float | None:
        return None if value is None else self.number(value, name)

    def date(self, value: Any) -> datetime.date:
        known = self._dates.get(value) if isinstance(value, str) else None
        if known is None:
            try:
                known = self._dates[value] = datetime.date.fromisoformat(value)
            except (TypeError, ValueError):
                raise self.corrupt(f"{ascii(value)[:40]} is no date") from None
        return known

    def fields(self, row: Any) -> dict[str, Any]:
        if not isinstance(row, dict):
            raise self.corrupt("it is no object")
        return row

    def gpu_type(self, value: Any) -> GPUType:
        try:
            return GPUType(value)
        except ValueError:
            try:
                return GPUType.parse(self.text(value))
            except UnknownGPUTypeError as error:
                raise self.corrupt(str(error.args[0])) from None

    def gpu(self, row: Any) -> GPUSpec:
        row = self.fields(row)
        capability = row.get("compute_capability")
        if not isinstance(capability, list) or [type(part) for part in capability] != [int, int]:
            raise self.corrupt("compute_capability is no pair of numbers")
        if not isinstance(row.get("bf16"), bool):
            raise self.corrupt("bf16 is neither true nor false")
        return GPUSpec(
            gpu_type=self.gpu_type(row.get("gpu_type")),
            architecture=self.text(row.get("architecture")),
            compute_capability=(capability[0], capability[1]),
            memory_gib=self.number(row.get("memory_gib"), "memory_gib", 1),
            memory_bandwidth_gb_s=self.maybe(row.get("memory_bandwidth_gb_s"), "memory_bandwidth_gb_s"),
            fp16_dense_tflops=self.maybe(row.get("fp16_dense_tflops"), "fp16_dense_tflops"),
            bf16=row["bf16"],
            fp8_dense_tflops=self.maybe(row.get("fp8_dense_tflops"), "fp8_dense_tflops"),
            interconnect=self.text(row.get("interconnect")),
            interconnect_gb_s=self.maybe(row.get("interconnect_gb_s"), "interconnect_gb_s"),
            tdp_w=self.maybe(row.get("tdp_w"), "tdp_w"),
            source=self.text(row.get("source")),
        )

    def listed(self, row: Any) -> Listed:
        row = self.fields(row)
        vcpus = row.get("vcpus")
        if type(vcpus) is not int or vcpus < 1:
            raise self.corrupt(f"vcpus cannot be {ascii(vcpus)[:40]}")
        kind = InstanceType(
            provider=self.text(row.get("provider")),
            name=self.text(row.get("name")),
            gpu_type=self.gpu_type(row.get("gpu_type")),
            gpu_count=self.number(row.get("gpu_count"), "gpu_count", 0.01),
            gpu_memory_gib=self.number(row.get("gpu_memory_gib"), "gpu_memory_gib", 1),
            vcpus=vcpus,
            memory_gib=self.number(row.get("memory_gib"), "memory_gib", 0.5),
            network_gbps=self.maybe(row.get("network_gbps"), "network_gbps"),
            local_nvme_gib=self.number(row.get("local_nvme_gib"), "local_nvme_gib"),
        )
        return Listed(
            instance_type=kind, as_of=self.date(row.get("as_of")), source=self.text(row.get("source"))
        )

    def offer(self, row: Any, types: Mapping[Key, Listed], sources: list[str]) -> Offer | None:
        if not isinstance(row, list) or len(row) != 8:
            raise self.corrupt("it has not eight parts")
        provider, name, region, zone, market, price, as_of, source = row
        key = (self.text(provider), self.text(name))
        if type(source) is not int or not 0 <= source < len(sources):
            raise self.corrupt("it names no source")
        if not isinstance(market, str) or market not in self._markets:
            raise self.corrupt(f"{ascii(market)[:40]} is no market")
        price = self.number(price, "a price", LEAST_USD_PER_HOUR)
        if price > MOST_USD_PER_HOUR:
            raise self.corrupt(f"a price cannot be {price}")
        date = self.date(as_of)
        if zone is not None:
            self.text(zone)
        self.text(region)
        if key not in types:
            return None
        return Offer(
            instance_type=types[key].instance_type,
            region=region,
            zone=zone,
            market=self._markets[market],
            usd_per_hour=price,
            as_of=date,
            source=sources[source],
        )
