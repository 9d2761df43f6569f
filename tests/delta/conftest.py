"""Two versions of a small model, and the patch between them."""

from __future__ import annotations

from pathlib import Path

import pytest

from delta.models import Model, Tensor, make, nudged, weights, write


@pytest.fixture
def old() -> Model:
    return {
        "model-1.safetensors": {"q": weights(1), "norm": Tensor("F32", (3,), bytes(12))},
        "model-2.safetensors": {"k": weights(2), "scalar": Tensor("I64", (), bytes(8))},
        "config.json": b"{}",
    }


@pytest.fixture
def new(old: Model) -> Model:
    first, second = old["model-1.safetensors"], old["model-2.safetensors"]
    assert isinstance(first, dict)
    assert isinstance(second, dict)
    return {
        "model-1.safetensors": {**first, "q": nudged(first["q"], 5)},
        "model-2.safetensors": second,
        "tokenizer.json": b"[]",
    }


@pytest.fixture
def patch(tmp_path: Path, old: Model, new: Model) -> Path:
    return make(write(old, tmp_path / "old"), write(new, tmp_path / "new"), tmp_path / "p.tnpatch")
