"""A repository's whole journey on every server: as it should be, through a bad network, and killed on the way."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from faults.proxy import FaultProxy
from servers import Place
from textnlp_fast.storage import Repository, StorageConfig, TransferOptions, UnifiedModelStorage

OPTIONS = TransferOptions(shard_bytes=1 << 16, threads=2)
PROVIDERS = {"s3": "aws", "gs": "gcp", "az": "azure"}
PUSH = """
import sys
from textnlp_fast.objectstore import open_store
from textnlp_fast.storage import Repository, TransferOptions
url, endpoint, source = sys.argv[1:]
store = open_store(url, endpoint_url=endpoint, timeout_s=100)
Repository(store, TransferOptions(shard_bytes=1 << 16, threads=2)).push(source, "m", "1.0.0")
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Manifests of remote repositories are kept here."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


async def test_the_journey(tmp_path: Path, place: Place, makers: Any) -> None:
    config = StorageConfig(
        provider=PROVIDERS[place.url[:2]],  # type: ignore[arg-type]
        bucket_name=place.bucket,
        prefix="models",
        endpoint_url=place.endpoint_url,
    )
    storage = UnifiedModelStorage(config)
    tensors = makers.tensors(rows=512)
    makers.directory(tmp_path / "1", tensors)
    makers.directory(tmp_path / "2", makers.nudge(tensors, 1))
    await storage.upload_model(tmp_path / "1", "org/m", "1.0.0")
    second = await storage.upload_model(tmp_path / "2", "org/m", "1.1.0")
    assert second.stored_bytes < second.raw_bytes / 2
    again = UnifiedModelStorage(config)
    await again.download_model("org/m", "1.0.0", tmp_path / "out")
    assert makers.tree(tmp_path / "out") == makers.tree(tmp_path / "1")
    update = await again.download_model("org/m", "1.1.0", tmp_path / "out")
    assert makers.tree(tmp_path / "out") == makers.tree(tmp_path / "2")
    assert update.fetched_bytes <= second.stored_bytes
    assert (await again.verify()).ok
    assert await again.list_models() == ["org/m"]
    assert [row.version for row in Repository(place.open("models")).log("org/m")] == ["1.0.0", "1.1.0"]


@pytest.mark.parametrize("place", ["ministack", "azurite", "gcs"], indirect=True)
@pytest.mark.parametrize("kind", ["lose_answer", "lose_request", "status", "status_after"])
def test_a_push_through_a_bad_network(tmp_path: Path, place: Place, makers: Any, kind: Any) -> None:
    source = makers.write(tmp_path / "in" / "m.safetensors", makers.tensors(rows=256))
    with place.through() as (proxy, endpoint):
        repository = Repository(place.open(endpoint_url=endpoint, retries=3), OPTIONS)
        repository.push(source, "warm-up", "1.0.0")
        writes = sum(method == place.put for method, _ in proxy.requests)
        first, last = (
            proxy.inject(place.write_fault(kind, after=after)) for after in (0, writes - 3)
        )  # the repository is there, and so are the objects
        makers.write(source, makers.tensors(rows=256, seed=5))
        report = repository.push(source, "m", "1.0.0")
        assert not report.already_there  # a lost answer does not look like another writer
        repository.pull("m", "1.0.0", tmp_path / "out")
        assert makers.tree(tmp_path / "out") == makers.tree(tmp_path / "in")
        assert first.hits == 1
        assert last.hits <= 1
        assert repository.verify().ok


@pytest.mark.parametrize("place", ["ministack", "radosgw", "azurite", "gcs"], indirect=True)
def test_a_killed_push_leaves_nothing_half_and_is_gone_on_with(
    tmp_path: Path, place: Place, makers: Any
) -> None:
    source = makers.write(tmp_path / "in" / "m.safetensors", makers.tensors(rows=256))
    with place.through() as (proxy, endpoint):
        Repository(place.open("counted", endpoint_url=endpoint), OPTIONS).push(source, "m", "1.0.0")
        writes = proxy.count(place.put)
        assert writes > 3
        for number in (writes // 2, writes - 1):  # among the objects; and the manifest itself, just written
            assert killed_at_write(number, place, f"killed-{number}", proxy, endpoint, source)
            repository = Repository(place.open(f"killed-{number}"), OPTIONS)
            published = number == writes - 1
            assert {name: list(versions) for name, versions in repository.models().items()} == (
                {"m": ["1.0.0"]} if published else {}
            )
            assert repository.verify().ok
            report = repository.push(source, "m", "1.0.0")
            assert report.already_there == published
            repository.pull("m", "1.0.0", tmp_path / f"out-{number}")
            assert makers.tree(tmp_path / f"out-{number}") == makers.tree(tmp_path / "in")
            assert repository.verify().ok


def killed_at_write(
    number: int, place: Place, folder: str, proxy: FaultProxy, endpoint: str, source: Path
) -> bool:
    """Push in another process and kill it when the server has done write ``number``, before it hears of it."""
    process = subprocess.Popen(
        [sys.executable, "-c", PUSH, f"{place.url}/{folder}", endpoint, str(source)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    proxy.inject(place.write_fault("lose_answer", after=number, meanwhile=process.kill))
    try:
        _, errors = process.communicate(timeout=120)
    finally:
        process.kill()
        proxy.heal()
    assert not errors, errors
    return process.returncode == -9
