"""`gpu keda` and `gpu external-metrics` as processes, asked as KEDA and Kubernetes ask, with a Prometheus behind."""

from __future__ import annotations

import importlib.util
import json
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from integrations.prometheus_fake import prometheus

grpc: Any = pytest.importorskip("grpc", reason="needs grpcio")

POLICY = pytest.mark.skipif(
    importlib.util.find_spec("textnlp_fast.gpu.scaling.engine") is None, reason="needs the scaling engine"
)


@contextmanager
def serving(*arguments: str) -> Iterator[str]:
    """The address that the command says it serves on; the command ends well when it is told to."""
    process = subprocess.Popen(
        [sys.executable, "-m", "textnlp_fast.cli", "gpu", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            pytest.fail(process.communicate(timeout=20)[1])
        yield line.split(" on ")[1].split()[0]
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=30)
        assert process.returncode == 0, errors
    finally:
        process.kill()
        process.communicate()


def ask(channel: Any, method: str, request: Any, answer: str) -> Any:
    from textnlp_fast.integrations.keda.messages import CLASSES, SERVICE  # noqa: PLC0415

    stub = channel.unary_unary(
        f"/{SERVICE}/{method}",
        request_serializer=lambda one: one.SerializeToString(),
        response_deserializer=CLASSES[answer].FromString,
    )
    return stub(request, timeout=20)


def reference(**metadata: str) -> Any:
    from textnlp_fast.integrations.keda.messages import CLASSES  # noqa: PLC0415

    return CLASSES["ScaledObjectRef"](name="llm", namespace="prod", scalerMetadata=metadata)


def test_keda_is_served_and_mistakes_in_its_metadata_are_told() -> None:
    command = ("keda", "--listen", "127.0.0.1:0", "--allow-host", "prometheus")
    with serving(*command) as address, grpc.insecure_channel(address) as channel:
        for metadata, field in (
            ({}, "metricsUrl: is missing"),
            ({"metricsUrl": "http://prometheus", "maxInstances": "x"}, "maxInstances: must be"),
            ({"metricsUrl": "http://169.254.169.254"}, "metricsUrl: this scaler may not ask"),
        ):
            with pytest.raises(grpc.RpcError) as caught:
                ask(channel, "IsActive", reference(**metadata), "IsActiveResponse")
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert caught.value.details().startswith(field)


@POLICY
def test_our_policy_asks_for_more_when_prometheus_tells_of_more() -> None:
    with prometheus() as metrics, serving("keda", "--listen", "127.0.0.1:0") as address:
        metrics.replicas = {"a:8000": (0, 4)}
        metadata = {
            "metricsUrl": metrics.url,
            "periodS": "0.1",
            "maxInstances": "30",
            "capacityConcurrency": "8",
            "hpaTolerance": "0",
        }
        request = {"scaledObjectRef": reference(**metadata), "metricName": "textnlp-fast-replicas"}
        from textnlp_fast.integrations.keda.messages import CLASSES  # noqa: PLC0415

        with grpc.insecure_channel(address) as channel:

            def wanted() -> float:
                answer = ask(
                    channel, "GetMetrics", CLASSES["GetMetricsRequest"](**request), "GetMetricsResponse"
                )
                return float(answer.metricValues[0].metricValueFloat)

            first = wanted()
            assert 1 <= first <= 4
            assert ask(channel, "IsActive", reference(**metadata), "IsActiveResponse").result is True
            metrics.replicas = {"a:8000": (90, 8)}
            deadline_s = time.monotonic() + 30
            while wanted() < 12:
                assert time.monotonic() < deadline_s, wanted()
                time.sleep(0.05)


@POLICY
def test_an_hpa_reads_its_metric(tmp_path: Path) -> None:
    with prometheus() as metrics:
        metrics.replicas = {"a:8000": (0, 4)}
        fleets = tmp_path / "fleets.yaml"
        settings = {
            "metricsUrl": metrics.url,
            "metricName": "llm-replicas",
            "periodS": 0.1,
            "minInstances": 2,
        }
        fleets.write_text(json.dumps({"fleets": [{"namespace": "prod", "settings": settings}]}))
        with serving("external-metrics", "--fleets", str(fleets), "--listen", "127.0.0.1:0") as address:
            path = "/apis/external.metrics.k8s.io/v1beta1/namespaces/prod/llm-replicas"
            with urllib.request.urlopen(f"http://{address}{path}", timeout=20) as answer:
                (item,) = json.load(answer)["items"]
            assert int(item["value"]) >= 2


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["keda", "--listen", "6000"], "not HOST:PORT"),
        (["keda", "--tls-cert", __file__], "needs its key"),
        (["external-metrics", "--fleets", __file__], "cannot be read"),
        (["external-metrics"], "--fleets"),
    ],
)
def test_mistakes_are_told(arguments: list[str], says: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "textnlp_fast.cli", "gpu", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert says in done.stderr
