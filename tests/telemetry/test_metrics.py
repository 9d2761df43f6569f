"""What Prometheus would scrape is what was really done."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from faults.proxy import Fault, FaultProxy
from textnlp_fast import load
from textnlp_fast.objectstore import open_store
from textnlp_fast.objectstore.local import LocalBackend
from textnlp_fast.storage import Repository, TransferOptions
from textnlp_fast.telemetry import operation

prometheus_client = pytest.importorskip("prometheus_client")
from prometheus_client.parser import text_string_to_metric_families  # noqa: E402

from textnlp_fast.telemetry.metrics import MOST_MODELS, enable_metrics  # noqa: E402
from textnlp_fast.telemetry.textfile import add_to_file, metrics_file  # noqa: E402

OPTIONS = TransferOptions(shard_bytes=1 << 16, threads=2)


class Scrape:
    """An exposition, read by Prometheus' own parser."""

    def __init__(self, text: str) -> None:
        self.samples = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def __call__(self, name: str, **labels: str) -> float:
        return self.samples.get((f"textnlp_fast_{name}", frozenset(labels.items())), 0.0)


@pytest.fixture
def registry() -> Iterator[Any]:
    registry = prometheus_client.CollectorRegistry()
    stop = enable_metrics(registry)
    yield registry
    stop()


def scraped(registry: Any) -> Scrape:
    return Scrape(prometheus_client.generate_latest(registry).decode())


def write_model(path: Path, seed: int = 0, size: int = 200_000) -> Path:
    header = f'{{"w":{{"dtype":"U8","shape":[{size}],"data_offsets":[0,{size}]}}}}'.encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + np.random.default_rng(seed).bytes(size))
    return path


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of all that is written to folders, as those who write it see them."""
    sizes: list[int] = []
    for name in ("put", "put_if_absent", "put_if_version"):
        write = getattr(LocalBackend, name)

        def weighing(self: Any, key: str, data: Any, *arguments: Any, write: Any = write) -> Any:
            result = write(self, key, data, *arguments)
            sizes.append(len(data))
            return result

        monkeypatch.setattr(LocalBackend, name, weighing)
    return sizes


def test_a_push_and_a_pull_are_counted_as_they_were(
    tmp_path: Path, registry: Any, written: list[int]
) -> None:
    place = tmp_path / "r"
    repository = Repository.open(place, create=True, options=OPTIONS)
    written.clear()
    model = write_model(tmp_path / "m.safetensors")
    report = repository.push(model, "m", "1.0.0")
    again = repository.push(model, "m", "1.1.0")
    found = scraped(registry)
    assert found("bytes_written_total", operation="push") == sum(written)
    assert found("bytes_saved_total", operation="push") == (
        max(0, report.raw_bytes - report.uploaded_bytes) + again.raw_bytes
    )
    assert found("versions_total", model="m") == 2
    assert found("stored_bytes_total", model="m") == report.stored_bytes + again.stored_bytes
    assert found("operations_total", operation="push", outcome="ok") == 2
    assert found("operation_seconds_count", operation="push") == 2
    assert (
        0
        < found("operation_seconds_sum", operation="push")
        >= found("phase_seconds_sum", operation="push", phase="hash")
    )
    assert found("phase_seconds_count", operation="push", phase="publish") == 2
    fresh = Repository.open(place, options=OPTIONS)
    pulled = fresh.pull("m", "1.0.0", tmp_path / "out")
    kept = fresh.pull("m", "1.0.0", tmp_path / "out")
    manifest = (place / "models/m/versions/1.0.0.json").stat().st_size
    own = (place / "repository.json").stat().st_size
    found = scraped(registry)
    assert kept.fetched_bytes == 0
    assert found("bytes_read_total", operation="pull") == pytest.approx(
        pulled.fetched_bytes + manifest, abs=own
    )
    saved = kept.raw_bytes + max(0, pulled.raw_bytes - pulled.fetched_bytes)
    assert found("bytes_saved_total", operation="pull") == saved
    assert found("cache_hits_total", operation="pull") == 1  # the second asked for a manifest that was known
    assert found("operations_running", operation="pull") == 0


def test_failures_are_counted_by_their_class(tmp_path: Path, registry: Any) -> None:
    repository = Repository.open(tmp_path / "r", create=True)
    for path in (tmp_path / "nothing", tmp_path / "neither"):
        with pytest.raises((OSError, ValueError)):
            repository.push(path, "m", "1.0.0")
    found = scraped(registry)
    failed = {
        dict(labels)["outcome"]: value
        for (name, labels), value in found.samples.items()
        if name.endswith("operations_total")
    }
    assert sum(failed.values()) == 2
    assert "ok" not in failed
    assert found("versions_total", model="m") == 0
    with pytest.raises(KeyError), operation("pull"):
        raise KeyError
    assert scraped(registry)("operations_total", operation="pull", outcome="other") == 1


def test_retries_are_those_that_the_network_made_necessary(
    tmp_path: Path, registry: Any, s3_bucket: str, fault_proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    store = open_store(f"s3://{s3_bucket}", endpoint_url=fault_proxy.endpoint_url, retries=3, timeout_s=5)
    fault = fault_proxy.inject(Fault("status", method="PUT", path="versions", times=2))
    Repository(store, OPTIONS).push(write_model(tmp_path / "m.safetensors"), "m", "1.0.0")
    assert fault.hits == 2
    assert scraped(registry)("retries_total", operation="push") == 2


def test_a_load_is_counted_with_what_its_cache_had(tmp_path: Path, registry: Any) -> None:
    repository = Repository.open(tmp_path / "r", create=True, options=OPTIONS)
    repository.push(write_model(tmp_path / "m.safetensors"), "m", "1.0.0")
    for _ in range(2):
        load("m", "1.0.0", repository=repository, cache=tmp_path / "cache")
    found = scraped(registry)
    assert found("operations_total", operation="load", outcome="ok") == 2
    assert found("cache_hits_total", operation="load") >= 1
    assert found("cache_misses_total", operation="load") >= 1


def test_labels_are_bounded_whatever_names_there_are(registry: Any) -> None:
    def publish(first: int) -> None:
        for number in range(first, first + 300):
            with operation(f"verb-{number}", model=f"model-{number}") as op:
                op.count(versions=1, bytes_read=1)
                op.stores(1)

    threads = [threading.Thread(target=publish, args=(300 * number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = scraped(registry)
    models = {
        dict(labels).get("model") for (name, labels) in found.samples if name == "textnlp_fast_versions_total"
    }
    assert len(models) == MOST_MODELS + 1
    assert found("versions_total", model="other") == 1200 - MOST_MODELS
    assert len(found.samples) < 5000
    assert sum(v for (name, _), v in found.samples.items() if name == "textnlp_fast_bytes_read_total") == 1200


def test_odd_names_survive_the_exposition(registry: Any, tmp_path: Path) -> None:
    name = 'a"b\\c\nd'
    with operation("push", model=name) as op:
        op.count(versions=1)
    assert scraped(registry)("versions_total", model=name) == 1
    for _ in range(2):
        add_to_file(registry, tmp_path / "m.prom")
    assert Scrape((tmp_path / "m.prom").read_text())("versions_total", model=name) == 2


def test_a_file_adds_up_what_commands_did(tmp_path: Path) -> None:
    path = tmp_path / "metrics" / "m.prom"
    path.parent.mkdir()
    for number in range(3):
        with metrics_file(path), operation("pull") as op:
            op.count(bytes_read=number)
    found = Scrape(path.read_text())
    assert found("bytes_read_total", operation="pull") == 3
    assert found("operations_total", operation="pull", outcome="ok") == 3
    assert found("operation_seconds_bucket", operation="pull", le="+Inf") == 3
    with operation("pull") as op:  # nobody listens any more
        op.count(bytes_read=5)
    assert Scrape(path.read_text())("bytes_read_total", operation="pull") == 3


def test_commands_that_end_together_are_all_counted(tmp_path: Path) -> None:
    path = tmp_path / "m.prom"

    def command() -> None:
        for _ in range(5):
            registry = prometheus_client.CollectorRegistry()
            prometheus_client.Counter("x", "x", registry=registry).inc()
            add_to_file(registry, path)

    threads = [threading.Thread(target=command) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert "x_total 40.0" in path.read_text()
    assert sorted(file.name for file in tmp_path.iterdir()) == [".m.prom.lock", "m.prom"]


@pytest.mark.parametrize("spoilt", [b"", b"\xff\xfe", b"x{", b"# TYPE x counter\nx_total one\n", b"\0" * 100])
def test_a_spoilt_file_is_begun_anew(tmp_path: Path, spoilt: bytes) -> None:
    path = tmp_path / "m.prom"
    path.write_bytes(spoilt)
    with metrics_file(path), operation("pull"):
        pass
    assert Scrape(path.read_text())("operations_total", operation="pull", outcome="ok") == 1
