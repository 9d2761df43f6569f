"""The examples of the guides to the clouds run, each on a server of its provider."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from servers import Place
from textnlp_fast.storage import Repository, UnifiedModelStorage

GUIDES = Path(__file__).resolve().parents[2] / "docs" / "guide"


def examples(name: str) -> list[str]:
    found = re.findall(r"```python\n(.*?)```", (GUIDES / name).read_text(encoding="utf-8"), re.DOTALL)
    assert found
    return found


@pytest.mark.parametrize(
    ("place", "guide", "named", "variable"),
    [
        ("ministack", "aws.md", "my-bucket", "AWS_ENDPOINT_URL"),
        ("gcs", "gcp.md", "my-bucket", "STORAGE_EMULATOR_HOST"),
        ("azurite", "azure.md", "my-container", "AZURE_STORAGE_ENDPOINT"),
    ],
    indirect=["place"],
)
async def test_the_examples_run(
    place: Place,
    guide: str,
    named: str,
    variable: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make_model: Any,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv(variable, place.endpoint_url)
    make_model(tmp_path / "my-model")
    scope: dict[str, Any] = {}
    for example in examples(guide):
        assert named in example
        exec(compile(example.replace(named, place.bucket), guide, "exec"), scope)
    repository, storage = scope["repository"], scope["storage"]
    assert isinstance(repository, Repository) and isinstance(storage, UnifiedModelStorage)
    assert repository.models() == {"my-model": ["1.0.0"]}
    assert await storage.list_models() == ["my-model"]


def test_the_example_of_encryption_runs() -> None:
    scope: dict[str, Any] = {}
    for example in examples("stores.md"):
        exec(compile(example, "stores.md", "exec"), scope)
    assert scope["config"].encryption.bucket_key


@pytest.fixture
def make_model() -> Any:
    """Writes a small model."""
    from storage.conftest import Makers  # noqa: PLC0415

    return lambda folder: Makers.directory(folder, Makers.tensors(rows=64))
