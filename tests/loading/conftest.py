"""A repository with a history, made once for all tests that read it; and two versions to swap, with their patch."""

from __future__ import annotations

from pathlib import Path

import pytest

from delta.models import Model, Tensor, nudged, weights
from loading.loads import OPTIONS, WINDOW, push_history
from loading.swaps import both
from textnlp_fast.storage import Repository

History = tuple[Path, dict[str, Model]]


@pytest.fixture(scope="session")
def history(tmp_path_factory: pytest.TempPathFactory) -> History:
    """The repository's folder, and what each version holds. Read it only."""
    folder = tmp_path_factory.mktemp("history")
    repository = Repository.open(folder / "r", create=True, options=OPTIONS, window_bytes=WINDOW)
    return folder / "r", push_history(repository, folder / "models")


@pytest.fixture
def old() -> Model:
    return {
        "model-1.safetensors": {"q": weights(1), "norm": Tensor("F32", (3,), bytes(12))},
        "model-2.safetensors": {"k": weights(2), "scalar": Tensor("I64", (), bytes(8))},
        "config.json": b"{}",
    }


@pytest.fixture
def new(old: Model) -> Model:
    first, second = (dict(old[f"model-{n}.safetensors"]) for n in (1, 2))  # type: ignore[arg-type]
    first["q"] = nudged(first["q"], 5)
    second["scalar"] = Tensor("I64", (), b"\x01" + bytes(7))
    second["k"] = weights(9)
    return {"model-1.safetensors": first, "model-2.safetensors": second, "tokenizer.json": b"[]"}


@pytest.fixture
def patch(tmp_path: Path, old: Model, new: Model) -> Path:
    return both(tmp_path, old, new)
