"""What a refresh believes, keeps and writes: rules of belief, failures in part, kills, and the commands."""

from __future__ import annotations

import datetime
import json
import math
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.price_lists import Answer, PriceLists, azure_item
from textnlp_fast.errors import (
    AuthenticationError,
    CorruptDataError,
    InvalidInputError,
    MissingPackageError,
    ProviderUnavailableError,
)
from textnlp_fast.gpu import Catalog, Market
from textnlp_fast.gpu.catalog.catalog import packaged, read_refreshed
from textnlp_fast.gpu.catalog.document import Document, parse, render
from textnlp_fast.gpu.catalog.refresh import refresh
from textnlp_fast.gpu.catalog.refresh.readings import Place, Price
from textnlp_fast.gpu.catalog.refresh.refreshing import merged, write
from textnlp_fast.gpu.catalog.refresh.vetting import vetted
from textnlp_fast.gpu.types import Offer

from .conftest import TODAY, Sources

BASE = packaged()
KINDS = BASE.instance_types
H100, T4 = "p5.48xlarge", "g4dn.xlarge"
A100 = "Standard_NC24ads_A100_v4"


def price(usd: float, name: str = T4, market: Market = Market.ON_DEMAND, zone: str | None = None) -> Price:
    return Price(Place("aws", name, "us-east-1", zone, market), usd, "a test")


def offer(
    usd: float, name: str = T4, market: Market = Market.ON_DEMAND, zone: str | None = None, days: int = 0
) -> Offer:
    return Offer(
        instance_type=KINDS["aws", name].instance_type,
        region="us-east-1",
        zone=zone,
        market=market,
        usd_per_hour=usd,
        as_of=TODAY - datetime.timedelta(days=days),
        source="a test",
    )


# --- belief ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prices", "former", "refused"),
    [
        ([price(0.5)], [], []),
        ([price(0.0001)], [], ["placeholder"]),
        ([price(0.0)], [], ["placeholder"]),
        ([price(-1.0)], [], ["placeholder"]),
        ([price(9999.99)], [], ["placeholder"]),
        ([price(999.0)], [], ["placeholder"]),
        ([price(0.1, H100)], [], ["placeholder"]),  # an eighth of it a GPU
        ([price(55.04, H100)], [], []),
        ([price(1.0, "g99.large")], [], ["nothing is known"]),
        ([price(0.5), price(0.5)], [], []),
        ([price(0.5), price(0.6)], [], ["another price", "0.5"]),
        # Spot: up to the price on demand, wherever that is known from.
        ([price(0.5), price(0.5, market=Market.SPOT)], [], []),
        ([price(0.5), price(0.6, market=Market.SPOT)], [], ["above"]),
        ([price(0.6, market=Market.SPOT), price(0.5)], [], ["above"]),
        ([price(0.6, market=Market.SPOT)], [offer(0.5)], ["above"]),
        ([price(0.6, market=Market.SPOT, zone="a")], [offer(0.5)], ["above"]),
        ([price(0.6, market=Market.SPOT)], [], []),
        # A refused price on demand is no measure, and the former one is.
        ([price(9999.0), price(0.6, market=Market.SPOT)], [offer(0.5)], ["above", "placeholder"]),
        # Jumps.
        ([price(4.9)], [offer(0.5)], []),
        ([price(5.0)], [offer(0.5)], ["jump"]),
        ([price(0.051)], [offer(0.5)], []),
        ([price(0.05)], [offer(0.5)], ["jump"]),
        ([price(0.05, market=Market.SPOT, zone="a")], [offer(0.5, market=Market.SPOT)], ["jump"]),
        ([price(0.05, market=Market.SPOT, zone="a")], [offer(0.5, market=Market.SPOT, zone="b"),
          offer(0.06, market=Market.SPOT, zone="c")], []),
        ([price(0.05, market=Market.SPOT, zone="b")], [offer(0.5, market=Market.SPOT, zone="b"),
          offer(0.06, market=Market.SPOT, zone="c")], ["jump"]),
    ],
)  # fmt: skip
def test_what_is_believed(prices: list[Price], former: list[Offer], refused: list[str]) -> None:
    believed, no = vetted(prices, KINDS, former)
    assert len(no) == len(refused)
    assert all(any(word in str(one) for one in no) for word in refused)
    places = {one.place for one in prices} - {one.price.place for one in no}
    assert {one.place for one in believed} == places
    # The sentence names the price.
    assert all("g4dn.xlarge" in str(one) or H100 in str(one) or "g99" in str(one) for one in no)


def test_jumps_can_be_accepted_and_placeholders_cannot() -> None:
    believed, refused = vetted([price(0.05), price(0.0001, H100)], KINDS, [offer(0.5)], accept_jumps=True)
    assert [one.usd_per_hour for one in believed] == [0.05]
    assert len(refused) == 1


usd = st.one_of(st.floats(0.001, 3000), st.sampled_from([0.0001, 0.5, 0.6, 5.0, 9999.0]))
names = st.sampled_from([T4, H100])
# A price on demand is that of a whole region.
ways = st.sampled_from(
    [(Market.ON_DEMAND, None), (Market.SPOT, None), (Market.SPOT, "a"), (Market.SPOT, "b")]
)


@given(
    st.lists(st.builds(lambda usd, name, way: price(usd, name, *way), usd, names, ways), max_size=8),
    st.lists(st.builds(lambda usd, name, way: offer(usd, name, *way), st.floats(0.01, 1000), names, ways), max_size=6),
)  # fmt: skip
def test_what_is_believed_is_consistent(prices: list[Price], former: list[Offer]) -> None:
    believed, refused = vetted(prices, KINDS, former)
    # Nothing is lost, nothing appears, no place twice.
    assert {one.place for one in believed} | {one.price.place for one in refused} == {
        one.place for one in prices
    }
    places = [one.place for one in believed]
    assert len(set(places)) == len(places)
    listed = {one.place[1]: one.usd_per_hour for one in believed if one.place.market is Market.ON_DEMAND}
    past = {(one.instance_type.name, one.market, one.zone): one.usd_per_hour for one in former}
    for one in believed:
        name, market = one.place.instance_type, one.place.market
        gpus = KINDS["aws", name].instance_type.gpu_count
        assert 0.02 * gpus <= one.usd_per_hour <= 150 * gpus
        before = past.get((name, market, one.place.zone))
        if before is not None:
            assert 0.1 < before / one.usd_per_hour < 10
        if market is Market.SPOT:
            most = listed.get(name) or past.get((name, Market.ON_DEMAND, None), math.inf)
            assert one.usd_per_hour <= most
    # The order of a list means nothing.
    assert set(vetted(prices[::-1], KINDS, former)[0]) == set(believed)


# --- the file -------------------------------------------------------------------------------------------------


def test_new_prices_take_the_place_of_all_of_the_region() -> None:
    old = Document(
        offers=(
            offer(0.3, market=Market.SPOT, zone="a"),
            offer(0.3, market=Market.SPOT, zone="b"),
            offer(0.5),
        )
    )
    new = [offer(0.2, market=Market.SPOT, zone="a")]
    made = merged(old, {}, new)
    assert set(made.offers) == {new[0], offer(0.5)}
    doubted = {Place("aws", T4, "us-east-1", "b", Market.SPOT)}
    made = merged(old, {}, new, doubted)
    assert set(made.offers) == {new[0], offer(0.5), offer(0.3, market=Market.SPOT, zone="b")}


offers = st.builds(
    lambda usd, name, way, days: offer(usd, name, *way, days),
    st.floats(0.01, 1000),
    names,
    ways,
    st.integers(0, 400),
)


@given(st.lists(offers, max_size=8), st.lists(offers, max_size=8))
def test_what_is_written_is_read(old: list[Offer], new: list[Offer]) -> None:
    document = merged(Document(offers=tuple(old)), {}, new)
    again = parse(render(document), "the file", KINDS)
    assert set(again.offers) == set(document.offers)
    assert render(again) == render(document)
    fresh = {(one.instance_type.name, one.market) for one in new}
    kept = [one for one in old if (one.instance_type.name, one.market) not in fresh]
    assert {(one.instance_type.name, one.market, one.zone) for one in again.offers} == {
        (one.instance_type.name, one.market, one.zone) for one in (*kept, *new)
    }


def test_a_kill_leaves_the_old_file_or_the_new_one(path: Path) -> None:
    """Writers are killed at every moment; readers see whole files only, and the next writer cleans up."""
    program = textwrap.dedent(
        """
        import sys, dataclasses
        from pathlib import Path
        from textnlp_fast.gpu.catalog.catalog import packaged
        from textnlp_fast.gpu.catalog.document import Document
        from textnlp_fast.gpu.catalog.refresh.refreshing import write
        base = packaged()
        print("ready", flush=True)
        number = 0
        while True:
            number += 1
            offers = tuple(dataclasses.replace(one, usd_per_hour=1.0 + number % 7) for one in base.offers[:400])
            write(Path(sys.argv[1]), lambda old: Document(offers=offers), base)
        """
    )
    seen = 0
    for number in range(12):
        child = subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE)
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        time.sleep(0.004 * number + (0.05 if number % 3 else 0.0))
        os.kill(child.pid, signal.SIGKILL)
        child.wait(30)
        child.stdout.close()
        found = read_refreshed(path, BASE)
        if found is not None:
            seen += 1
            assert len(found.offers) == 400
            assert len({one.usd_per_hour for one in found.offers}) == 1
    assert seen > 3
    write(path, lambda old: old or Document(), BASE)
    assert sorted(each.name for each in path.parent.iterdir()) == [f".{path.name}.lock", path.name]


def test_a_write_that_fails_leaves_the_old_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(path, lambda old: Document(offers=(offer(0.5),)), BASE)
    before = path.read_bytes()

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(InvalidInputError, match="No space left"):
            write(path, lambda old: Document(offers=(offer(0.6),)), BASE)
    assert path.read_bytes() == before
    assert len(list(path.parent.iterdir())) == 2


def test_writers_side_by_side_lose_nothing(path: Path) -> None:
    places = [(name, market) for name in (T4, H100) for market in Market]

    def add(name: str, market: Market) -> None:
        for usd in map(float, range(1, 11)):
            new = [offer(usd, name, market)]
            write(path, partial(with_new, new=new), BASE)

    def with_new(old: Document | None, new: list[Offer]) -> Document:
        return merged(old or Document(), {}, new)

    threads = [threading.Thread(target=add, args=place) for place in places]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    found = read_refreshed(path, BASE)
    assert found is not None
    assert {(one.instance_type.name, one.market, one.usd_per_hour) for one in found.offers} == {
        (*place, 10.0) for place in places
    }


def test_a_corrupt_file_is_not_written_over(path: Path, lists: PriceLists, sources: Sources) -> None:
    path.parent.mkdir()
    path.write_bytes(b"{")
    lists.azure = [azure_item(A100, 3.5)]
    with pytest.raises(CorruptDataError, match="gpu-catalog"):
        refresh(providers=["azure"], regions=["eastus"], path=path, today=TODAY, sources=sources)
    assert path.read_bytes() == b"{"


# --- a refresh ------------------------------------------------------------------------------------------------


def prices_in(path: Path, region: str) -> dict[Market, tuple[float, bool]]:
    found = Catalog.load(path, today=TODAY).offers(providers="azure", instance_types=A100, regions=region)
    return {one.market: (one.usd_per_hour, one.stale) for one in found}


def test_what_fails_keeps_its_former_prices_and_is_said(
    path: Path, lists: PriceLists, sources: Sources
) -> None:
    lists.azure = [azure_item(A100, 3.5, region) for region in ("eastus", "westeurope")]
    lists.every = lambda where: Answer(400, b"no") if "westeurope" in where else None
    report = refresh(
        providers=["azure"], regions=["eastus", "westeurope"], path=path, today=TODAY, sources=sources
    )
    assert report.believed == 1
    assert list(report.failed) == ["azure: prices of westeurope"]
    assert prices_in(path, "eastus")[Market.ON_DEMAND] == (3.5, False)
    assert prices_in(path, "westeurope") == prices_in(Path("/nonexistent"), "westeurope")


def test_if_all_fails_nothing_is_written(path: Path, lists: PriceLists, sources: Sources) -> None:
    lists.every = lambda _: Answer(200, b"<html>")
    with pytest.raises(ProviderUnavailableError, match="no JSON"):
        refresh(providers=["azure"], regions=["eastus"], path=path, today=TODAY, sources=sources)
    assert not path.parent.exists()


def test_who_is_not_let_in_is_not_asked_for_ever(path: Path, lists: PriceLists, sources: Sources) -> None:
    lists.every = lambda where: Answer(401, b"")
    with pytest.raises(AuthenticationError, match="401"):
        refresh(providers=["azure"], path=path, today=TODAY, sources=sources)
    assert len(lists.asked) == 3


def test_regions_that_are_closed_stop_no_other(path: Path, lists: PriceLists, sources: Sources) -> None:
    regions = Catalog.load("/nonexistent").regions("azure")
    closed = {regions[0], *regions[-4:-1]}
    lists.azure = [azure_item(A100, 3.5, region) for region in regions]
    lists.every = lambda where: Answer(403, b"") if any(f"%27{one}%27" in where for one in closed) else None
    report = refresh(providers=["azure"], regions=regions, path=path, today=TODAY, sources=sources)
    assert set(report.failed) == {f"azure: prices of {one}" for one in closed}
    assert report.believed == len(regions) - 4


def test_a_missing_package_is_said_with_its_command(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("boto3", "botocore", "botocore.exceptions", "google.auth"):
        monkeypatch.setitem(sys.modules, name, None)
    for provider, extra in (("aws", r"textnlp-fast\[aws\]"), ("gcp", r"textnlp-fast\[gpu-gcp\]")):
        with pytest.raises(MissingPackageError, match=extra):
            refresh(providers=[provider], path=path, today=TODAY)


def test_absurd_prices_keep_the_former_ones_and_are_named(
    path: Path, lists: PriceLists, sources: Sources
) -> None:
    def spot(usd: float) -> dict[str, Any]:
        return azure_item(A100, usd, meterName="NC24ads A100 v4 Spot", skuName="NC24ads A100 v4 Spot")

    lists.azure = [azure_item(A100, 3.5), spot(0.7)]
    refresh(providers=["azure"], regions=["eastus"], path=path, today=TODAY, sources=sources)
    for bad, why in ((spot(3.6), "above"), (spot(0.0001), "placeholder"), (spot(0.06), "jump")):
        lists.azure = [azure_item(A100, 3.4), bad]
        report = refresh(providers=["azure"], regions=["eastus"], path=path, today=TODAY, sources=sources)
        assert [why in str(one) and A100 in str(one) for one in report.refused] == [True]
        assert prices_in(path, "eastus") == {Market.ON_DEMAND: (3.4, False), Market.SPOT: (0.7, False)}
    lists.azure = [spot(0.06)]
    refresh(
        providers=["azure"], regions=["eastus"], path=path, today=TODAY, sources=sources, accept_jumps=True
    )
    assert prices_in(path, "eastus")[Market.SPOT] == (0.06, False)


def test_names_that_are_none(path: Path, sources: Sources) -> None:
    with pytest.raises(InvalidInputError, match="Did you mean azure"):
        refresh(providers=["azzure"], path=path, sources=sources)
    with pytest.raises(InvalidInputError, match="--provider"):
        refresh(regions=["mars-1"], path=path, sources=sources)


def test_a_region_is_asked_of_those_who_have_it(path: Path) -> None:
    asked: list[tuple[str, tuple[str, ...]]] = []

    class Quiet:
        def __init__(self, provider: str, kinds: Any, today: Any) -> None:
            self.provider = provider

        def parts(self, regions: tuple[str, ...]) -> Any:
            asked.append((self.provider, regions))
            return iter(())

    refresh(regions=["us-east-1", "eastus"], path=path, sources=Quiet)
    assert asked == [("aws", ("us-east-1",)), ("azure", ("eastus",))]
    asked.clear()
    refresh(providers=["gcp"], regions=["mars-1"], path=path, sources=Quiet)
    assert asked == [("gcp", ("mars-1",))]
    asked.clear()
    refresh(path=path, sources=Quiet)
    assert dict(asked) == {
        name: Catalog.load("/nonexistent").regions(name) for name in ("aws", "azure", "gcp")
    }


# --- the commands ---------------------------------------------------------------------------------------------


def cli(*arguments: str, path: Path, site: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "TEXTNLP_FAST_GPU_CATALOG": str(path), "no_proxy": "127.0.0.1"}
    program = "from textnlp_fast.cli import main; main()"
    if site is not None:
        program = site.read_text(encoding="utf-8") + program
    return subprocess.run(
        [sys.executable, "-c", program, "gpu", "catalog", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=environment,
    )


def test_the_command_writes_and_shows(lists: PriceLists, path: Path, tmp_path: Path) -> None:
    lists.azure = [azure_item(A100, 3.5), azure_item("Standard_NC48ads_A100_v4", 0.0001)]
    lists.every = lambda where: Answer(400, b"no such place") if "westeurope" in where else None
    site = tmp_path / "site.py"
    site.write_text(f"import textnlp_fast.gpu.catalog.refresh.azure as a; a._ORIGIN = {lists.url!r}\n")
    done = cli(
        "refresh", "--provider", "azure", "--region", "eastus", "--region", "westeurope", path=path, site=site
    )
    assert done.returncode == 2
    assert f"1 prices written to {path}" in done.stdout
    assert "Standard_NC48ads_A100_v4 in eastus at 0.0001 USD/h: a placeholder" in done.stdout
    assert "westeurope cannot be read" in done.stderr and "no such place" in done.stderr

    shown = cli("show", "--type", A100, "--region", "eastus", "--region", "westeurope", "--json", path=path)
    rows = json.loads(shown.stdout)
    assert {
        (row["region"], row["usd_per_hour"], row["stale"]) for row in rows if row["market"] == "on-demand"
    } >= {("eastus", 3.5, False)}
    assert all(row["source"] and row["as_of"] and math.isfinite(row["usd_per_hour"]) for row in rows)

    table = cli("show", "--provider", "aws", "--market", "spot", "--limit", "5", path=path)
    assert table.stdout.count("stale") >= 6  # the column, five rows, and the sentence
    assert "gpu catalog refresh" in table.stdout
    assert "more: narrow it down" in table.stdout

    none = cli("show", "--gpu", "t4", "--max-usd-per-hour", "0.001", path=path)
    assert "No offer passes" in none.stdout
    wrong = cli("show", "--region", "us-eest-1", path=path)
    assert wrong.returncode == 2 and "Did you mean" in wrong.stderr
    wrong = cli("show", "--gpu", "h1000", path=path)
    assert wrong.returncode == 2 and "nvidia-h100" in wrong.stderr


def test_help_of_each_verb_has_an_example(path: Path) -> None:
    for verb in ("show", "refresh"):
        done = cli(verb, "--help", path=path)
        assert done.returncode == 0
        assert f"textnlp-fast gpu catalog {verb}" in done.stdout
