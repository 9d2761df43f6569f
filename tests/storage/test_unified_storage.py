"""The asynchronous face, as the project's specification writes it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from textnlp_fast.errors import InvalidInputError, ModelNotFoundError
from textnlp_fast.storage import StorageConfig, UnifiedModelStorage


async def test_the_example_of_the_specification(
    tmp_path: Path, makers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    source = makers.write(tmp_path / "model.safetensors", makers.tensors())
    storage = UnifiedModelStorage(
        StorageConfig(
            provider="local", bucket_name="textnlp-models", enable_sharding=True, enable_versioning=True
        )
    )
    await storage.upload_model(model_path="model.safetensors", model_name="custom-llm", version="1.0.0")
    assert (tmp_path / "textnlp-models" / "repository.json").is_file()
    await storage.download_model("custom-llm", "1.0.0", "out")
    assert makers.tree(tmp_path / "out")["model.safetensors"] == source.read_bytes()


@pytest.mark.parametrize("provider", ["local", "memory"])
async def test_every_call(tmp_path: Path, makers: Any, provider: Any) -> None:
    config = StorageConfig(
        provider=provider, bucket_name=f"bucket-{provider}", prefix="a/b", root=tmp_path, threads=2
    )
    storage = UnifiedModelStorage(config)
    tensors = makers.tensors()
    first = makers.write(tmp_path / "1" / "m.safetensors", tensors)
    second = makers.write(tmp_path / "2" / "m.safetensors", makers.nudge(tensors, 1))
    await storage.upload_model(first, "m", "1.0.0")
    report = await storage.upload_model(second, "m", "1.1.0", message="nudged")
    assert report.parent == "m@1.0.0"
    assert await storage.list_models() == ["m"]
    assert [row.version for row in await storage.list_versions("m")] == ["1.0.0", "1.1.0"]
    rows = await storage.diff("m", "1.0.0", "1.1.0")
    assert any(row.status == "changed" and row.max_ulp == 1 for row in rows)
    await asyncio.gather(
        storage.download_model("m", "1.0.0", tmp_path / "out1"),
        storage.download_model("m", None, tmp_path / "out2"),
    )
    assert makers.tree(tmp_path / "out1") == makers.tree(tmp_path / "1")
    assert makers.tree(tmp_path / "out2") == makers.tree(tmp_path / "2")
    assert (await storage.verify()).ok


async def test_without_versioning_every_version_stands_alone(tmp_path: Path, makers: Any) -> None:
    config = StorageConfig(bucket_name="b", root=tmp_path, enable_versioning=False)
    storage = UnifiedModelStorage(config)
    tensors = makers.tensors()
    await storage.upload_model(makers.write(tmp_path / "1.safetensors", tensors), "m", "1.0.0")
    moved = makers.write(tmp_path / "2.safetensors", makers.nudge(tensors, 1))
    report = await storage.upload_model(moved, "m", "1.1.0")
    assert report.parent is None
    assert report.stored_bytes > report.raw_bytes / 2


async def test_errors_arrive_as_they_are(tmp_path: Path, makers: Any) -> None:
    storage = UnifiedModelStorage(StorageConfig(bucket_name="b", root=tmp_path))
    await storage.upload_model(makers.write(tmp_path / "1.safetensors", makers.tensors()), "m", "1.0.0")
    with pytest.raises(ModelNotFoundError):
        await storage.download_model("other", "1.0.0", tmp_path / "out")


@pytest.mark.parametrize(
    "settings",
    [
        {"provider": "ftp", "bucket_name": "b"},
        {"bucket_name": ""},
        {"bucket_name": "a/b"},
        {"bucket_name": ".."},
        {"bucket_name": "b", "prefix": "../up"},
    ],
)
def test_odd_configurations_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        StorageConfig(**settings)


def test_urls_of_providers() -> None:
    assert StorageConfig(provider="aws", bucket_name="b", prefix="x/y").url == "s3://b/x/y"
    assert StorageConfig(provider="gcp", bucket_name="b").url == "gs://b"
    assert StorageConfig(provider="azure", bucket_name="b").url == "az://b"
    assert StorageConfig(provider="memory", bucket_name="b").url == "memory://b"
    assert StorageConfig(provider="local", bucket_name="b", root="/r").url == "/r/b"
