"""AWS's lists, read by boto3: from moto, and from a fake where moto has no prices."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("boto3", reason="needs boto3")

from fakes.price_lists import Answer, PriceLists, machine, product, spot
from textnlp_fast.errors import AuthenticationError, ProviderUnavailableError
from textnlp_fast.gpu import Catalog, GPUType, Market
from textnlp_fast.gpu.catalog.refresh import refresh
from textnlp_fast.gpu.catalog.refresh.aws import AwsPrices, listed_of, on_demand_of, spot_of

from .conftest import TODAY, Sources

REGION = "us-east-1"
T4 = "g4dn.xlarge"


def parts(sources: Any, kinds: Any, *regions: str) -> dict[str, Any]:
    found = AwsPrices(kinds, today=TODAY, clients=sources.aws_client).parts(regions or (REGION,))
    return {part.what: part for part in found}


def test_one_product_of_many_is_the_price(lists: PriceLists, sources: Sources, kinds: Any) -> None:
    metal = product("g4dn.metal", "7.8240000000")
    metal["product"]["productFamily"] = "Compute Instance (bare metal)"
    lists.products = [
        product(T4, "0.9", operatingSystem="Windows"),
        product(T4, "0.7", tenancy="Dedicated"),
        product(T4, "0.0", capacitystatus="AllocatedCapacityReservation"),
        product(T4, "0.526", capacitystatus="UnusedCapacityReservation"),
        product(T4, "0.8", preInstalledSw="SQL Web"),
        product(T4, "0.0000000000", marketoption="CapacityBlock"),
        product(T4, "0.658", region="eu-central-1"),
        product(T4, "0.5260000000"),
        product("m5.large", "0.096"),
        *(product(name, "1.0") for name in ("c5.large", "c5.xlarge", "c5.2xlarge")),
        product("p5.48xlarge", "55.0400000000"),
        metal,
    ]
    lists.page_size = 2
    reading = parts(sources, kinds)[f"aws: prices on demand of {REGION}"].read()
    assert {(one.place.instance_type, one.usd_per_hour) for one in reading.prices} == {
        (T4, 0.526),
        ("p5.48xlarge", 55.04),
        ("g4dn.metal", 7.824),
    }
    assert reading.notes == ()


def test_rows_that_a_filter_should_have_kept_are_not_believed() -> None:
    rows = [
        product(T4, "0", marketoption="CapacityBlock"),
        product(T4, "9", operatingSystem="SUSE"),
        product(T4, "1", region="eu-west-1"),
    ]
    assert on_demand_of([json.dumps(row) for row in rows], REGION, {T4}) == ([], [])
    bare = product(T4, "0.526")
    del bare["product"]["attributes"]["marketoption"]  # older products have none
    prices, _ = on_demand_of([json.dumps(bare)], REGION, {T4})
    assert [one.usd_per_hour for one in prices] == [0.526]


@pytest.mark.parametrize("usd", ["", "x", "nan", "inf", None, 3, {}, "9" * 50])
def test_products_whose_price_is_none(usd: Any) -> None:
    row = product(T4, "0.5")
    (term,) = row["terms"]["OnDemand"].values()
    (dimension,) = term["priceDimensions"].values()
    dimension["pricePerUnit"]["USD"] = usd
    prices, notes = on_demand_of([json.dumps(row)], REGION, {T4})
    assert not prices
    assert T4 in notes[0]


@pytest.mark.parametrize(
    "text",
    ["", "x", "[]", "null", "3", "[" * 100_000, None, 7]
    + [json.dumps({"product": {"attributes": value}}) for value in (None, [], 3, {"instanceType": []})]
    + [json.dumps({**product(T4, "1"), "terms": value}) for value in (None, [], {"OnDemand": []})]
    + [json.dumps({**product(T4, "1"), "terms": {"OnDemand": {"a": value}}}) for value in (None, 3, {})]
    + [
        json.dumps({**product(T4, "1"), "terms": {"OnDemand": {"a": {"priceDimensions": {"b": value}}}}})
        for value in (None, 3, {"unit": "Quantity"}, {"unit": "Hrs"})
    ],
)
def test_products_that_are_none(text: Any) -> None:
    prices, _ = on_demand_of([text], REGION, {T4})
    assert not prices


def test_the_latest_spot_price_of_each_zone(lists: PriceLists, sources: Sources, kinds: Any) -> None:
    lists.spots = [
        spot(T4, "us-east-1a", "0.1950", since="2026-11-28T01:00:00.000Z"),
        spot(T4, "us-east-1a", "0.2000"),
        spot(T4, "us-east-1b", "0.2100"),
        spot(T4, "us-east-1b", "0.2200", since="2026-11-27T01:00:00.000Z"),
        spot(T4, "us-east-1b", "0.9000", system="Windows"),
        spot("m5.large", "us-east-1a", "0.0300"),
        spot("p5.48xlarge", "us-east-1c", "20.0000"),
    ]
    lists.page_size = 2
    reading = parts(sources, kinds)[f"aws: spot prices of {REGION}"].read()
    assert {(*one.place[1:4], one.usd_per_hour) for one in reading.prices} == {
        (T4, REGION, "us-east-1a", 0.2),
        (T4, REGION, "us-east-1b", 0.21),
        ("p5.48xlarge", REGION, "us-east-1c", 20.0),
    }


def test_spot_rows_that_are_none() -> None:
    good = {
        "InstanceType": T4,
        "AvailabilityZone": "us-east-1a",
        "ProductDescription": "Linux/UNIX",
        "SpotPrice": "0.2",
        "Timestamp": datetime.datetime(2026, 11, 29, tzinfo=datetime.timezone.utc),
    }
    bad = [None, 3, [], {}] + [{**good, name: value} for name in good for value in (None, [], {}, "", 7)]
    prices, _ = spot_of(bad, REGION)
    # A number is a price, too; all else is not.
    assert {one.usd_per_hour for one in prices} <= {7.0}
    assert len(spot_of([*bad, good], REGION)[0]) == 1


@pytest.fixture(scope="module")
def moto() -> Iterator[Sources]:
    """A server of moto in this process: Amazon's own descriptions of machines, and a spot price of 0.00001 for all."""
    server = pytest.importorskip("moto.server", reason="needs moto with its server")
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    try:
        with pytest.MonkeyPatch.context() as patched:
            patched.setenv("no_proxy", "127.0.0.1")
            patched.setenv("AWS_ACCESS_KEY_ID", "test")
            patched.setenv("AWS_SECRET_ACCESS_KEY", "test")
            yield Sources(f"http://{host}:{port}")
    finally:
        running.stop()


def test_machines_as_amazon_describes_them(moto: Sources, kinds: Any) -> None:
    reading = parts(moto, kinds)[f"aws: machines of {REGION}"].read()
    found = {name: listed.instance_type for (_, name), listed in reading.instance_types.items()}
    assert len(found) > 60
    differ = {}
    for (provider, name), listed in kinds.items():
        if provider != "aws" or name not in found:
            continue
        ours, theirs = listed.instance_type, found[name]
        same = (
            ours.gpu_type == theirs.gpu_type
            and ours.gpu_count == theirs.gpu_count
            and ours.gpu_memory_gib == pytest.approx(theirs.gpu_memory_gib, rel=0.01)
            and ours.vcpus == theirs.vcpus
            and ours.memory_gib == theirs.memory_gib
            and ours.local_nvme_gib == pytest.approx(theirs.local_nvme_gib, abs=0.2)
            and ours.network_gbps == pytest.approx(theirs.network_gbps, rel=0.01)
        )
        if not same:
            differ[name] = (ours, theirs)
    # The packaged facts are held against what Amazon says of the same machines.
    assert differ == {}
    assert found["g6f.large"].gpu_count == 0.125
    assert found["p4de.24xlarge"].gpu_type is GPUType.NVIDIA_A100_80GB


def test_a_placeholder_of_spot_is_not_believed(moto: Sources, path: Path) -> None:
    def only_ec2(provider: str, kinds: Any, today: datetime.date) -> Any:
        source = moto(provider, kinds, today)
        every = [part for part in source.parts((REGION,)) if "on demand" not in part.what]
        return type("Some", (), {"parts": lambda self, regions: iter(every)})()

    report = refresh(providers=["aws"], regions=[REGION], path=path, today=TODAY, sources=only_ec2)
    assert report.believed == 0
    assert len(report.refused) > 50
    assert {one.why for one in report.refused} == {"a placeholder"}
    catalog = Catalog.load(path, today=TODAY)
    assert min(one.usd_per_hour for one in catalog.offers(providers="aws")) > 0.05


def test_machines_that_the_package_does_not_know(lists: PriceLists, sources: Sources, path: Path) -> None:
    lists.machines = [
        machine("g99.xlarge", "L4", 1, 22888),
        machine("g99f.large", "L4", 1, 2861, part=0.125),
        machine("p99.48xlarge", "A100", 8, 81920, vcpus=96, memory_mib=1152 * 1024),
        machine("p0.large", "Quantum 9000", 1, 1 << 20),
        machine("m5.large", "L4", 1, 22888),
        machine("g4ad.xlarge", "Radeon Pro V520", 1, 8192, maker="AMD"),
    ]
    lists.products = [product("g99.xlarge", "0.81"), product("g99f.large", "0.2")]
    lists.spots = [spot("p99.48xlarge", "us-east-1a", "10.5"), spot("g99.xlarge", "us-east-1a", "0.4")]
    report = refresh(providers=["aws"], regions=[REGION], path=path, today=TODAY, sources=sources)
    assert report.new_types == ("g99.xlarge", "g99f.large", "p99.48xlarge")
    assert report.notes == ("p0: no GPU type is called 'Quantum 9000'",)
    catalog = Catalog.load(path, today=TODAY)
    kind = catalog.instance_type("aws", "p99.48xlarge")
    assert (kind.gpu_type, kind.gpu_count, kind.gpu_memory_gib) == (GPUType.NVIDIA_A100_80GB, 8, 80)
    part = catalog.instance_type("aws", "g99f.large")
    assert (part.gpu_count, part.gpu_memory_gib) == (0.125, pytest.approx(22.35, abs=0.01))
    (offer,) = catalog.offers(instance_types="p99.48xlarge")
    assert (offer.zone, offer.market, offer.usd_per_hour) == ("us-east-1a", Market.SPOT, 10.5)
    assert catalog.provenance("aws", "g99.xlarge")[0] == TODAY


@pytest.mark.parametrize("field", ["GpuInfo", "VCpuInfo", "MemoryInfo", "InstanceType", "NetworkInfo"])
@pytest.mark.parametrize(
    "value", [None, [], {}, "x", 3, {"Gpus": [None]}, {"Gpus": [{"Manufacturer": "NVIDIA"}]}]
)
def test_descriptions_that_are_none(field: str, value: Any) -> None:
    good = {
        "InstanceType": "g99.xlarge",
        "GpuInfo": {
            "Gpus": [{"Name": "L4", "Manufacturer": "NVIDIA", "Count": 1, "MemoryInfo": {"SizeInMiB": 22888}}]
        },
        "VCpuInfo": {"DefaultVCpus": 4},
        "MemoryInfo": {"SizeInMiB": 16384},
    }
    assert len(listed_of([good], TODAY)[0]) == 1
    types, _ = listed_of([{**good, field: value}], TODAY)
    assert set(types) <= ({("aws", "g99.xlarge")} if field == "NetworkInfo" else {("aws", "x")})


def error(code: str, status: int = 400) -> Answer:
    return Answer(status, json.dumps({"__type": code, "message": "no"}).encode())


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (error("AccessDeniedException"), AuthenticationError),
        (error("UnrecognizedClientException"), AuthenticationError),
        (error("ThrottlingException"), ProviderUnavailableError),
        (error("InternalErrorException", 500), ProviderUnavailableError),
        (Answer(200, b"<html>"), ProviderUnavailableError),
        (Answer(502, b"<html>\n" + b"<p>no\n" * 1000), ProviderUnavailableError),
        (Answer(0, b""), ProviderUnavailableError),
    ],
)
def test_errors_in_the_words_of_this_package(
    answer: Answer, kind: type[Exception], lists: PriceLists, sources: Sources, kinds: Any
) -> None:
    lists.every = lambda _: answer
    with pytest.raises(kind, match="prices on demand of us-east-1") as caught:
        parts(sources, kinds)[f"aws: prices on demand of {REGION}"].read()
    (message,) = caught.value.args
    assert "\n" not in message
    assert len(message) < 600


def test_throttling_is_waited_out(lists: PriceLists, sources: Sources, kinds: Any) -> None:
    lists.products = [product(T4, "0.526")]
    lists.faults = [error("ThrottlingException")]
    assert parts(sources, kinds)[f"aws: prices on demand of {REGION}"].read().prices


def test_pages_that_do_not_end(
    lists: PriceLists, sources: Sources, kinds: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("textnlp_fast.gpu.catalog.refresh.aws._MOST_PAGES", 12)  # each takes botocore a while
    count = iter(range(10**6))

    def always(path: str) -> Answer:
        return Answer(200, json.dumps({"PriceList": [], "NextToken": str(next(count))}).encode())

    lists.every = always
    with pytest.raises(ProviderUnavailableError, match="do not end"):
        parts(sources, kinds)[f"aws: prices on demand of {REGION}"].read()
    assert next(count) == 13
    # And a token that comes twice.
    lists.every = lambda _: Answer(200, json.dumps({"PriceList": [], "NextToken": "t"}).encode())
    with pytest.raises(ProviderUnavailableError, match="prices on demand"):
        parts(sources, kinds)[f"aws: prices on demand of {REGION}"].read()


def test_without_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kinds: Any) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    part = next(AwsPrices(kinds, today=TODAY).parts((REGION,)))
    with pytest.raises(AuthenticationError, match="credentials"):
        part.read()
