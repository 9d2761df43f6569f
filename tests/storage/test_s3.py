"""A repository on a real S3 server whose network fails for good, flips bits, or is asked too often."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from faults.proxy import Fault, FaultProxy
from servers import S3Server
from textnlp_fast.errors import CorruptDataError, InvalidInputError, StorageUnavailableError
from textnlp_fast.objectstore import open_store
from textnlp_fast.storage import Repository, TransferOptions

OPTIONS = TransferOptions(shard_bytes=1 << 16, threads=2)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where manifests of remote repositories are kept."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_bucket_that_is_gone_publishes_nothing(
    tmp_path: Path, s3_bucket: str, s3_server: S3Server, fault_proxy: FaultProxy, makers: Any
) -> None:
    source = makers.write(tmp_path / "m.safetensors", makers.tensors())
    store = open_store(f"s3://{s3_bucket}", endpoint_url=fault_proxy.endpoint_url, retries=1, timeout_s=1)
    fault_proxy.inject(Fault("status", method="PUT", path="objects", times=1000))
    with pytest.raises(StorageUnavailableError) as caught:
        Repository(store, OPTIONS).push(source, "m", "1.0.0")
    assert "Nothing was published" in caught.value.hint
    direct = Repository(open_store(f"s3://{s3_bucket}", endpoint_url=s3_server.endpoint_url), OPTIONS)
    assert direct.models() == {}
    assert direct.push(source, "m", "1.0.0").uploaded_bytes > 0
    assert direct.verify().ok


def test_a_bit_that_flips_on_the_way_is_noticed(
    tmp_path: Path, s3_bucket: str, fault_proxy: FaultProxy, makers: Any
) -> None:
    source = makers.write(tmp_path / "m.safetensors", makers.tensors())
    store = open_store(f"s3://{s3_bucket}", endpoint_url=fault_proxy.endpoint_url, retries=1, timeout_s=2)
    repository = Repository(store, OPTIONS)
    repository.push(source, "m", "1.0.0")
    fault_proxy.inject(Fault("corrupt_answer", method="GET", path="objects/", times=1000))
    with pytest.raises(CorruptDataError):
        repository.pull("m", "1.0.0", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_manifests_are_kept_and_a_rotten_cache_does_no_harm(
    tmp_path: Path, s3_bucket: str, fault_proxy: FaultProxy, makers: Any, cache: Path
) -> None:
    source = makers.write(tmp_path / "m.safetensors", makers.tensors())
    url, options = f"s3://{s3_bucket}", {"endpoint_url": fault_proxy.endpoint_url}
    Repository(open_store(url, **options), OPTIONS).push(source, "m", "1.0.0")

    def manifest_reads() -> int:
        before = len(fault_proxy.requests)
        Repository(open_store(url, **options), OPTIONS).log("m")
        new = fault_proxy.requests[before:]
        return sum(method == "GET" and path.endswith("1.0.0.json") for method, path in new)

    assert manifest_reads() == 1
    assert manifest_reads() == 0
    (kept,) = (path for path in cache.rglob("*") if path.is_file())
    data = bytearray(kept.read_bytes())
    data[len(data) // 2] ^= 4
    kept.write_bytes(data)
    assert manifest_reads() == 1
    assert manifest_reads() == 0


def test_no_repository_is_made_where_conditions_are_ignored(
    tmp_path: Path, s3_bucket: str, s3_server: S3Server, fault_proxy: FaultProxy, makers: Any
) -> None:
    source = makers.write(tmp_path / "m.safetensors", makers.tensors())
    store = open_store(f"s3://{s3_bucket}", endpoint_url=fault_proxy.endpoint_url)
    fault_proxy.inject(Fault("ignore_conditions", method="PUT", times=1000))
    with pytest.raises(InvalidInputError, match="two writers could publish the same version"):
        Repository(store, OPTIONS).push(source, "m", "1.0.0")
    assert list(open_store(f"s3://{s3_bucket}", endpoint_url=s3_server.endpoint_url).list()) == []
