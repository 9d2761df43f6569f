"""Junk in the shape of answers and files: no reader breaks, and none believes it."""

from __future__ import annotations

import datetime
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.price_lists import azure_item, product, sku, spot
from textnlp_fast.errors import CorruptDataError, UnsupportedFormatError
from textnlp_fast.gpu.catalog.catalog import packaged
from textnlp_fast.gpu.catalog.document import parse, render
from textnlp_fast.gpu.catalog.refresh.aws import listed_of, on_demand_of, spot_of
from textnlp_fast.gpu.catalog.refresh.azure import prices_of
from textnlp_fast.gpu.catalog.refresh.gcp import rate_of

from .conftest import TODAY

T4 = "Standard_NC4as_T4_v3"
BASE = packaged()
FILE = json.loads(render(BASE))
FILE = {
    **FILE,
    "prices": FILE["prices"][:3],
    "instance_types": FILE["instance_types"][:2],
    "gpus": FILE["gpus"][:2],
}

atoms = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=6)
    | st.sampled_from(
        [10**400, -1, 0, 1 << 60, "NaN", "1e999", "-0", "0x10", "١", "1_0", "\udcff", datetime.datetime.max]
    )
)
junk = st.recursive(
    atoms,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def harmed(draw: st.DrawFn, good: Any) -> Any:
    """A good value, of which one or more parts are junk, gone or doubled."""
    value = json.loads(json.dumps(good))
    for _ in range(draw(st.integers(1, 3))):
        where, steps = value, draw(st.integers(1, 9))
        for _ in range(steps):
            keys = list(where) if isinstance(where, dict) else list(range(len(where)))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            if isinstance(where[key], (dict, list)) and draw(st.booleans()):
                where = where[key]
                continue
            how = draw(st.sampled_from(["junk", "gone", "twice"]))
            if how == "gone":
                del where[key]
            elif how == "twice" and isinstance(where, list):
                where.append(where[key])
            else:
                where[key] = draw(junk)
            break
    return value


def believable(prices: Any) -> None:
    for price in prices:
        assert isinstance(price.usd_per_hour, float) and math.isfinite(price.usd_per_hour)
        assert all(isinstance(part, str) and part for part in price.place[:3])


@given(st.lists(harmed(azure_item(T4, 0.5)), max_size=4))
def test_azure(rows: list[Any]) -> None:
    prices, notes = prices_of(rows, "eastus", [T4], TODAY)
    believable(prices)
    assert len({price.place for price in prices}) == len(prices)
    assert all(isinstance(note, str) for note in notes)


@given(harmed(sku("Nvidia L4 GPU running in Iowa", 0.56, group="GPU")))
def test_google(row: Any) -> None:
    _, _, rate = rate_of(row)
    assert rate is None or 0 < rate < 1e4


@given(harmed(product("g4dn.xlarge", "0.526")))
def test_amazons_products(row: Any) -> None:
    prices, _ = on_demand_of([json.dumps(row, default=str)], "us-east-1", {"g4dn.xlarge"})
    believable(prices)


AWS_SPOT = {
    name[0].upper() + name[1:]: value for name, value in spot("g4dn.xlarge", "us-east-1a", "0.2").items()
}
AWS_TYPE = {
    "InstanceType": "g99.xlarge",
    "GpuInfo": {
        "Gpus": [
            {
                "Name": "L4",
                "Manufacturer": "NVIDIA",
                "Count": 1,
                "LogicalGpuCount": 1,
                "GpuPartitionSize": 1.0,
                "MemoryInfo": {"SizeInMiB": 22888},
            }
        ]
    },
    "VCpuInfo": {"DefaultVCpus": 4},
    "MemoryInfo": {"SizeInMiB": 16384},
    "NetworkInfo": {
        "NetworkPerformance": "Up to 10 Gigabit",
        "NetworkCards": [{"BaselineBandwidthInGbps": 2.5}],
    },
    "InstanceStorageInfo": {"TotalSizeInGB": 250},
}


@given(harmed(AWS_SPOT), st.datetimes())
def test_amazons_spot_prices(row: Any, since: datetime.datetime) -> None:
    if "Timestamp" in row:
        row["Timestamp"] = since
    believable(spot_of([row], "us-east-1")[0])


@given(harmed(AWS_TYPE))
def test_amazons_machines(row: Any) -> None:
    types, _ = listed_of([row], TODAY)
    for listed in types.values():
        kind = listed.instance_type
        numbers = (kind.gpu_count, kind.gpu_memory_gib, kind.vcpus, kind.memory_gib, kind.local_nvme_gib)
        assert all(math.isfinite(number) and number >= 0 for number in numbers)
        assert kind.gpu_count > 0
        assert kind.network_gbps is None or 0 < kind.network_gbps < math.inf


@given(harmed(FILE))
def test_the_file(document: Any) -> None:
    data = json.dumps(document, default=str).encode("utf-8", "surrogatepass")
    try:
        found = parse(data, "the file", BASE.instance_types)
    except (CorruptDataError, UnsupportedFormatError) as error:
        assert "the file" in str(error)
        return
    for offer in found.offers:
        assert 0.005 <= offer.usd_per_hour <= 2000
    # What was taken can be written, and read again.
    again = parse(render(found), "again", BASE.instance_types)
    assert set(again.offers) == set(found.offers)
    assert again.instance_types == found.instance_types


@given(st.binary(max_size=60))
def test_bytes(data: bytes) -> None:
    with pytest.raises((CorruptDataError, UnsupportedFormatError)):
        parse(data, "the file")
