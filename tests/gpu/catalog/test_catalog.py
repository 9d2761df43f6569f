"""Questions to the catalogue against a brute-force reading of its file, and names that are none."""

from __future__ import annotations

import datetime
import json
import subprocess
import sys
import time
from dataclasses import FrozenInstanceError
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from textnlp_fast.errors import (
    CorruptDataError,
    InvalidInputError,
    UnknownGPUTypeError,
    UnknownInstanceTypeError,
    UnknownRegionError,
    UnsupportedFormatError,
)
from textnlp_fast.gpu import Catalog, GPUType, Market
from textnlp_fast.gpu.catalog import refreshed_path

NOWHERE = "/nonexistent/catalog.json"
TODAY = datetime.date(2026, 8, 5)
RAW: dict[str, Any] = json.loads(
    resources.files("textnlp_fast.gpu.catalog").joinpath("data/catalog.json").read_bytes()
)
KINDS = {(row["provider"], row["name"]): row for row in RAW["instance_types"]}
CATALOG = Catalog.load(NOWHERE, today=TODAY)
PROVIDERS = ["aws", "azure", "gcp"]
REGIONS = sorted({row[2] for row in RAW["prices"]})


def some(values: list[Any]) -> st.SearchStrategy[list[Any] | None]:
    return st.none() | st.lists(st.sampled_from(values), max_size=4, unique=True)


@given(
    providers=some(PROVIDERS),
    regions=some(REGIONS),
    gpus=some(list(GPUType)),
    markets=some(list(Market)),
    min_gpus=st.none() | st.sampled_from([0, 0.125, 0.3, 1, 1.5, 2, 8, 16, 17]),
    most=st.none() | st.floats(0, 150),
    fresh=st.booleans(),
)
def test_filters_against_brute_force(
    providers: list[str] | None,
    regions: list[str] | None,
    gpus: list[GPUType] | None,
    markets: list[Market] | None,
    min_gpus: float | None,
    most: float | None,
    fresh: bool,
) -> None:
    expected = []
    unknown = False
    for region in regions or []:
        owners = {row[0] for row in RAW["prices"] if row[2] == region}
        unknown |= providers is not None and not owners & set(providers)
    for provider, name, region, zone, market, usd, as_of, _ in RAW["prices"]:
        kind = KINDS[provider, name]
        age = (TODAY - datetime.date.fromisoformat(as_of)).days
        stale = age > (14 if market == "spot" else 180)
        if providers is not None and provider not in providers:
            continue
        if regions is not None and region not in regions:
            continue
        if gpus is not None and kind["gpu_type"] not in [str(one) for one in gpus]:
            continue
        if markets is not None and market not in [str(one) for one in markets]:
            continue
        if min_gpus is not None and kind["gpu_count"] < min_gpus:
            continue
        if most is not None and usd > most:
            continue
        if fresh and stale:
            continue
        expected.append((usd, provider, name, region, zone, market, stale))

    def ask() -> list[Any]:
        return CATALOG.offers(
            providers=providers,
            regions=regions,
            gpu_types=gpus,
            markets=markets,
            min_gpus=min_gpus,
            max_usd_per_hour=most,
            include_stale=not fresh,
        )

    if unknown:
        with pytest.raises(UnknownRegionError):
            ask()
        return
    found = [
        (
            one.usd_per_hour,
            one.instance_type.provider,
            one.instance_type.name,
            one.region,
            one.zone,
            one.market.value,
            one.stale,
        )
        for one in ask()
    ]
    assert [one[0] for one in found] == sorted(one[0] for one in found)
    assert sorted(found, key=str) == sorted(expected, key=str)


def test_one_name_is_as_good_as_a_list_of_it() -> None:
    assert CATALOG.offers(gpu_type="T4", providers="aws", markets="spot") == CATALOG.offers(
        gpu_types=[GPUType.NVIDIA_T4], providers=["aws"], markets=[Market.SPOT]
    )
    with pytest.raises(InvalidInputError, match="not both"):
        CATALOG.offers(gpu_type="T4", gpu_types=["L4"])


def test_names_that_are_none_are_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownInstanceTypeError, match=r"Did you mean p5\.48xlarge"):
        CATALOG.instance_type("aws", "p5.48xlarg")
    with pytest.raises(
        UnknownInstanceTypeError, match=r"of aws or azure or gcp\n.*Did you mean p5\.48xlarge"
    ):
        CATALOG.offers(instance_types=["g6.xlarge", "p5.48xlrage"])
    with pytest.raises(UnknownInstanceTypeError, match="of gcp"):
        CATALOG.offers(instance_types="p5.48xlarge", providers="gcp")
    assert CATALOG.offers(instance_types=[]) == []
    with pytest.raises(UnknownRegionError, match="Did you mean us-east-1"):
        CATALOG.offers(providers=["aws"], regions=["us-east-11"])
    with pytest.raises(UnknownRegionError, match="Did you mean us-central1"):
        CATALOG.check_region("gcp", "us-centrall1")
    with pytest.raises(UnknownRegionError, match="of gcp"):
        CATALOG.offers(providers=["gcp"], regions=["us-east-1"])
    with pytest.raises(UnknownGPUTypeError, match="nvidia-h100"):
        CATALOG.offers(gpu_type="h1000")
    with pytest.raises(InvalidInputError, match="aws, azure, gcp"):
        CATALOG.regions("moon")
    with pytest.raises(InvalidInputError, match="on-demand, spot"):
        CATALOG.offers(markets="auction")
    for bad in (float("nan"), -1.0):
        with pytest.raises(InvalidInputError, match="max_usd_per_hour"):
            CATALOG.offers(max_usd_per_hour=bad)
    with pytest.raises(InvalidInputError, match="max_age_days"):
        Catalog.load(NOWHERE, max_age_days=-1)


@pytest.mark.parametrize(
    "wrong",
    [
        {"gpu_type": 5},
        {"gpu_types": 5},
        {"gpu_types": [None]},
        {"providers": 5},
        {"providers": [5]},
        {"regions": [None]},
        {"instance_types": 5},
        {"markets": 5},
        {"min_gpus": "x"},
        {"max_usd_per_hour": []},
    ],
)
def test_filters_that_are_none(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match=r"5|None|'x'|\[\]"):
        CATALOG.offers(**wrong)


def test_a_type_is_what_its_row_says() -> None:
    kind = CATALOG.instance_type("gcp", "g2-standard-24")
    assert (kind.gpu_type, kind.gpu_count, kind.vcpus) == (GPUType.NVIDIA_L4, 2, 24)
    as_of, source = CATALOG.provenance("gcp", "g2-standard-24")
    assert as_of.year == 2026 and "gcp.yml" in source
    assert kind in CATALOG.instance_types("gcp")
    assert len(CATALOG.instance_types()) == len(KINDS)
    with pytest.raises(FrozenInstanceError):
        kind.vcpus = 1  # type: ignore[misc]
    with pytest.raises(TypeError):
        CATALOG.gpus[GPUType.NVIDIA_T4] = CATALOG.spec("L4")  # type: ignore[index]


def test_a_price_turns_stale_the_day_after_its_last(tmp_path: Path) -> None:
    day = datetime.date(2026, 7, 20)  # of prices on demand in us-east-1
    for late, stale in ((180, False), (181, True)):
        catalog = Catalog.load(NOWHERE, today=day + datetime.timedelta(days=late))
        (offer,) = catalog.offers(
            providers="aws", regions="us-east-1", instance_types="p5.48xlarge", markets="on-demand"
        )
        assert offer.as_of == day
        assert offer.stale is stale
    one = Catalog.load(NOWHERE, today=day + datetime.timedelta(days=31), max_age_days=30)
    assert all(each.stale for each in one.offers(providers="aws", regions="us-east-1"))


def test_loading_is_quick() -> None:
    Catalog.load(NOWHERE)
    began = time.process_time()
    Catalog.load(NOWHERE)
    assert time.process_time() - began < 0.05


def test_loading_imports_no_settings_and_no_cloud() -> None:
    code = (
        "import sys; from textnlp_fast.gpu import Catalog; Catalog.load();"
        "print([m for m in ('boto3', 'botocore', 'google', 'azure', 'pydantic', 'numpy') if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout.strip() == "[]"


# --- the refreshed file ---------------------------------------------------------------------------------------


def row(
    usd: float = 0.5, *, as_of: str = "2026-08-01", zone: str | None = None, market: str = "spot"
) -> list[Any]:
    return ["aws", "g4dn.12xlarge", "us-east-1", zone, market, usd, as_of, 0]


def write(path: Path, prices: list[Any], **more: Any) -> Path:
    path.write_text(json.dumps({"format": 1, "sources": ["a test"], "prices": prices, **more}))
    return path


def prices_of(catalog: Catalog, market: str = "spot") -> list[tuple[str | None, float]]:
    found = catalog.offers(
        providers="aws", regions="us-east-1", instance_types="g4dn.12xlarge", markets=market
    )
    return [(one.zone, one.usd_per_hour) for one in found]


def test_newer_prices_take_the_place_of_all_zones_of_older_ones(tmp_path: Path) -> None:
    shipped = prices_of(CATALOG, "on-demand")
    path = write(tmp_path / "c.json", [row(1.0, zone="us-east-1a"), row(0.9, zone="us-east-1b")])
    catalog = Catalog.load(path)
    assert prices_of(catalog) == [("us-east-1b", 0.9), ("us-east-1a", 1.0)]
    assert prices_of(catalog, "on-demand") == shipped
    assert len(catalog.offers()) >= len(CATALOG.offers())


def test_older_prices_do_not(tmp_path: Path) -> None:
    path = write(tmp_path / "c.json", [row(1.0, market="on-demand", as_of="2025-01-01")])
    assert prices_of(Catalog.load(path), "on-demand") == prices_of(CATALOG, "on-demand")


def test_of_two_prices_of_a_day_the_refreshed_one_counts(tmp_path: Path) -> None:
    (shipped,) = CATALOG.offers(
        providers="aws", regions="us-east-1", instance_types="g4dn.12xlarge", markets="on-demand"
    )
    path = write(tmp_path / "c.json", [row(3.5, market="on-demand", as_of=shipped.as_of.isoformat())])
    assert prices_of(Catalog.load(path), "on-demand") == [(None, 3.5)]


def test_types_that_the_package_does_not_know(tmp_path: Path) -> None:
    kind = {**KINDS["aws", "g4dn.12xlarge"], "name": "g99.large", "gpu_count": 3, "source": "a test"}
    prices = [["aws", "g99.large", "us-moon-1", None, "spot", 2.0, "2026-08-01", 0], row(3.0)]
    prices.append(["aws", "g0.gone", "us-east-1", None, "spot", 2.0, "2026-08-01", 0])
    catalog = Catalog.load(write(tmp_path / "c.json", prices, instance_types=[kind]))
    assert catalog.instance_type("aws", "g99.large").gpu_count == 3
    assert "us-moon-1" in catalog.regions("aws")
    with pytest.raises(UnknownInstanceTypeError):
        catalog.offers(instance_types="g0.gone")


def test_newer_facts_of_a_type_reach_the_packaged_prices(tmp_path: Path) -> None:
    kind = {**KINDS["aws", "g4dn.12xlarge"], "vcpus": 49, "as_of": "2026-11-01"}
    catalog = Catalog.load(write(tmp_path / "c.json", [], instance_types=[kind]))
    offers = catalog.offers(instance_types="g4dn.12xlarge")
    assert offers and {one.instance_type.vcpus for one in offers} == {49}


def test_where_the_refreshed_file_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TEXTNLP_FAST_GPU_CATALOG", "TEXTNLP_FAST_CONFIG", "TEXTNLP_FAST_ENV_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert refreshed_path() == tmp_path / "textnlp-fast" / "gpu-catalog.json"
    refreshed_path().parent.mkdir()
    write(refreshed_path(), [row(1.25)])
    assert prices_of(Catalog.load()) == [(None, 1.25)]
    monkeypatch.setenv("TEXTNLP_FAST_GPU_CATALOG", str(write(tmp_path / "mine.json", [row(1.5)])))
    assert prices_of(Catalog.load()) == [(None, 1.5)]


HOSTILE: dict[str, bytes] = {
    "empty": b"",
    "no JSON": b"{",
    "a list": b"[]",
    "no format": b"{}",
    "format of text": b'{"format": "1"}',
    "true format": b'{"format": true}',
    "nested": b'{"format": 1, "prices": ' + b"[" * 100_000,
    "bytes": b"\xff\xfe\x00",
    "prices of text": b'{"format": 1, "prices": "x"}',
    "types of null": b'{"format": 1, "instance_types": null}',
}
for what, bad_row in {
    "short": [],
    "price of text": [*row()[:5], "1", "2026-08-01", 0],
    "true price": [*row()[:5], True, "2026-08-01", 0],
    "NaN": row(float("nan")),
    "infinity": row(float("inf")),
    "negative": row(-1.0),
    "placeholder": row(0.0001),
    "nines": row(9999.99),
    "huge": row(10**400),
    "no date": row(as_of="yesterday"),
    "date of a number": [*row()[:6], 20260801, 0],
    "no source": [*row()[:7], 1],
    "source from the end": [*row()[:7], -1],
    "market": row(market="reserved"),
    "market of a list": [*row()[:4], [], 1.0, "2026-08-01", 0],
    "region": ["aws", "g4dn.12xlarge", None, None, "spot", 1.0, "2026-08-01", 0],
    "name": ["aws", {}, "us-east-1", None, "spot", 1.0, "2026-08-01", 0],
    "zone": row(zone=""),
}.items():
    HOSTILE[what] = json.dumps({"format": 1, "sources": ["a test"], "prices": [bad_row]}).encode()
for field, value in {
    "gpu_type": "abacus",
    "gpu_count": 0,
    "gpu_memory_gib": "16",
    "vcpus": 1.5,
    "memory_gib": float("nan"),
    "network_gbps": float("inf"),
    "local_nvme_gib": None,
    "name": "",
    "as_of": None,
    "source": 3,
}.items():
    kind = {**KINDS["aws", "g4dn.12xlarge"], field: value}
    HOSTILE[f"type: {field}"] = json.dumps({"format": 1, "instance_types": [kind]}).encode()


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_file_that_is_none_is_refused_by_name(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    path.write_bytes(data)
    with pytest.raises(CorruptDataError, match=r"c\.json") as caught:
        Catalog.load(path)
    assert "refresh" in caught.value.hint


def test_a_file_of_a_newer_version(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    path.write_text('{"format": 2}')
    with pytest.raises(UnsupportedFormatError, match="format 2"):
        Catalog.load(path)


def test_a_folder_in_its_place(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="cannot read"):
        Catalog.load(tmp_path)
