"""A trigger's metadata: what it may say, and that each mistake is told with its field."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from textnlp_fast.gpu.scaling.policy import ScalingPolicy
from textnlp_fast.integrations.fleet_settings import FleetSettings, read_fleet
from textnlp_fast.integrations.policy_settings import SettingError

URL = {"metricsUrl": "http://prometheus:9090"}


def test_nothing_but_an_address_gives_the_defaults() -> None:
    assert read_fleet(URL) == FleetSettings(
        policy=ScalingPolicy(), metrics_url="http://prometheus:9090", metrics_labels={}
    )


def test_all_of_it() -> None:
    settings = read_fleet(
        {
            "scalerAddress": "scaler:6000",
            "enableTLS": "true",
            "metricsUrlFromEnv": "https://prometheus/select/0",
            "model": "llama",
            "metricsLabels": "namespace=prod, service = llm",
            "waitingQuery": 'sum(gateway_queue{model="llama"})',
            "metricName": "llama.replicas",
            "hpaTolerance": "0",
            "holdS": "120",
            "minInstances": "0",
            "maxInstances": "24",
            "sloAttainment": "0.995",
            "queueWaitS": "2.5",
            "usdPerHour": "1.2",
            "budgetUsdPerHour": "20",
            "capacityConcurrency": "16",
            "coldStartWeightsS": "35",
            "schedule": '[{"instances": 4, "begin_hour": 8, "end_hour": 20, "weekdays": [0, 1]}]',
        }
    )
    assert (settings.metrics_url, settings.model, settings.metric_name) == (
        "https://prometheus/select/0",
        "llama",
        "llama.replicas",
    )
    assert settings.metrics_labels == {"namespace": "prod", "service": "llm"}
    assert settings.waiting_query == 'sum(gateway_queue{model="llama"})'
    assert (settings.hpa_tolerance, settings.hold_s) == (0.0, 120.0)
    policy = settings.policy
    assert (policy.min_instances, policy.max_instances, policy.slo_attainment) == (0, 24, 0.995)
    assert (policy.queue_wait_s, policy.budget_usd_per_hour) == (2.5, 20.0)
    assert (policy.capacity.concurrency, policy.capacity.requests_per_s) == (16.0, None)
    assert (policy.cold_start.weights_s, policy.cold_start.warm_up_s) == (35.0, 30.0)
    assert [(one.instances, one.weekdays) for one in policy.schedule] == [(4, (0, 1))]


@pytest.mark.parametrize(
    ("metadata", "field", "says"),
    [
        ({"metricsUrl": ""}, "metricsUrl", "no http or https address"),
        ({"metricsUrl": "file:///etc/passwd"}, "metricsUrl", "no http or https address"),
        ({"metricsUrl": "http://[::1"}, "metricsUrl", "no http or https address"),
        ({"metricsUrl": "http://a:99999"}, "metricsUrl", "no http or https address"),
        ({"metricsUrl": "http://me:secret@prometheus"}, "metricsUrl", "must not hold a user name"),
        ({"minInstances": "three"}, "minInstances", "a whole number"),
        ({"minInstances": "1.5"}, "minInstances", "a whole number"),
        ({"maxInstances": "0"}, "maxInstances", "at least 1"),
        ({"minInstances": "11"}, "minInstances", "more than max_instances"),
        ({"sloAttainment": "99.9"}, "sloAttainment", "below 1"),
        ({"sloAttainment": "nan"}, "sloAttainment", "a number"),
        ({"periodS": "1_0"}, "periodS", "a number"),
        ({"periodS": "１０"}, "periodS", "a number"),
        ({"periodS": "9" * 40_000}, "periodS", "longer than"),
        ({"caCert": "9" * 40_000}, "caCert", "longer than"),
        ({"minInstance": "1"}, "minInstance", "no such setting"),
        ({"capacityConcurrency": "-1"}, "capacityConcurrency", "more than 0"),
        ({"coldStartWarmUpS": "-1"}, "coldStartWarmUpS", "at least 0"),
        ({"schedule": "{"}, "schedule", "cannot be read"),
        ({"schedule": '[{"instances": -1, "begin_hour": 1, "end_hour": 2}]'}, "schedule", "instances"),
        ({"schedule": "[" * 3000}, "schedule", "cannot be read"),
        ({"hpaTolerance": "10"}, "hpaTolerance", "between 0 and 1"),
        ({"metricsLabels": "a"}, "metricsLabels", "cannot be read"),
        ({"metricsLabels": "a=1,a=2"}, "metricsLabels", "cannot be read"),
        ({"metricsLabels": 'a"}=1'}, "metricsLabels", "cannot be read"),
        ({"holdS": "-1"}, "holdS", "between 0"),
        ({"metricName": "a b"}, "metricName", "letters, digits"),
        ({"budgetUsdPerHour": "3"}, "budgetUsdPerHour", "needs usd_per_hour"),
        ({"maxInstances": "3", "maxInstancesFromEnv": "4"}, "maxInstancesFromEnv", "given twice"),
        ({"metricsUrlFromEnv": "http://b"}, "metricsUrlFromEnv", "given twice"),
    ],
)
def test_each_mistake_is_told_with_its_field(metadata: dict[str, str], field: str, says: str) -> None:
    with pytest.raises(SettingError) as caught:
        read_fleet({**URL, **metadata})
    assert caught.value.field == field
    assert str(caught.value).startswith(f"{field}: ")
    assert says in str(caught.value)
    assert "secret" not in str(caught.value)


def test_without_an_address_it_is_said_what_to_write() -> None:
    with pytest.raises(SettingError, match="metricsUrl: is missing"):
        read_fleet({"minInstances": "1"})


WORDS = st.sampled_from(
    ["minInstances", "max_instances", "periodS", "schedule", "capacityConcurrency", "holdS"]
)
TEXTS = st.text(max_size=60) | st.integers().map(str) | st.floats().map(str)


@given(st.dictionaries(st.text(max_size=30) | WORDS, TEXTS, max_size=5), st.booleans())
def test_anything_is_read_or_refused_with_a_field(metadata: dict[str, str], with_url: bool) -> None:
    try:
        read_fleet({**metadata, **(URL if with_url else {})})
    except SettingError as error:
        assert error.field in {*metadata, "metricsUrl"}
