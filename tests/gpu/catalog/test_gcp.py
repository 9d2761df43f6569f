"""Google's list: machines put together from SKUs, and SKUs that are the price of something else."""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.price_lists import Answer, PriceLists, sku
from textnlp_fast.errors import AuthenticationError, ProviderUnavailableError
from textnlp_fast.gpu import Catalog, Market
from textnlp_fast.gpu.catalog.catalog import packaged
from textnlp_fast.gpu.catalog.refresh import refresh
from textnlp_fast.gpu.catalog.refresh.gcp import GcpPrices, rate_of

from .conftest import TODAY, Sources

US, EU = "us-central1", "europe-west4"


def part_skus(
    label: str, usd: float, spot: float, *, group: str, unit: str = "h", region: str = US
) -> list[Any]:
    """A part of a machine on demand and on spot, in the words that Google has for each kind of part."""
    tail = "Americas" if region == US else "Netherlands"
    if group == "GPU" and label.startswith("A4"):
        # Spot's SKU is filed as one on demand.
        return [
            sku(f"{label} running in {tail}", usd, group=group, regions=(region,)),
            sku(f"Spot Preemptible {label} running in {tail}", spot, group=group, regions=(region,)),
        ]
    if group == "GPU":
        preemptible = f"{label} attached to Spot Preemptible VMs running in {tail}"
    else:
        preemptible = f"Spot Preemptible {label} running in {tail}"
    return [
        sku(f"{label} running in {tail}", usd, group=group, unit=unit, regions=(region,)),
        sku(preemptible, spot, group=group, unit=unit, usage="Preemptible", regions=(region,)),
    ]


def ssd(usd_month: float, spot_month: float, region: str = US) -> list[Any]:
    # As in the list: without a place for old regions, with one for others; spot is filed as on demand.
    tail = "" if region == US else " in Netherlands"
    more: dict[str, Any] = {"group": "LocalSSD", "unit": "GiBy.mo", "family": "Storage", "regions": (region,)}
    return [
        sku(f"SSD backed Local Storage{tail}", usd_month, **more),
        sku(f"SSD backed Local Storage attached to Spot Preemptible VMs{tail}", spot_month, **more),
    ]


def machine_skus(region: str = US) -> list[Any]:
    def host(family: str, core: float, ram: float, share: float) -> list[Any]:
        group = "N1Standard" if family.startswith("N1") else "CPU"
        return [
            *part_skus(f"{family} Instance Core", core, core * share, group=group, region=region),
            *part_skus(f"{family} Instance Ram", ram, ram * share, group="RAM", unit="GiBy.h", region=region),
        ]

    def gpu(label: str, usd: float, spot: float) -> list[Any]:
        return part_skus(label, usd, spot, group="GPU", region=region)

    return [
        *host("N1 Predefined", 0.031611, 0.004237, 0.2),
        *gpu("Nvidia Tesla T4 GPU", 0.35, 0.11),
        *host("G2", 0.024988, 0.002927, 0.4),
        *gpu("Nvidia L4 GPU", 0.56004, 0.224),
        *host("A2", 0.031611, 0.004237, 0.4),
        *gpu("Nvidia Tesla A100 GPU", 2.933908, 1.17),
        *gpu("Nvidia Tesla A100 80GB GPU", 3.92811, 1.57),
        *host("A3", 0.02928, 0.00255, 0.3),
        *gpu("Nvidia H100 80GB GPU", 9.796551, 2.4),
        *host("A3Plus", 0.026924, 0.002344, 0.3),
        *gpu("Nvidia H100 80GB Plus GPU", 10.344276, 3.1),
        *host("A3Ultra", 0.0316, 0.0028, 0.3),
        *gpu("H200 141GB GPU", 9.31174, 3.6),
        *gpu("A4 Nvidia B200 (1 gpu slice)", 16.11, 4.9542),
        *host("G4", 0.03, 0.003, 0.4),
        *gpu("RTX 6000 96GB", 2.5, 1.0),
        *ssd(0.08, 0.032, region),
    ]


def others(region: str = US) -> list[Any]:
    """What the list has beside: none of it is what a machine costs by the hour."""
    more: dict[str, Any] = {"group": "GPU", "regions": (region,)}
    return [
        sku("Nvidia L4 GPU attached to DWS Defined Duration VMs running in Americas", 0.2, **more),
        sku("Nvidia L4 Virtual Workstation GPU running in Americas", 0.76, **more),
        sku("Nvidia L40 GPU running in Americas", 1.0, **more),
        sku("Reserved Nvidia Tesla A100 GPU in Americas", 0.0001, **more),
        sku("Reserved Nvidia H100 80GB Mega GPU in Americas in Calendar Mode", 4.841121, **more),
        sku(
            "Nvidia H100 Mega 80GB GPU attached to DWS Defined Duration VMs running in Americas", 4.42, **more
        ),
        sku("Commitment v1: Nvidia L4 GPU running in Americas for 1 Year", 0.35, usage="Commit1Yr", **more),
        sku("G2 Instance Core running in Americas", 0.01, usage="Commit3Yr", regions=(region,)),
        sku("G2 Sole Tenancy Instance Core running in Americas", 0.5, regions=(region,)),
        sku("N1 Predefined Instance Core in Americas", 1.0, regions=("asia-east1",)),
        sku("Custom Instance Core running in Americas", 0.033, regions=(region,)),
        sku(
            "Committed Use Discount Premium for A2 Instance Core running in Americas", 0.1, regions=(region,)
        ),
        sku("Network Internet Egress from Americas to China", 0.23, unit="GiBy", family="Network"),
        sku("G2 Instance Core running in Netherlands", 0.9, regions=("europe-west1",)),
    ]


def read(
    lists: PriceLists, sources: Sources, *regions: str
) -> tuple[dict[tuple[str, str, Market], float], Any]:
    (part,) = GcpPrices(packaged().instance_types, client=sources.client()).parts(regions or (US,))
    reading = part.read()
    return {
        (one.place.instance_type, one.place.region, one.place.market): one.usd_per_hour
        for one in reading.prices
    }, reading.notes


def test_machines_are_sums_of_their_parts(lists: PriceLists, sources: Sources) -> None:
    lists.google = [*others(), *machine_skus()]
    random.Random(7).shuffle(lists.google)
    lists.page_size = 9
    prices, notes = read(lists, sources)
    on_demand = {name: usd for (name, _, market), usd in prices.items() if market is Market.ON_DEMAND}
    month = 730
    # Worked out by hand from the list above, and what Google's own pages say of them.
    assert on_demand["n1-standard-4+nvidia-tesla-t4x1"] == pytest.approx(4 * 0.031611 + 15 * 0.004237 + 0.35)
    assert on_demand["n1-standard-4+nvidia-tesla-t4x1"] == pytest.approx(0.539999)
    assert on_demand["g2-standard-8"] == pytest.approx(0.853608)
    assert on_demand["g2-standard-24"] == pytest.approx(24 * 0.024988 + 96 * 0.002927 + 2 * 0.56004)
    assert on_demand["a2-highgpu-1g"] == pytest.approx(3.673385)
    assert on_demand["a2-megagpu-16g"] == pytest.approx(55.739504)
    assert on_demand["a2-ultragpu-1g"] == pytest.approx(5.068798, abs=0.002)
    assert on_demand["a3-highgpu-8g"] == pytest.approx(
        208 * 0.02928 + 1872 * 0.00255 + 8 * 9.796551 + 6000 * 0.08 / month
    )
    assert on_demand["a3-megagpu-8g"] == pytest.approx(92.74 + 6000 * 0.08 / month, abs=0.01)
    assert on_demand["g4-standard-12"] == pytest.approx(12 * 0.03 + 45 * 0.003 + 2.5 / 4)
    spot = {name: usd for (name, _, market), usd in prices.items() if market is Market.SPOT}
    assert spot["a4-highgpu-8g"] == pytest.approx(8 * 4.9542)
    assert spot["a3-highgpu-1g"] == pytest.approx(
        0.3 * (26 * 0.02928 + 234 * 0.00255) + 2.4 + 750 * 0.032 / month
    )
    assert spot["g2-standard-4"] == pytest.approx(0.4 * (4 * 0.024988 + 16 * 0.002927) + 0.224, abs=1e-6)
    assert not {"a4-highgpu-8g", "a3-ultragpu-8g", "a3-highgpu-1g"} & set(on_demand)
    assert set(spot) == {
        kind.name
        for kind in Catalog.load("/nonexistent").instance_types("gcp")
        if not any(gpu in kind.name for gpu in ("p4x", "p100x", "v100x"))
    }
    assert notes == ()


def test_regions_have_their_own_prices(lists: PriceLists, sources: Sources) -> None:
    lists.google = [
        *machine_skus(US),
        *others(EU),
        *part_skus("Nvidia L4 GPU", 0.7, 0.3, group="GPU", region=EU),
    ]
    prices, notes = read(lists, sources, US, EU)
    assert ("g2-standard-4", US, Market.SPOT) in prices
    # A GPU without a host: said, and no half of a price.
    assert not any(region == EU for _, region, _ in prices)
    assert any("G2 Instance Core" in note and EU in note for note in notes)


def test_two_prices_of_a_part_are_said_and_the_higher_one_is_taken(
    lists: PriceLists, sources: Sources
) -> None:
    lists.google = [*machine_skus(), sku("Nvidia L4 GPU running in Iowa", 0.1, group="GPU")]
    prices, notes = read(lists, sources)
    assert prices["g2-standard-4", US, Market.ON_DEMAND] == pytest.approx(0.706832, abs=0.01)
    assert len(notes) == 1 and "two prices" in notes[0]


N1_RAM, L4, SSD = "N1 Predefined Instance Ram", "Nvidia L4 GPU", "SSD backed Local Storage"
B200 = "A4 Nvidia B200 (1 gpu slice)"


@pytest.mark.parametrize(
    ("description", "usage", "label", "market"),
    [
        ("G2 Instance Core running in Iowa", "OnDemand", "G2 Instance Core", Market.ON_DEMAND),
        ("Spot Preemptible G2 Instance Core running in Iowa", "Preemptible", "G2 Instance Core", Market.SPOT),
        (f"Preemptible {N1_RAM} running in Iowa", "Preemptible", N1_RAM, Market.SPOT),
        (f"{L4} attached to Spot Preemptible VMs running in Hong Kong", "Preemptible", L4, Market.SPOT),
        ("RTX 6000 96GB running in Delhi", "OnDemand", "RTX 6000 96GB", Market.ON_DEMAND),
        (f"{B200} running in Americas", "OnDemand", B200, Market.ON_DEMAND),
        (f"Spot Preemptible {B200} running in Americas", "OnDemand", B200, Market.SPOT),
        (f"{SSD} in Paris", "OnDemand", SSD, Market.ON_DEMAND),
        (f"{SSD} attached to Spot Preemptible VMs in Paris", "OnDemand", SSD, Market.SPOT),
    ],
)
def test_what_a_description_means(description: str, usage: str, label: str, market: Market) -> None:
    unit = "GiBy.mo" if "SSD" in label else "GiBy.h" if label.endswith("Ram") else "h"
    found = rate_of(sku(description, 7.3, usage=usage, unit=unit))
    assert found == (label, market, pytest.approx(0.01 if "SSD" in label else 7.3))


def broken(change: str, value: Any) -> Any:
    row = copy.deepcopy(sku("Nvidia L4 GPU running in Iowa", 0.56, group="GPU"))
    where: Any = row
    *steps, last = change.split(".")
    for step in steps:
        where = where[int(step)] if step.isdigit() else where[step]
    where[int(last) if last.isdigit() else last] = value
    return row


PRICE = "pricingInfo.0.pricingExpression"
MONEY = f"{PRICE}.tieredRates.0.unitPrice"


@pytest.mark.parametrize(
    ("change", "value"),
    [
        (f"{MONEY}.units", "many"),
        (f"{MONEY}.units", "-1"),
        (f"{MONEY}.units", "9999999"),
        (f"{MONEY}.units", "9" * 400),
        (f"{MONEY}.units", "NaN"),
        (f"{MONEY}.nanos", -1_000_000_000),
        (f"{MONEY}.currencyCode", "EUR"),
        (f"{PRICE}.tieredRates", []),
        (f"{PRICE}.tieredRates", [{}, {}]),
        (f"{PRICE}.tieredRates", {}),
        (f"{PRICE}.usageUnit", "mo"),
        (f"{PRICE}.usageUnit", None),
        ("pricingInfo", []),
        ("pricingInfo", None),
        ("pricingInfo.0", "x"),
        (PRICE, 3),
        (MONEY, None),
    ],
)
def test_a_price_that_is_none_is_not_taken(change: str, value: Any) -> None:
    label, _, rate = rate_of(broken(change, value))
    assert (label, rate) == ("Nvidia L4 GPU", None)


junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["description", "category", "usageType", "pricingInfo", "pricingExpression", "tieredRates",
                         "unitPrice", "units", "nanos", "usageUnit", "serviceRegions"]), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@given(junk)
def test_no_junk_breaks_the_reader(row: Any) -> None:
    _, market, rate = rate_of(row)
    assert isinstance(market, Market)
    assert rate is None or 0 < rate < 1e4


@pytest.mark.parametrize("skus", [None, 3, "x", {}])
def test_skus_that_are_no_list(skus: Any, lists: PriceLists, sources: Sources) -> None:
    lists.every = lambda _: Answer(200, json.dumps({"skus": skus}).encode())
    with pytest.raises(ProviderUnavailableError, match="no list"):
        read(lists, sources)


def test_pages_that_do_not_end(lists: PriceLists, sources: Sources) -> None:
    lists.every = lambda _: Answer(200, b'{"skus": [], "nextPageToken": "again"}')
    with pytest.raises(ProviderUnavailableError, match="do not end"):
        read(lists, sources)
    assert len(lists.asked) == 2


def test_the_fake_satisfies_googles_own_client(lists: PriceLists) -> None:
    discovery = pytest.importorskip("googleapiclient.discovery")
    credentials = pytest.importorskip("google.auth.credentials")
    lists.google = machine_skus()
    lists.page_size = 10
    service = discovery.build(
        "cloudbilling",
        "v1",
        credentials=credentials.AnonymousCredentials(),
        client_options={"api_endpoint": lists.url},
        static_discovery=True,
    )
    resource = service.services().skus()
    request = resource.list(parent="services/6F81-5844-456A", currencyCode="USD")
    found: list[Any] = []
    while request is not None:
        answer = request.execute()
        found += answer["skus"]
        request = resource.list_next(request, answer)
    assert found == lists.google


def test_a_login_is_sent(lists: PriceLists, kinds: Any) -> None:
    lists.google = machine_skus()
    logins = iter(["Bearer one", "Bearer two"])
    lists.faults = [Answer(503, b"")]
    client = Sources(lists.url).client(headers=lambda: {"Authorization": next(logins)})
    (part,) = GcpPrices(kinds, client=client).parts((US,))
    assert part.read().prices
    assert lists.logins == ["Bearer one", "Bearer two"]


def test_googles_default_login_is_found_and_renewed(
    lists: PriceLists, kinds: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By Google's own library, with the key of a service account whose tokens come from loopback."""
    pytest.importorskip("google.auth")
    rsa = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.rsa")
    serialization = pytest.importorskip("cryptography.hazmat.primitives.serialization")
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    account = {
        "type": "service_account",
        "client_email": "prices@example.iam.gserviceaccount.com",
        "private_key": key.decode(),
        "token_uri": f"{lists.url}/token",
    }
    (tmp_path / "account.json").write_text(json.dumps(account))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "account.json"))
    monkeypatch.setattr("textnlp_fast.gpu.catalog.refresh.gcp._ORIGIN", lists.url)
    tokens = iter(range(9))

    def token(path: str) -> Answer | None:
        # Each is old at once: every request needs a new one.
        if path != "/token":
            return None
        body = {"access_token": f"t{next(tokens)}", "expires_in": 1, "token_type": "Bearer"}
        return Answer(200, json.dumps(body).encode())

    lists.every = token
    lists.google = machine_skus()
    lists.page_size = 30
    (part,) = GcpPrices(kinds).parts((US,))
    assert part.read().prices
    sent = [login for login in lists.logins if login is not None]
    assert sent == ["Bearer t0", "Bearer t1"]


def test_without_a_login(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kinds: Any) -> None:
    pytest.importorskip("google.auth")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    (part,) = GcpPrices(kinds).parts((US,))
    with pytest.raises(AuthenticationError, match="gcloud auth"):
        part.read()


def test_new_prices_are_found_again(lists: PriceLists, sources: Sources, path: Path) -> None:
    lists.google = machine_skus()
    report = refresh(providers=["gcp"], regions=[US], path=path, today=TODAY, sources=sources)
    assert report.believed > 40
    assert not report.refused
    (offer,) = Catalog.load(path, today=TODAY).offers(
        instance_types="g2-standard-8", regions=US, markets="on-demand", include_stale=False
    )
    assert offer.usd_per_hour == pytest.approx(0.853608)
    assert "SKUs" in offer.source
