"""Observers on real servers: replicas that answer, hang, lie and flood; a Prometheus's query API."""

from __future__ import annotations

import json
import threading
from urllib.parse import parse_qs

import pytest

from gpu.scaling.signals.metrics_server import MetricsServer, vllm_text
from textnlp_fast.errors import InvalidInputError, ProviderUnavailableError
from textnlp_fast.gpu.health.prometheus_text import samples
from textnlp_fast.gpu.scaling.actuators.contract import FleetState, Replica
from textnlp_fast.gpu.scaling.policy import ScalingPolicy
from textnlp_fast.gpu.scaling.signals.prometheus_server import PrometheusObserver
from textnlp_fast.gpu.scaling.signals.replicas import ReplicaScraper

SLO = ScalingPolicy(period_s=10.0)


async def test_replicas_are_added_up_and_troubles_told() -> None:
    stop = threading.Event()

    def hang() -> str:
        stop.wait(20)
        return ""

    with (
        MetricsServer(vllm_text(running=3, waiting=1)) as first,
        MetricsServer(vllm_text(running=4, waiting=2)) as second,
        MetricsServer(hang) as silent,
        MetricsServer("x" * 100_000) as flood,
        MetricsServer("what is this?\n") as strange,
        MetricsServer("up 1\n") as another,
        MetricsServer("", status=503) as ill,
    ):
        bad = (silent, flood, strange, another, ill)
        try:
            scraper = ReplicaScraper(
                [one.url for one in (first, second, *bad[:2])],
                slo=SLO,
                timeout_s=1.0,
                limit_bytes=50_000,
                clock=lambda: 10.0,
            )
            seen = await scraper.observe(FleetState(desired=2, ready=2, starting=1), time_s=10.0)
            assert (seen.ready, seen.starting) == (2, 1)
            assert (seen.running_requests, seen.waiting_requests) == (7, 3)
            assert len(scraper.trouble) == 2
            one = ReplicaScraper([two.url for two in bad], slo=SLO, timeout_s=0.5, limit_bytes=50_000)
            seen = await one.observe(None, time_s=10.0)
            assert seen.ready is None
            assert seen.waiting_requests is None
            assert len(one.trouble) == 5
            assert any("503" in told for told in one.trouble)
            assert any("no metrics of vLLM" in told for told in one.trouble)
        finally:
            stop.set()


async def test_addresses_come_from_the_fleet() -> None:
    with MetricsServer(vllm_text(waiting=5)) as server:
        port = int(server.url.rpartition(":")[2])
        scraper = ReplicaScraper(slo=SLO, port=port, clock=lambda: 1.0)
        fleet = FleetState(
            desired=2,
            ready=1,
            replicas=(
                Replica(replica_id="a", state="ready", address="127.0.0.1"),
                Replica(replica_id="b", state="starting", address="127.0.0.2"),
            ),
        )
        seen = await scraper.observe(fleet, time_s=1.0)
        assert seen.waiting_requests == 5
        assert server.requests == [("/metrics", "")]
        assert (await scraper.observe(None, time_s=2.0)).waiting_requests is None


def test_what_cannot_be_scraped_is_refused() -> None:
    with pytest.raises(InvalidInputError):
        ReplicaScraper(["ftp://somewhere"], slo=SLO)
    with pytest.raises(InvalidInputError):
        ReplicaScraper("http://somewhere", slo=SLO)
    with pytest.raises(InvalidInputError):
        PrometheusObserver("http://prometheus:9090", slo=SLO, replica_label='x"}')


class _Prometheus:
    """Answers instant queries as Prometheus does: series of two replicas, one of them scraped long ago."""

    def __init__(self) -> None:
        self.replicas = {"10.0.0.1:8000": (100.0, vllm_text(waiting=4, finished=10))}

    def answer(self, query: str) -> str:
        rows = []
        for instance, (at_s, text) in self.replicas.items():
            if query.startswith("max by"):
                rows.append({"metric": {"instance": instance}, "value": [200.0, str(at_s)]})
                continue
            for one in samples(text):
                metric = {"__name__": one.name, "instance": instance, **one.labels}
                rows.append({"metric": metric, "value": [200.0, f"{one.value:g}"]})
        return json.dumps({"status": "success", "data": {"resultType": "vector", "result": rows}})


async def test_one_prometheus_for_the_fleet() -> None:
    prometheus = _Prometheus()
    server: MetricsServer

    def text() -> str:
        return prometheus.answer(parse_qs(server.requests[-1][1])["query"][0])

    with MetricsServer(text) as server:
        observer = PrometheusObserver(server.url, slo=SLO, matchers={"namespace": 'a"b'})
        await observer.observe(None, time_s=101.0)
        path, body = server.requests[0]
        query = parse_qs(body)["query"][0]
        assert path == "/api/v1/query"
        assert 'namespace="a\\"b"' in query
        assert "vllm:num_requests_waiting" in query
        prometheus.replicas = {
            "10.0.0.1:8000": (110.0, vllm_text(waiting=4, finished=30)),
            "10.0.0.2:8000": (30.0, vllm_text(waiting=400)),
        }
        seen = await observer.observe(None, time_s=112.0)
        assert seen.request_rate == 2.0
        assert seen.waiting_requests == 4
        assert observer.trouble == ("10.0.0.2:8000 was last scraped 80 s ago",)


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("<html>", 200),
        ('{"status": "error"}', 422),
        ('{"status": "success", "data": {"resultType": "matrix", "result": []}}', 200),
        (
            '{"status": "success", "data": {"resultType": "vector", "result": [{"metric": {}, "value": []}]}}',
            200,
        ),
        ('{"status": "success", "data": {"resultType": "vector", "result": [3]}}', 200),
        ("[]", 200),
    ],
)
async def test_what_is_no_prometheus_is_told(text: str, status: int) -> None:
    with MetricsServer(text, status=status) as server, pytest.raises(ProviderUnavailableError):
        await PrometheusObserver(server.url, slo=SLO).observe(None, time_s=0.0)
