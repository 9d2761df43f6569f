"""The clouds' price lists on loopback: Azure's Retail Prices, Google's Cloud Billing, AWS's Price List, and EC2.

Rows have the shape of real ones. Filters, pages and tokens are obeyed, not ignored: a reader that asks for too little
or forgets a page gets too little. Google's requests and answers are held against its discovery document; AWS's are read
by boto3. `faults` are answers that come before the next true ones.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, parse_qsl, quote, urlsplit
from xml.sax.saxutils import escape

from fakes.discovery import Discovery, Mismatch

__all__ = ["Answer", "PriceLists", "azure_item", "machine", "product", "sku", "spot"]

_SKUS = "cloudbilling.services.skus.list"


@dataclass(frozen=True)
class Answer:
    """What goes out. A status of 0 hangs up."""

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)


def azure_item(name: str, usd: Any, region: str = "eastus", **more: Any) -> dict[str, Any]:
    """A row of Azure's list: Linux on demand, unless `more` says something else."""
    short = name.removeprefix("Standard_").replace("_", " ")
    return {
        "currencyCode": "USD",
        "tierMinimumUnits": 0.0,
        "retailPrice": usd,
        "unitPrice": usd,
        "armRegionName": region,
        "location": "US East",
        "effectiveStartDate": "2024-05-01T00:00:00Z",
        "meterId": "0a1b2c3d-0000-0000-0000-000000000000",
        "meterName": short,
        "productId": "DZH318Z0D1L7",
        "skuId": "DZH318Z0D1L7/00F7",
        "productName": f"Virtual Machines {short.split()[0]} Series",
        "skuName": short,
        "serviceName": "Virtual Machines",
        "serviceId": "DZH313Z7MMC8",
        "serviceFamily": "Compute",
        "unitOfMeasure": "1 Hour",
        "type": "Consumption",
        "isPrimaryMeterRegion": True,
        "armSkuName": name,
        **more,
    }


def sku(
    description: str,
    usd: float,
    *,
    group: str = "CPU",
    usage: str = "OnDemand",
    unit: str = "h",
    regions: tuple[str, ...] = ("us-central1",),
    family: str = "Compute",
) -> dict[str, Any]:
    """A SKU of Google's catalogue."""
    units = int(usd)
    number = f"{abs(hash((description, regions, usage))) % 16**12:012X}"
    name = f"{number[:4]}-{number[4:8]}-{number[8:]}"
    return {
        "name": f"services/6F81-5844-456A/skus/{name}",
        "skuId": name,
        "description": description,
        "category": {
            "serviceDisplayName": "Compute Engine",
            "resourceFamily": family,
            "resourceGroup": group,
            "usageType": usage,
        },
        "serviceRegions": list(regions),
        "pricingInfo": [
            {
                "summary": "",
                "pricingExpression": {
                    "usageUnit": unit,
                    "displayQuantity": 1,
                    "tieredRates": [
                        {
                            "startUsageAmount": 0,
                            "unitPrice": {
                                "currencyCode": "USD",
                                "units": str(units),
                                "nanos": round((usd - units) * 1e9),
                            },
                        }
                    ],
                    "usageUnitDescription": "hour",
                    "baseUnit": "s",
                    "baseUnitDescription": "second",
                    "baseUnitConversionFactor": 3600,
                },
                "currencyConversionRate": 1,
                "effectiveTime": "2026-11-28T13:29:05.412Z",
            }
        ],
        "serviceProviderName": "Google",
        "geoTaxonomy": {"type": "REGIONAL", "regions": list(regions)},
    }


def product(name: str, usd: str, region: str = "us-east-1", **more: str) -> dict[str, Any]:
    """A product of AWS's list: Linux on demand, shared, nothing installed, unless `more` says something else."""
    attributes = {
        "servicecode": "AmazonEC2",
        "location": "US East (N. Virginia)",
        "locationType": "AWS Region",
        "instanceType": name,
        "currentGeneration": "Yes",
        "instanceFamily": "GPU instance",
        "vcpu": "4",
        "memory": "16 GiB",
        "gpu": "1",
        "tenancy": "Shared",
        "operatingSystem": "Linux",
        "licenseModel": "No License required",
        "usagetype": f"BoxUsage:{name}",
        "operation": "RunInstances",
        "capacitystatus": "Used",
        "marketoption": "OnDemand",
        "preInstalledSw": "NA",
        "regionCode": region,
        **more,
    }
    number = f"{abs(hash(tuple(attributes.items()))):016X}"[:16]
    offer = f"{number}.JRTCKXETXF"
    return {
        "product": {"productFamily": "Compute Instance", "attributes": attributes, "sku": number},
        "serviceCode": "AmazonEC2",
        "terms": {
            "OnDemand": {
                offer: {
                    "priceDimensions": {
                        f"{offer}.6YS6EN2CT7": {
                            "unit": "Hrs",
                            "endRange": "Inf",
                            "description": f"${usd} per On Demand Linux {name} Instance Hour",
                            "appliesTo": [],
                            "rateCode": f"{offer}.6YS6EN2CT7",
                            "beginRange": "0",
                            "pricePerUnit": {"USD": usd},
                        }
                    },
                    "sku": number,
                    "effectiveDate": "2026-11-01T00:00:00Z",
                    "offerTermCode": "JRTCKXETXF",
                    "termAttributes": {},
                }
            },
            "Reserved": {
                f"{number}.4NA7Y494T4": {
                    "priceDimensions": {
                        f"{number}.4NA7Y494T4.6YS6EN2CT7": {"unit": "Hrs", "pricePerUnit": {"USD": "0.01"}}
                    }
                }
            },
        },
        "version": "20261128000000",
        "publicationDate": "2026-11-28T00:00:00Z",
    }


def spot(
    name: str,
    zone: str,
    usd: str,
    since: str = "2026-11-29T01:00:00.000Z",
    system: str = "Linux/UNIX",
) -> dict[str, str]:
    """An entry of EC2's spot price history."""
    return {
        "instanceType": name,
        "productDescription": system,
        "spotPrice": usd,
        "timestamp": since,
        "availabilityZone": zone,
    }


def machine(name: str, gpu: str, count: int, mib: int, **more: Any) -> str:
    """The XML of one machine in EC2's description."""
    part, vcpus, memory = more.get("part", 1.0), more.get("vcpus", 4), more.get("memory_mib", 16384)
    return (
        f"<item><instanceType>{escape(name)}</instanceType>"
        f"<vCpuInfo><defaultVCpus>{vcpus}</defaultVCpus></vCpuInfo>"
        f"<memoryInfo><sizeInMiB>{memory}</sizeInMiB></memoryInfo>"
        f"<gpuInfo><gpus><item><name>{escape(gpu)}</name><manufacturer>{more.get('maker', 'NVIDIA')}</manufacturer>"
        f"<count>{count if part == 1 else 0}</count><logicalGpuCount>{count}</logicalGpuCount>"
        f"<gpuPartitionSize>{part}</gpuPartitionSize><memoryInfo><sizeInMiB>{mib}</sizeInMiB></memoryInfo>"
        f"</item></gpus></gpuInfo></item>"
    )


class PriceLists:
    """All lists on one port of loopback. Set the rows, and read `asked` and `violations` afterwards."""

    def __init__(self) -> None:
        self.azure: list[Any] = []
        self.google: list[Any] = []
        self.products: list[Any] = []
        self.spots: list[dict[str, str]] = []
        self.machines: list[str] = []
        self.page_size = 100
        self.faults: list[Answer] = []
        self.every: Callable[[str], Answer | None] = lambda path: None
        self.asked: list[str] = []
        self.logins: list[str | None] = []
        self.violations: list[str] = []
        self._discovery: Discovery | None = None
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> PriceLists:
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)
        if error is None:
            assert not self.violations

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        lists = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._send(lists._answer(self.path, "", b"", self.headers.get("Authorization")))

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
                target = self.headers.get("X-Amz-Target", "")
                self._send(lists._answer(self.path, target, body, self.headers.get("Authorization")))

            def _send(self, answer: Answer) -> None:
                if answer.status == 0:
                    self.close_connection = True
                    return
                self.send_response(answer.status)
                headers = {"Content-Type": "application/json", "Content-Length": str(len(answer.body))}
                for name, value in (headers | answer.headers).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(answer.body)

            def log_message(self, format: str, *arguments: Any) -> None:
                return

        return Handler

    def _answer(self, path: str, target: str, body: bytes, login: str | None) -> Answer:
        self.asked.append(target or path if not body or target else body.decode())
        self.logins.append(login)
        if self.faults:
            return self.faults.pop(0)
        special = self.every(path)
        if special is not None:
            return special
        where = urlsplit(path)
        query = dict(parse_qsl(where.query))
        if where.path == "/api/retail/prices":
            return self._azure(query)
        if re.fullmatch(r"/v1/services/[^/]+/skus", where.path):
            return self._google(where.path, query)
        if target == "AWSPriceListService.GetProducts":
            return self._products(json.loads(body))
        if where.path == "/" and body:
            return self._ec2({name: values[0] for name, values in parse_qs(body.decode()).items()})
        self.violations.append(f"no list has {path} {target}")
        return Answer(404, b"{}")

    def _page(self, rows: list[Any], start: int) -> tuple[list[Any], int | None]:
        end = start + self.page_size
        return rows[start:end], end if end < len(rows) else None

    def _azure(self, query: dict[str, str]) -> Answer:
        rows = [row for row in self.azure if _passes(row, query.get("$filter", ""))]
        page, more = self._page(rows, int(query.get("$skip", "0")))
        link = ""
        if more is not None:
            parts = {**query, "$skip": str(more)}
            text = "&".join(f"{name}={quote(value)}" for name, value in parts.items())
            link = f"{self.url}/api/retail/prices?{text}"
        document = {
            "BillingCurrency": "USD",
            "CustomerEntityId": "Default",
            "CustomerEntityType": "Retail",
            "Items": page,
            "NextPageLink": link or None,
            "Count": len(page),
        }
        return Answer(200, json.dumps(document).encode())

    def _google(self, path: str, query: dict[str, str]) -> Answer:
        self._discovery = self._discovery or Discovery.installed("cloudbilling.v1")
        parent = path.removeprefix("/v1/").removesuffix("/skus")
        page, more = self._page(self.google, int(query.get("pageToken", "0") or 0))
        document = {"skus": page, "nextPageToken": "" if more is None else str(more)}
        try:
            self._discovery.check_request(_SKUS, {"parent": parent}, query, None)
            if all(isinstance(row, dict) for row in page):
                self._discovery.check_answer(_SKUS, document)
        except Mismatch as error:
            self.violations.append(str(error))
        return Answer(200, json.dumps(document).encode())

    def _products(self, request: dict[str, Any]) -> Answer:
        def wanted(row: dict[str, Any]) -> bool:
            says = {**row["product"]["attributes"], "productFamily": row["product"]["productFamily"]}
            return all(says.get(one["Field"]) == one["Value"] for one in request["Filters"])

        if request["ServiceCode"] != "AmazonEC2":
            self.violations.append(f"no service {request['ServiceCode']}")
        rows = [row if isinstance(row, str) else json.dumps(row) for row in self.products
                if isinstance(row, str) or wanted(row)]  # fmt: skip
        page, more = self._page(rows, int(request.get("NextToken", "0")))
        document = {"FormatVersion": "aws_v1", "PriceList": page}
        if more is not None:
            document["NextToken"] = str(more)
        return Answer(200, json.dumps(document).encode(), {"Content-Type": "application/x-amz-json-1.1"})

    def _ec2(self, request: dict[str, str]) -> Answer:
        action = request["Action"]
        names = [value for name, value in request.items() if re.fullmatch(r"Filter\.1\.Value\.\d+", name)]
        if action == "DescribeInstanceTypes":
            rows = [row for row in self.machines if any(fnmatchcase(_name_of(row), name) for name in names)]
            tag = "instanceTypeSet"
        elif action == "DescribeSpotPriceHistory":
            if "StartTime" not in request:
                self.violations.append("spot prices of all time were asked for")
            systems = [value for name, value in request.items() if name.startswith("ProductDescription.")]
            rows = [
                "<item>"
                + "".join(f"<{name}>{escape(text)}</{name}>" for name, text in row.items())
                + "</item>"
                for row in self.spots
                if row["productDescription"] in systems and row["instanceType"] in names
            ]
            tag = "spotPriceHistorySet"
        else:
            self.violations.append(f"no action {action}")
            rows, tag = [], "none"
        page, more = self._page(rows, int(request.get("NextToken", "0") or 0))
        token = "" if more is None else f"<nextToken>{more}</nextToken>"
        text = (
            f'<?xml version="1.0"?><{action}Response xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">'
            f"<requestId>r</requestId><{tag}>{''.join(page)}</{tag}>{token}</{action}Response>"
        )
        return Answer(200, text.encode(), {"Content-Type": "text/xml;charset=UTF-8"})


def _name_of(row: str) -> str:
    return row.partition("<instanceType>")[2].partition("<")[0]


def _passes(row: Any, wanted: str) -> bool:
    """Whether a row passes an OData filter of `field eq 'text'` with `and`, `or` and brackets."""
    if not isinstance(row, dict):
        return True
    row = {**row, "priceType": row.get("type")}

    def term(found: re.Match[str]) -> str:
        return str(row.get(found[1]) == found[2].replace("''", "'"))

    told = re.sub(r"(\w+) eq '((?:[^']|'')*)'", term, wanted)
    if not re.fullmatch(r"(True|False|and|or|[() ])*", told):
        raise AssertionError(f"the filter {wanted!r} is not one that the list takes")
    return bool(eval(told or "True"))
