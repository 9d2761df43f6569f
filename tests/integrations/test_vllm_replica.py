"""vLLM as a replica of a rollout, on the stand-in for its interface: prepared on all ranks, then kept or taken back."""

from __future__ import annotations

from pathlib import Path

import pytest

from delta.models import write
from integrations.test_vllm import DEGREE, LLM, vllm  # noqa: F401  (a fixture)
from loading.test_swap_slices import model_of, moved, rank_of
from textnlp_fast.errors import InvalidInputError, NotRestoredError, SwapRefusedError
from textnlp_fast.integrations.tensor_replica import last_served
from textnlp_fast.integrations.vllm_replica import VllmReplica
from textnlp_fast.storage import Repository


@pytest.fixture
def made(tmp_path: Path) -> tuple[VllmReplica, LLM, list[object]]:
    old = model_of(1)
    new = moved(old, 2)
    repository = Repository.open(str(tmp_path / "repository"), create=True)
    for version, model in (("1.0.0", old), ("1.1.0", new)):
        repository.push(write(model, tmp_path / version), "llm", version)
    llm = LLM([rank_of(old, rank, DEGREE) for rank in range(DEGREE)])
    replica = VllmReplica(llm, tmp_path / "repository", "llm", "1.0.0", folder=tmp_path)
    return replica, llm, [old, new, tmp_path]


def test_new_weights_are_held_and_then_kept(made: tuple[VllmReplica, LLM, list[object]]) -> None:
    replica, llm, (_, new, folder) = made
    with pytest.raises(SwapRefusedError, match="may come"):
        replica.prepare("llm", "1.1.0")
    assert replica.drain(0) == 0
    replica.prepare("llm", "1.1.0")
    assert (replica.look().serving, replica.look().prepared) == ("1.0.0", "1.1.0")
    replica.commit("1.1.0")
    replica.resume()
    assert (replica.look().serving, replica.look().prepared, replica.gate.is_open) == ("1.1.0", None, True)
    assert llm.holds(new)  # type: ignore[arg-type]
    assert last_served(str(folder), "0.0.1") == "1.1.0"


def test_new_weights_are_held_and_then_taken_back(made: tuple[VllmReplica, LLM, list[object]]) -> None:
    replica, llm, (old, _, folder) = made
    replica.drain(0)
    replica.prepare("llm", "1.1.0")
    replica.abort()
    assert (replica.look().serving, replica.look().prepared, replica.look().ready) == ("1.0.0", None, True)
    assert llm.holds(old)  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="not prepared"):
        replica.commit("1.1.0")
    assert last_served(str(folder), "0.0.1") == "0.0.1"


def test_ranks_that_are_not_whole_are_not_ready(
    made: tuple[VllmReplica, LLM, list[object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    replica, llm, _ = made
    replica.drain(0)
    replica.prepare("llm", "1.1.0")
    monkeypatch.setattr(
        llm.workers[1], "textnlp_fast_commit", lambda: {"rank": 1, "committed": False, "error": "lost"}
    )
    with pytest.raises(NotRestoredError):
        replica.commit("1.1.0")
    assert not replica.look().ready
