"""AWS's prices and machines: the Price List API, the spot price history of every zone, and EC2's own descriptions."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from typing import Any, Final

from textnlp_fast.errors import (
    AuthenticationError,
    InvalidInputError,
    MissingPackageError,
    ProviderUnavailableError,
    UnknownGPUTypeError,
)
from textnlp_fast.gpu.catalog.document import Key, Listed
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
from textnlp_fast.gpu.types import GPUType, InstanceType, Market

__all__ = ["AwsPrices", "listed_of", "on_demand_of", "spot_of"]

# The Price List API has an endpoint in a few regions, and says the prices of all.
_PRICING_REGION: Final = "us-east-1"
_MOST_PAGES: Final = 200
_AGAIN: Final = "Run the command again later; former prices are kept."
_VALUES_A_FILTER: Final = 200
# All machines with NVIDIA's GPUs, and few others: a region has a thousand types.
_FAMILIES: Final = ["g*", "p*"]
_REFUSED: Final = frozenset(
    {"UnauthorizedOperation", "AccessDenied", "AccessDeniedException", "AuthFailure", "ExpiredToken",
     "ExpiredTokenException", "InvalidClientTokenId", "UnrecognizedClientException", "RequestExpired",
     "SignatureDoesNotMatch", "InvalidSignatureException", "OptInRequired"}
)  # fmt: skip
# EC2's names of GPUs that are not those of GPUType, by name and, where one name has two memories, GiB of memory.
_GPU_NAMES: Final = {
    "RTX PRO Server 6000": GPUType.NVIDIA_RTX_PRO_6000,
    "RTX PRO Server 4500": GPUType.NVIDIA_RTX_PRO_4500,
}
_BY_MEMORY: Final = {
    ("A100", 40): GPUType.NVIDIA_A100_40GB,
    ("A100", 80): GPUType.NVIDIA_A100_80GB,
    ("V100", 16): GPUType.NVIDIA_V100,
    ("V100", 32): GPUType.NVIDIA_V100_32GB,
}


class AwsPrices:
    """Prices and machines of AWS. `clients(service, region)` makes a client of boto3."""

    def __init__(self, kinds: Mapping[Key, Listed], *, today: datetime.date, clients: Any = None) -> None:
        self._kinds = {key: listed for key, listed in kinds.items() if key[0] == "aws"}
        self._today = today
        self._clients = clients or _client

    def parts(self, regions: tuple[str, ...]) -> Iterator[Part]:
        """Of every region its machines, then the prices of all that are known by then."""
        for region in regions:
            yield Part(what=f"aws: machines of {region}", read=partial(self._machines, region))
            yield Part(what=f"aws: prices on demand of {region}", read=partial(self._on_demand, region))
            yield Part(what=f"aws: spot prices of {region}", read=partial(self._spot, region))

    def _machines(self, region: str) -> Reading:
        what = f"machines of {region}"
        with _explained(what, region):
            client = self._clients("ec2", region)
            families = [{"Name": "instance-type", "Values": _FAMILIES}]
            found = list(_pages(client, "describe_instance_types", "InstanceTypes", what, Filters=families))
        types, notes = listed_of(found, self._today)
        self._kinds |= types
        return Reading(instance_types=types, notes=tuple(notes))

    def _on_demand(self, region: str) -> Reading:
        what = f"prices on demand of {region}"
        # Not by product family: bare metal is one of its own.
        fields = {
            "regionCode": region,
            "operatingSystem": "Linux",
            "preInstalledSw": "NA",
            "tenancy": "Shared",
            "capacitystatus": "Used",
            "marketoption": "OnDemand",
        }
        filters = [{"Type": "TERM_MATCH", "Field": name, "Value": value} for name, value in fields.items()]
        with _explained(what, region):
            client = self._clients("pricing", _PRICING_REGION)
            found = list(
                _pages(client, "get_products", "PriceList", what, ServiceCode="AmazonEC2", Filters=filters)
            )
        prices, notes = on_demand_of(found, region, {name for _, name in self._kinds})
        return Reading(prices=tuple(prices), notes=tuple(notes))

    def _spot(self, region: str) -> Reading:
        what = f"spot prices of {region}"
        names = sorted(name for _, name in self._kinds)
        now = datetime.datetime.now(datetime.timezone.utc)
        with _explained(what, region):
            client = self._clients("ec2", region)
            # From now on: the price in force, and no history. By a filter: it takes names that the region has not.
            found = [
                item
                for start in range(0, len(names), _VALUES_A_FILTER)
                for item in _pages(
                    client,
                    "describe_spot_price_history",
                    "SpotPriceHistory",
                    what,
                    Filters=[{"Name": "instance-type", "Values": names[start : start + _VALUES_A_FILTER]}],
                    ProductDescriptions=["Linux/UNIX"],
                    StartTime=now,
                )
            ]
        prices, notes = spot_of(found, region)
        return Reading(prices=tuple(prices), notes=tuple(notes))


def listed_of(found: Iterable[Any], today: datetime.date) -> tuple[dict[Key, Listed], list[str]]:
    """The machines with GPUs of NVIDIA among EC2's descriptions, and the GPUs that GPUType has no name for.

    A part of a GPU has a `GpuPartitionSize` below 1, and its memory is the part's.
    """
    types: dict[Key, Listed] = {}
    notes: set[str] = set()
    for item in found:
        name = field_of(item, "InstanceType", str)
        gpus = field_of(field_of(item, "GpuInfo", dict), "Gpus", list)
        if name is None or not gpus or field_of(gpus[0], "Manufacturer", str) != "NVIDIA":
            continue
        gpu = gpus[0]
        part = decimal(field_of(gpu, "GpuPartitionSize", float)) or 1.0
        count = (field_of(gpu, "LogicalGpuCount", int) or field_of(gpu, "Count", int) or 0) * part
        mib = (field_of(field_of(gpu, "MemoryInfo", dict), "SizeInMiB", int) or 0) / part
        vcpus = field_of(field_of(item, "VCpuInfo", dict), "DefaultVCpus", int) or 0
        memory = field_of(field_of(item, "MemoryInfo", dict), "SizeInMiB", int) or 0
        gpu_type = _gpu_type(field_of(gpu, "Name", str) or "", round(mib / 1024))
        if gpu_type is None:
            notes.add(f"{name.split('.')[0]}: no GPU type is called {ascii(gpu.get('Name'))[:40]}")
            continue
        if count <= 0 or mib < 1024 or vcpus < 1 or memory < 1024:
            notes.add(f"{name}: its description lacks numbers")
            continue
        disk = field_of(field_of(item, "InstanceStorageInfo", dict), "TotalSizeInGB", int) or 0
        kind = InstanceType(
            provider="aws",
            name=name,
            gpu_type=gpu_type,
            gpu_count=count,
            gpu_memory_gib=round(mib / 1024, 2),
            vcpus=vcpus,
            memory_gib=memory / 1024,
            network_gbps=_network(field_of(item, "NetworkInfo", dict)),
            local_nvme_gib=round(disk * 1e9 / 2**30, 1),
        )
        types["aws", name] = Listed(instance_type=kind, as_of=today, source="EC2 DescribeInstanceTypes")
    return types, sorted(notes)


def on_demand_of(found: Iterable[Any], region: str, names: set[str]) -> tuple[list[Price], list[str]]:
    """The prices on demand of Linux in these products of the Price List API; each is JSON in a text.

    The filters of the request are looked at again: capacity blocks and unused reservations stand in the list at 0 USD.
    """
    prices: list[Price] = []
    notes: list[str] = []
    for text in found:
        try:
            product = json.loads(text)
        except (TypeError, ValueError, RecursionError):
            notes.append("a product is no JSON")
            continue
        says = field_of(field_of(product, "product", dict), "attributes", dict) or {}
        name = field_of(says, "instanceType", str)
        if (
            name not in names
            or says.get("regionCode") != region
            or says.get("operatingSystem") != "Linux"
            or says.get("preInstalledSw") != "NA"
            or says.get("tenancy") != "Shared"
            or says.get("capacitystatus") != "Used"
            or says.get("marketoption", "OnDemand") != "OnDemand"
        ):
            continue
        place = Place("aws", name, region, None, Market.ON_DEMAND)
        rates = [
            decimal(field_of(dimension.get("pricePerUnit"), "USD", str))
            for term in (field_of(field_of(product, "terms", dict), "OnDemand", dict) or {}).values()
            for dimension in (field_of(term, "priceDimensions", dict) or {}).values()
            if field_of(dimension, "unit", str) == "Hrs"
        ]
        if len(rates) != 1 or rates[0] is None:
            notes.append(
                f"{place}: it has {len(rates)} prices an hour" if rates else f"{place}: it has no price"
            )
            continue
        prices.append(Price(place, rates[0], "AWS Price List API"))
    return prices, notes


def spot_of(found: Iterable[Any], region: str) -> tuple[list[Price], list[str]]:
    """The latest price of every type and zone in EC2's spot price history."""
    latest: dict[Place, tuple[datetime.datetime, Price]] = {}
    notes: list[str] = []
    for item in found:
        name, zone = field_of(item, "InstanceType", str), field_of(item, "AvailabilityZone", str)
        since = field_of(item, "Timestamp", datetime.datetime)
        if not (field_of(item, "ProductDescription", str) or "").startswith("Linux/UNIX"):
            continue
        if not name or not zone or since is None:
            notes.append("a spot price lacks a name, a zone or a time")
            continue
        place = Place("aws", name, region, zone, Market.SPOT)
        usd = decimal(item.get("SpotPrice"))
        if usd is None:
            notes.append(f"{place}: the price is no number")
        elif place not in latest or latest[place][0] < since:
            latest[place] = (since, Price(place, usd, "EC2 DescribeSpotPriceHistory"))
    return [price for _, price in latest.values()], notes


def _gpu_type(name: str, memory_gib: int) -> GPUType | None:
    known = _GPU_NAMES.get(name) or _BY_MEMORY.get((name, memory_gib))
    if known is not None or name in {one for one, _ in _BY_MEMORY}:
        return known
    try:
        return GPUType.parse(name)
    except UnknownGPUTypeError:
        return None


def _network(info: dict[str, Any] | None) -> float | None:
    """Gb/s that the machine holds for ever, not in bursts: `4x 100 Gigabit`, and of `Up to` its cards' baseline.

    The cards' baselines do not add up to what large machines are sold with.
    """
    text = field_of(info, "NetworkPerformance", str) or ""
    steady = re.fullmatch(r"(?:(\d{1,3})x )?(\d{1,5}(?:\.\d+)?) Gigabit", text)
    if steady:
        return int(steady[1] or 1) * float(steady[2])
    cards = field_of(info, "NetworkCards", list) or []
    rates = [decimal(field_of(card, "BaselineBandwidthInGbps", float)) for card in cards]
    return sum(rate for rate in rates if rate is not None and rate > 0) or None


def _client(service: str, region: str) -> Any:
    try:
        boto3, botocore = import_module("boto3"), import_module("botocore.config")
    except ImportError:
        raise MissingPackageError("AWS's prices need boto3", hint="pip install 'textnlp-fast[aws]'") from None
    config = botocore.Config(
        connect_timeout=10, read_timeout=30, retries={"mode": "standard", "total_max_attempts": 5}
    )
    return boto3.session.Session().client(service, region_name=region, config=config)


def _pages(client: Any, operation: str, field: str, what: str, **request: Any) -> Iterator[Any]:
    """The items of all pages. botocore stops at a token that comes twice, and we at the last page in reason."""
    for number, page in enumerate(client.get_paginator(operation).paginate(**request)):
        if number >= _MOST_PAGES:
            raise strange(what, "its pages do not end")
        items = field_of(page, field, list)
        if items is None:
            # Of a body that it cannot read botocore makes an empty answer.
            raise strange(what, f"it has no {field}")
        yield from items


@contextmanager
def _explained(what: str, region: str) -> Iterator[None]:
    """Errors of botocore in the words of this package."""
    try:
        exceptions = import_module("botocore.exceptions")
    except ImportError:
        yield  # `_client` says what is missing
        return
    try:
        yield
    except (exceptions.NoCredentialsError, exceptions.PartialCredentialsError) as error:
        raise AuthenticationError(f"{what}: {one_line(error)}") from error
    except exceptions.ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        if code in _REFUSED:
            raise AuthenticationError(
                f"{what}: {one_line(error)}",
                hint="Log in (`aws sso login`), and allow pricing:GetProducts, ec2:DescribeInstanceTypes and "
                "ec2:DescribeSpotPriceHistory; a region may need enabling first.",
            ) from error
        raise ProviderUnavailableError(f"{what}: {one_line(error)}", hint=_AGAIN) from error
    except exceptions.InvalidRegionError as error:
        raise InvalidInputError(f"{what}: {one_line(error)}") from error
    except exceptions.EndpointConnectionError as error:
        raise ProviderUnavailableError(
            f"{what}: {one_line(error)}", hint=f"Check the network, and that AWS has a region {region!r}."
        ) from error
    except exceptions.BotoCoreError as error:
        raise ProviderUnavailableError(f"{what}: {one_line(error)}", hint=_AGAIN) from error
