"""A repository with two versions of a small model, as libraries are pointed at it."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from delta.models import WINDOW, Model, nudged, weights, write
from textnlp_fast.integrations.local_versions import CACHE_VARIABLE
from textnlp_fast.integrations.urls import REPOSITORY_VARIABLE
from textnlp_fast.storage import Repository
from textnlp_fast.storage.registry.registry import Registry


@dataclass(frozen=True)
class Shelf:
    """Where the repository is, and the files that were pushed, by version."""

    repository: Repository
    path: str
    models: dict[str, Model]
    sources: dict[str, Path]


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No repository but a test's own, no cache of the user's, no network."""
    monkeypatch.delenv(REPOSITORY_VARIABLE, raising=False)
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "versions"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    if importlib.util.find_spec("huggingface_hub") is not None:
        # It read the environment when it was imported, maybe before this.
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    yield


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    root = tmp_path_factory.mktemp("shelf")
    old: Model = {
        "model-00001.safetensors": {"layers.0.q.weight": weights(1), "norm.weight": weights(2, rows=1)},
        "model-00002.safetensors": {"layers.1.q.weight": weights(3)},
        "config.json": b'{"hidden_size": 128}',
        "tokenizer/vocab.txt": b"one\ntwo\n",
        "tokenizer/more/merges.txt": b"o n\n",
    }
    new = dict(old)
    tensors = dict(old["model-00001.safetensors"])  # type: ignore[arg-type]
    tensors["layers.0.q.weight"] = nudged(tensors["layers.0.q.weight"], 7)
    new["model-00001.safetensors"] = tensors
    models = {"1.0.0": old, "1.1.0": new}
    repository = Repository.open(root / "repo", create=True, window_bytes=WINDOW)
    sources = {version: write(model, root / version) for version, model in models.items()}
    for version, source in sources.items():
        repository.push(source, "org/tiny", version)
    repository.push(sources["1.0.0"], "solo", "1.0.0")
    Registry(repository).set_alias("org/tiny", "champion", "1.0.0")
    return Shelf(repository, str(root / "repo"), models, sources)
