"""Azure's list: which of its rows are the price of a machine, and what a bad answer does."""

from __future__ import annotations

import json
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from fakes.price_lists import Answer, PriceLists, azure_item
from textnlp_fast.errors import AuthenticationError, InvalidInputError, ProviderUnavailableError
from textnlp_fast.gpu import Catalog, Market
from textnlp_fast.gpu.catalog.refresh import refresh
from textnlp_fast.gpu.catalog.refresh.azure import AzurePrices, prices_of
from textnlp_fast.gpu.catalog.refresh.http import JsonClient

from .conftest import TODAY, Sources

T4 = "Standard_NC4as_T4_v3"
A100 = "Standard_NC24ads_A100_v4"
LATER = "2027-01-01T00:00:00Z"


def kept(prices: Any) -> dict[tuple[str, Market], float]:
    return {(one.place.instance_type, one.place.market): one.usd_per_hour for one in prices}


def variants(name: str, usd: float) -> list[dict[str, Any]]:
    """All rows that the list has of a machine; Linux on demand is `usd`, spot a fifth of it."""
    short = name.removeprefix("Standard_").replace("_", " ")
    windows = {"productName": "Virtual Machines NC Series Windows"}
    return [
        azure_item(name, usd * 1.5, **windows),
        azure_item(name, usd * 0.4, **windows, meterName=f"{short} Spot", skuName=f"{short} Spot"),
        azure_item(name, usd * 0.3, meterName=f"{short} Low Priority", skuName=f"{short} Low Priority"),
        azure_item(name, usd),
        azure_item(name, usd / 5, meterName=f"{short} Spot", skuName=f"{short} Spot"),
        azure_item(name, usd * 1.1, productName="NC Series Cloud Services"),
        azure_item(name, usd * 1.2, productName="Virtual Machines NC Series CloudServices"),
        azure_item(name, usd * 5000, type="Reservation", reservationTerm="1 Year"),
        azure_item(name, usd * 0.9, type="DevTestConsumption"),
        azure_item(name, usd * 2, armRegionName="westus2"),
        azure_item(name, usd * 3, tierMinimumUnits=1000.0),
        azure_item(name, usd * 24, unitOfMeasure="1 Day"),
        azure_item(name, usd * 0.5, effectiveStartDate="2020-01-01T00:00:00Z"),
        azure_item(name, usd * 1.9, effectiveStartDate=LATER),
    ]


def test_one_row_of_many_is_the_price(lists: PriceLists, sources: Sources, kinds: Any) -> None:
    lists.azure = [*variants(T4, 0.526), *variants(A100, 3.673), azure_item("Standard_D2s_v5", 0.096)]
    lists.page_size = 3  # so that links to next pages have to be followed
    (part,) = AzurePrices(kinds, today=TODAY, client=sources.client()).parts(("eastus",))
    reading = part.read()
    assert kept(reading.prices) == {
        (T4, Market.ON_DEMAND): 0.526,
        (T4, Market.SPOT): pytest.approx(0.1052),
        (A100, Market.ON_DEMAND): 3.673,
        (A100, Market.SPOT): pytest.approx(0.7346),
    }
    assert reading.notes == ()
    assert len(lists.asked) > 6


def test_order_of_rows_does_not_matter() -> None:
    rows = variants(T4, 0.526)
    for turn in range(len(rows)):
        prices, notes = prices_of([*rows[turn:], *rows[:turn]], "eastus", [T4], TODAY)
        assert kept(prices) == {(T4, Market.ON_DEMAND): 0.526, (T4, Market.SPOT): pytest.approx(0.1052)}
        assert not notes


def test_two_prices_of_one_day_are_said_and_the_higher_one_is_taken() -> None:
    prices, notes = prices_of([azure_item(T4, 0.6), azure_item(T4, 0.5)], "eastus", [T4], TODAY)
    assert kept(prices) == {(T4, Market.ON_DEMAND): 0.6}
    assert len(notes) == 1 and "0.5" in notes[0] and "0.6" in notes[0]


@pytest.mark.parametrize("bad", ["0.1.2", None, True, [], {}, float("nan"), float("inf"), "9" * 400, 10**400])
def test_a_price_that_is_no_number_is_said(bad: Any) -> None:
    prices, notes = prices_of([azure_item(T4, bad)], "eastus", [T4], TODAY)
    assert not prices
    assert T4 in notes[0]


def test_rows_that_are_none() -> None:
    rows: list[Any] = [None, 1, "x", [], {}, {"armSkuName": T4}, {"armSkuName": [], "armRegionName": {}}]
    rows += [azure_item(T4, 1.0, **{name: value}) for name in azure_item(T4, 1.0) for value in (None, [], 7)]
    prices, _ = prices_of(rows, "eastus", [T4], TODAY)
    assert all(one.place[:2] == ("azure", T4) for one in prices)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (Answer(200, b"<html>"), "no JSON"),
        (Answer(200, b"[]"), "no JSON object"),
        (Answer(200, b"{}"), "no Items"),
        (Answer(200, b'{"Items": {}}'), "no Items"),
        (Answer(200, b'{"Items": ' + b"[" * 100_000), "no JSON"),
        (Answer(200, b'{"Items": [], "NextPageLink": "https://evil.example/api"}'), "leads away"),
        (Answer(200, b'{"Items": [], "NextPageLink": "file:///etc/passwd"}'), "leads away"),
        (Answer(200, b"\xff\xfe"), "no JSON"),
        (Answer(200, b"{}", {"Content-Length": "999"}), "did not answer"),
    ],
)
def test_answers_that_are_none(
    answer: Answer, message: str, lists: PriceLists, sources: Sources, kinds: Any, path: Path
) -> None:
    lists.every = lambda _: answer
    (part,) = AzurePrices(kinds, today=TODAY, client=sources.client(timeout_s=1)).parts(("eastus",))
    with pytest.raises(ProviderUnavailableError, match=message):
        part.read()
    assert all(urlsafe.startswith("/api/retail/prices") for urlsafe in lists.asked)


def test_pages_that_do_not_end(lists: PriceLists, sources: Sources, kinds: Any) -> None:
    count = 0

    def always(path: str) -> Answer:
        nonlocal count
        count += 1
        link = f"{lists.url}/api/retail/prices?$skip={count}"
        return Answer(200, json.dumps({"Items": [], "NextPageLink": link}).encode())

    lists.every = always
    (part,) = AzurePrices(kinds, today=TODAY, client=sources.client()).parts(("eastus",))
    with pytest.raises(ProviderUnavailableError, match="do not end"):
        part.read()
    assert count <= 51
    lists.every = lambda path: Answer(
        200, json.dumps({"Items": [], "NextPageLink": lists.url + path}).encode()
    )
    with pytest.raises(ProviderUnavailableError, match="do not end"):
        part.read()


def test_a_body_without_end_is_cut(lists: PriceLists, sources: Sources, kinds: Any) -> None:
    lists.every = lambda _: Answer(200, b'{"Items": [' + b" " * (3 << 20) + b"]}")
    client = sources.client(limit_bytes=1 << 20)
    (part,) = AzurePrices(kinds, today=TODAY, client=client).parts(("eastus",))
    with pytest.raises(ProviderUnavailableError, match="more than 1 MiB"):
        part.read()


def test_throttling_is_waited_out(lists: PriceLists, sources: Sources, kinds: Any) -> None:
    lists.azure = [azure_item(T4, 0.526)]
    lists.faults = [
        Answer(429, b"{}", {"Retry-After": "7"}),
        Answer(503, b"{}"),
        Answer(0, b""),
        Answer(200, b'{"Items"', {"Content-Length": "8"}),
    ]
    (part,) = AzurePrices(kinds, today=TODAY, client=sources.client()).parts(("eastus",))
    with pytest.raises(ProviderUnavailableError, match="no JSON"):
        part.read()
    assert len(sources.waits) == 3
    assert sources.waits[0] == 7
    assert kept(part.read().prices) == {(T4, Market.ON_DEMAND): 0.526}


def test_tries_are_bounded(lists: PriceLists, sources: Sources, kinds: Any) -> None:
    lists.every = lambda _: Answer(429, b"", {"Retry-After": "99999"})
    (part,) = AzurePrices(kinds, today=TODAY, client=sources.client(total_s=1000)).parts(("eastus",))
    with pytest.raises(ProviderUnavailableError, match="HTTP 429"):
        part.read()
    assert len(lists.asked) == 5
    assert max(sources.waits) <= 30


def test_a_trickle_does_not_outlast_the_deadline() -> None:
    """A server that sends a byte now and then keeps a read alive, but not the question."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def trickle() -> None:
            connection, _ = server.accept()
            with connection, suppress(OSError):
                connection.recv(1 << 16)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
                while True:
                    connection.sendall(b" ")
                    time.sleep(0.05)

        thread = threading.Thread(target=trickle, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        client = JsonClient("the list", url, timeout_s=5, total_s=1, sleep=lambda _: None)
        with pytest.MonkeyPatch.context() as patched:
            patched.setenv("no_proxy", "127.0.0.1")
            with pytest.raises(ProviderUnavailableError, match="too long"):
                client.get(url + "/x")
        thread.join(30)
        assert not thread.is_alive()


def test_refusals_are_not_repeated(lists: PriceLists, sources: Sources, kinds: Any) -> None:
    (part,) = AzurePrices(kinds, today=TODAY, client=sources.client()).parts(("eastus",))
    lists.faults = [Answer(400, b'{"Error": {"Message": "Invalid OData parameters supplied"}}')]
    with pytest.raises(InvalidInputError, match="Invalid OData"):
        part.read()
    lists.faults = [Answer(403, b"")]
    with pytest.raises(AuthenticationError, match="403"):
        part.read()
    lists.faults = [Answer(302, b"", {"Location": "https://evil.example/"})]
    with pytest.raises(InvalidInputError, match="302"):
        part.read()
    assert len(lists.asked) == 3


def test_a_region_cannot_break_out_of_the_filter(lists: PriceLists, sources: Sources, kinds: Any) -> None:
    lists.azure = [azure_item(T4, 0.526)]
    region = "eastus' or armRegionName eq 'eastus"
    (part,) = AzurePrices(kinds, today=TODAY, client=sources.client()).parts((region,))
    assert part.read().prices == ()
    asked = unquote(lists.asked[0])
    assert "armRegionName eq 'eastus'' or armRegionName eq ''eastus' and" in asked


def test_new_prices_are_found_again(lists: PriceLists, sources: Sources, path: Path) -> None:
    lists.azure = variants(A100, 3.5)
    report = refresh(providers=["azure"], regions=["eastus"], path=path, today=TODAY, sources=sources)
    assert (report.believed, report.refused, dict(report.failed)) == (2, (), {})
    offers = Catalog.load(path, today=TODAY).offers(instance_types=A100, regions="eastus")
    assert [(one.market, one.usd_per_hour, one.as_of, one.stale) for one in offers] == [
        (Market.SPOT, pytest.approx(0.7), TODAY, False),
        (Market.ON_DEMAND, 3.5, TODAY, False),
    ]
    assert all("Retail Prices" in one.source for one in offers)
