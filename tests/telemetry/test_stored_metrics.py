"""What a scrape says of a repository is what lies in it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from textnlp_fast.storage import Repository, TransferOptions

prometheus_client = pytest.importorskip("prometheus_client")

from textnlp_fast.storage.stored_metrics import RepositoryMetrics  # noqa: E402


def write_model(path: Path, seed: int, size: int = 50_000) -> Path:
    header = f'{{"w":{{"dtype":"U8","shape":[{size}],"data_offsets":[0,{size}]}}}}'.encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + np.random.default_rng(seed).bytes(size))
    return path


def test_a_scrape_counts_what_is_there(tmp_path: Path) -> None:
    repository = Repository.open(
        tmp_path / "r", create=True, options=TransferOptions(shard_bytes=1 << 16, threads=1)
    )
    registry = prometheus_client.CollectorRegistry()
    registry.register(RepositoryMetrics(repository))
    assert registry.get_sample_value("textnlp_fast_model_versions", {"model": "a"}) is None
    for number, (model, version) in enumerate([("a", "1.0.0"), ("a", "1.1.0"), ("org/b", "1.0.0")]):
        repository.push(write_model(tmp_path / "m.safetensors", number), model, version)

    def value(name: str, model: str) -> float | None:
        found: float | None = registry.get_sample_value(f"textnlp_fast_model_{name}", {"model": model})
        return found

    assert (value("versions", "a"), value("versions", "org/b")) == (2, 1)
    objects = sum(path.stat().st_size for path in (tmp_path / "r" / "objects").rglob("*") if path.is_file())
    assert (value("stored_bytes", "a") or 0) + (value("stored_bytes", "org/b") or 0) == objects
    assert value("raw_bytes", "org/b") == (tmp_path / "m.safetensors").stat().st_size
    (tmp_path / "r/models/a/versions/1.1.0.json").write_text("{}")
    registry = prometheus_client.CollectorRegistry()
    registry.register(RepositoryMetrics(Repository.open(tmp_path / "r")))
    assert (value("versions", "a"), value("unreadable_versions", "a")) == (1, 1)
