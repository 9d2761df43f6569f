"""What Ray's LLM applications run on a node before the engine: with Ray's own base class, as Ray calls it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

pytest.importorskip("ray.llm._internal.common.callbacks.base", reason="needs ray")

from ray.llm._internal.common.callbacks.base import CallbackConfig

from textnlp_fast.errors import InvalidInputError
from textnlp_fast.integrations.ray_fetch import FetchVersion, fetch_version
from textnlp_fast.storage import Repository


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    opened = Repository.open(tmp_path / "repo", create=True)
    for version in ("1.0.0", "1.1.0"):
        folder = tmp_path / f"made-{version}"
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        (folder / "words.txt").write_text("word " * 10_000 + version)
        opened.push(folder, "llama", version)
    return tmp_path / "repo"


def test_ray_runs_it_before_the_node_is_ready(repository: Path, tmp_path: Path) -> None:
    config = CallbackConfig(
        callback_class="textnlp_fast.integrations.ray_fetch.FetchVersion",
        callback_kwargs={
            "repository": str(repository),
            "reference": "llama@1.1.0",
            "destination": str(tmp_path / "models/llama/1.1.0"),
        },
    )
    callback = FetchVersion(llm_config=None, **config.callback_kwargs)
    asyncio.run(callback.run_callback("on_before_node_init"))
    assert (tmp_path / "models/llama/1.1.0/words.txt").read_text().endswith("1.1.0")


def test_a_failed_fetch_fails_the_replica(repository: Path, tmp_path: Path) -> None:
    callback = FetchVersion(
        llm_config=None, repository=str(repository), reference="llama@9.9.9", destination=str(tmp_path / "x")
    )
    with pytest.raises(Exception, match=r"9\.9\.9"):
        asyncio.run(callback.run_callback("on_before_node_init"))


def test_what_the_node_has_is_used_and_signatures_are_asked_for(repository: Path, tmp_path: Path) -> None:
    first = fetch_version(str(repository), "llama@1.0.0", str(tmp_path / "models/llama/1.0.0"))
    next_one = fetch_version(str(repository), "llama@1.1.0", str(tmp_path / "models/llama/1.1.0"))
    assert next_one.fetched_bytes <= first.fetched_bytes
    with pytest.raises(InvalidInputError, match="do not say whose"):
        fetch_version(str(repository), "llama@1.0.0", str(tmp_path / "signed"), require_signature=True)
