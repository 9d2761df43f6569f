"""Settings as an observer: what Prometheus says of the replicas, and of what waits before them."""

from __future__ import annotations

import pytest

from integrations.prometheus_fake import prometheus
from textnlp_fast.errors import ProviderUnavailableError
from textnlp_fast.integrations.fleet_settings import FleetSettings, read_fleet
from textnlp_fast.integrations.observing import prometheus_observer
from textnlp_fast.integrations.policy_settings import SettingError


def settings(url: str, **others: str) -> FleetSettings:
    return read_fleet({"metricsUrl": url, **others})


def test_replicas_that_are_heard_are_ready_and_their_queues_are_summed() -> None:
    with prometheus() as server:
        look = prometheus_observer(settings(server.url, metricsLabels="namespace=prod", model="llama"))
        server.replicas = {"a:8000": (3, 5), "b:8000": (1, 2)}
        seen = look()
        assert (seen.ready, seen.waiting_requests, seen.running_requests) == (2, 4.0, 7.0)
        assert all('namespace="prod"' in query for query in server.queries)


def test_what_waits_in_the_gateway_counts_also_where_no_replica_is() -> None:
    with prometheus() as server:
        look = prometheus_observer(settings(server.url, waitingQuery="sum(gateway_queue)"))
        assert (look().ready, look().waiting_requests) == (0, None)
        for gateway, waiting in ((0.0, 0.0), (6.0, 6.0), (-1.0, 0.0)):
            server.gateway = gateway
            assert (look().ready, look().waiting_requests) == (0, waiting)
        server.replicas = {"a:8000": (3, 5)}
        server.gateway = 6.0
        assert look().waiting_requests == 9.0


def test_a_prometheus_that_is_ill_is_an_error_and_not_a_fleet_of_none() -> None:
    with prometheus() as server:
        server.broken = True
        with pytest.raises(ProviderUnavailableError, match="answered 500"):
            prometheus_observer(settings(server.url))()
    with pytest.raises(ProviderUnavailableError):
        prometheus_observer(settings(server.url))()


@pytest.mark.parametrize(
    ("url", "fine"),
    [
        ("http://prometheus.monitoring:9090", True),
        ("http://PROMETHEUS.monitoring:9090", True),
        ("http://prometheus.monitoring.evil.com", False),
        ("http://169.254.169.254/latest/meta-data", False),
        ("http://localhost:8080", False),
    ],
)
def test_addresses_that_may_not_be_asked_are_refused_before_they_are(url: str, fine: bool) -> None:
    allowed = ["prometheus.monitoring", "*.example.com"]
    if fine:
        assert callable(prometheus_observer(settings(url), allowed_hosts=allowed))
        return
    with pytest.raises(SettingError, match="metricsUrl: this scaler may not ask"):
        prometheus_observer(settings(url), allowed_hosts=allowed)
