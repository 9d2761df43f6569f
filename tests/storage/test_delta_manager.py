"""The asynchronous face of patches, as the project's specification writes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from textnlp_fast.errors import InvalidInputError, WrongBaseError
from textnlp_fast.storage import DeltaUpdateManager, StorageConfig, UnifiedModelStorage


@pytest.fixture
def place(tmp_path: Path, makers: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    tensors = makers.tensors()
    makers.write(tmp_path / "v1.0.safetensors", tensors)
    makers.write(tmp_path / "v1.1.safetensors", makers.nudge(tensors, 1))
    makers.write(tmp_path / "v1.2.safetensors", makers.nudge(makers.nudge(tensors, 1), 2))
    return tmp_path


async def test_the_example_of_the_specification(place: Path) -> None:
    storage_backend = UnifiedModelStorage(StorageConfig(bucket_name="textnlp-models", threads=2))
    delta_manager = DeltaUpdateManager(storage_backend)
    patch = await delta_manager.create_delta_patch(
        old_model_path="v1.0.safetensors",
        new_model_path="v1.1.safetensors",
        source_version="1.0.0",
        target_version="1.1.0",
    )
    assert Path(patch.path) == place / "1.0.0-to-1.1.0.tnpatch"
    assert patch.ratio > 5
    await delta_manager.apply_delta_patch(patch.path, "v1.0.safetensors", "out.safetensors")
    assert (place / "out.safetensors").read_bytes() == (place / "v1.1.safetensors").read_bytes()
    assert not (place / "textnlp-models").exists()
    with pytest.raises(WrongBaseError):
        await delta_manager.apply_delta_patch(patch.path, "v1.2.safetensors", "out.safetensors")


@pytest.mark.parametrize("backend", [None, StorageConfig(bucket_name="b", memory_budget_bytes=256 << 20)])
async def test_every_call(place: Path, backend: StorageConfig | None) -> None:
    manager = DeltaUpdateManager(backend)
    stages: list[str] = []
    for old, new in (("1.0", "1.1"), ("1.1", "1.2")):
        await manager.create_delta_patch(
            f"v{old}.safetensors",
            f"v{new}.safetensors",
            strategy="dense",
            output_path=f"{new}.tnpatch",
            metadata={"by": "test"},
            progress=lambda progress: stages.append(progress.stage),
        )
    assert {"hash", "create"} <= set(stages)
    summary = await manager.inspect("1.2.tnpatch")
    assert (summary.strategy, summary.metadata) == ("dense", {"by": "test"})
    joined = await manager.squash(["1.1.tnpatch", "1.2.tnpatch"], "joined.tnpatch")
    anew = await manager.squash(
        ["1.1.tnpatch", "1.2.tnpatch"], "anew.tnpatch", source_model_path="v1.0.safetensors"
    )
    assert anew.patch_bytes < joined.patch_bytes
    for name in ("joined", "anew"):
        await manager.apply_delta_patch(f"{name}.tnpatch", "v1.0.safetensors", f"{name}.safetensors")
        assert (place / f"{name}.safetensors").read_bytes() == (place / "v1.2.safetensors").read_bytes()


async def test_wrong_calls(place: Path) -> None:
    manager = DeltaUpdateManager()
    with pytest.raises(InvalidInputError, match="no name"):
        await manager.create_delta_patch("v1.0.safetensors", "v1.1.safetensors", source_version="1.0.0")
    with pytest.raises(InvalidInputError, match="storage_backend"):
        DeltaUpdateManager("s3://bucket")  # type: ignore[arg-type]
