"""Registries over repositories in memory, whose versions cost next to nothing."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from textnlp_fast.storage import Repository
from textnlp_fast.storage.registry.registry import Registry

Publish = Callable[..., None]


def write_model(path: Path, seed: int = 0) -> Path:
    """A safetensors file with one small tensor."""
    values = np.random.default_rng(seed).integers(0, 1 << 16, 64, np.uint16)
    header = json.dumps({"w": {"dtype": "BF16", "shape": [64], "data_offsets": [0, values.nbytes]}}).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(len(header).to_bytes(8, "little") + header + values.tobytes())
    return path


@pytest.fixture
def repository() -> Repository:
    return Repository.open(f"memory://{uuid.uuid4().hex}", create=True)


@pytest.fixture
def publish(tmp_path: Path, repository: Repository) -> Publish:
    """Pushes versions of a model."""

    def push(name: str, *versions: str, **options: object) -> None:
        source = write_model(tmp_path / "model.safetensors")
        for version in versions:
            repository.push(source, name, version, **options)  # type: ignore[arg-type]

    return push


@pytest.fixture
def registry(repository: Repository, publish: Publish) -> Registry:
    """The registry of a repository with three versions and a release candidate of model `m`."""
    publish("m", "1.0.0", "1.1.0", "2.0.0", "2.1.0-rc.1")
    return Registry(repository, actor="alice")
