"""The extension of vLLM's workers, in a stand-in for what vLLM documents: all ranks take new weights, or none."""

from __future__ import annotations

import sys
import threading
import types
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from delta.models import Model, make, write
from loading.test_swap_slices import KEY_VALUE, model_of, moved, rank_of, same
from textnlp_fast.errors import InvalidInputError, SwapRefusedError
from textnlp_fast.integrations.vllm import SwapWorkerExtension, swap_all
from textnlp_fast.storage import Repository, TransferOptions

torch = pytest.importorskip("torch", reason="torch is not installed")

DEGREE = 2
HERE = threading.local()


@pytest.fixture(autouse=True)
def vllm(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The two functions that workers ask for their place."""
    distributed = types.ModuleType("vllm.distributed")
    distributed.get_tensor_model_parallel_rank = lambda: HERE.rank  # type: ignore[attr-defined]
    distributed.get_tensor_model_parallel_world_size = lambda: DEGREE  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm", types.ModuleType("vllm"))
    monkeypatch.setitem(sys.modules, "vllm.distributed", distributed)
    yield


class Worker:
    """What a worker of vLLM has, as far as extensions are promised it."""

    def __init__(self, rank: int, weights: dict[str, Any]) -> None:
        self.rank = rank
        self.weights = {
            name: torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
            for name, array in weights.items()
        }
        model = types.SimpleNamespace(state_dict=lambda: self.weights)
        self.model_runner = types.SimpleNamespace(model=model)
        config = types.SimpleNamespace(num_key_value_heads=KEY_VALUE)
        self.vllm_config = types.SimpleNamespace(model_config=types.SimpleNamespace(hf_text_config=config))

    def words(self) -> dict[str, Any]:
        return {
            name: tensor.view(torch.int16).numpy().view(np.uint16) for name, tensor in self.weights.items()
        }


def extended() -> type:
    """Mixes the extension in as vLLM does, which refuses names that the worker has already."""
    for name in dir(SwapWorkerExtension):
        assert name.startswith("__") or not hasattr(Worker, name), name
    return type("Worker", (Worker, SwapWorkerExtension), {})


class LLM:
    """Calls a method in every worker, each in its own thread, and resets a cache."""

    def __init__(self, weights: list[dict[str, Any]]) -> None:
        kind = extended()
        self.workers = [kind(rank, mine) for rank, mine in enumerate(weights)]
        self.resets = 0

    def collective_rpc(self, method: str, *, args: tuple[Any, ...] = ()) -> list[Any]:
        def call(worker: Any) -> Any:
            HERE.rank = worker.rank
            return getattr(worker, method)(*args)

        with ThreadPoolExecutor(len(self.workers)) as pool:
            return list(pool.map(call, self.workers))

    def reset_prefix_cache(self) -> bool:
        self.resets += 1
        return True

    def holds(self, model: Model) -> bool:
        return all(same(worker.words(), rank_of(model, worker.rank, DEGREE)) for worker in self.workers)


def serving(model: Model) -> LLM:
    return LLM([rank_of(model, rank, DEGREE) for rank in range(DEGREE)])


def test_all_ranks_take_a_patch(tmp_path: Path) -> None:
    old = model_of(1)
    new = moved(old, 2)
    patch = make(write(old, tmp_path / "old"), write(new, tmp_path / "new"), tmp_path / "p.tnpatch")
    llm = serving(old)
    reports = swap_all(llm, str(patch), source=str(tmp_path / "old"))
    assert llm.holds(new)
    assert [report["target_version"] for report in reports] == ["1.1.0"] * DEGREE
    assert llm.resets == 1


def test_all_ranks_take_a_version(tmp_path: Path) -> None:
    options = TransferOptions(shard_bytes=1 << 16, threads=2, prices=None)
    repository = Repository.open(tmp_path / "r", create=True, options=options, window_bytes=1 << 12)
    old = model_of(1)
    new = moved(old, 2)
    for n, model in enumerate((old, new)):
        repository.push(write(model, tmp_path / f"v{n}"), "m", f"1.{n}.0")
    llm = serving(old)
    swap_all(llm, "m@1.1.0", repository=str(tmp_path / "r"), from_version="1.0.0")
    assert llm.holds(new)
    swap_all(llm, "m@1.0.0", repository=str(tmp_path / "r"), from_version="1.1.0")
    assert llm.holds(old)


@pytest.mark.parametrize("odd", range(DEGREE))
def test_one_rank_that_cannot_leaves_all_as_they_were(tmp_path: Path, odd: int) -> None:
    old = model_of(1)
    new = moved(old, 2)
    patch = make(write(old, tmp_path / "old"), write(new, tmp_path / "new"), tmp_path / "p.tnpatch")
    llm = serving(old)
    spoilt = llm.workers[odd].words()["model.layers.0.mlp.gate_up_proj.weight"]
    spoilt[0, 0] ^= 1
    before = [{name: array.copy() for name, array in worker.words().items()} for worker in llm.workers]
    with pytest.raises(SwapRefusedError, match=f"rank {odd} of 2: WrongBaseError.*gate_up_proj") as caught:
        swap_all(llm, str(patch), source=str(tmp_path / "old"))
    assert caught.value.ranks == (odd,)
    assert all(same(worker.words(), was) for worker, was in zip(llm.workers, before, strict=True))
    assert llm.resets == 0
    spoilt[0, 0] ^= 1
    swap_all(llm, str(patch), source=str(tmp_path / "old"))  # nothing is left over from the first try
    assert llm.holds(new)


def test_nobody_decides(tmp_path: Path) -> None:
    old = model_of(1)
    new = moved(old, 2)
    patch = make(write(old, tmp_path / "old"), write(new, tmp_path / "new"), tmp_path / "p.tnpatch")
    llm = serving(old)
    options = {"source": str(tmp_path / "old")}
    answers = llm.collective_rpc("textnlp_fast_prepare", args=(str(patch), options, 0.05))
    assert all(answer["ready"] for answer in answers)
    for worker in llm.workers:
        worker._textnlp_fast_pending._thread.join()
    assert llm.holds(old)
    with pytest.raises(Exception, match="nobody said"):
        llm.collective_rpc("textnlp_fast_commit")
    assert llm.holds(old)


def test_calls_out_of_turn(tmp_path: Path) -> None:
    old = model_of(1)
    new = moved(old, 2)
    patch = make(write(old, tmp_path / "old"), write(new, tmp_path / "new"), tmp_path / "p.tnpatch")
    llm = serving(old)
    with pytest.raises(InvalidInputError, match="no swap was prepared"):
        llm.collective_rpc("textnlp_fast_commit")
    assert llm.collective_rpc("textnlp_fast_abort") == [False] * DEGREE
    options = {"source": str(tmp_path / "old")}
    assert all(a["ready"] for a in llm.collective_rpc("textnlp_fast_prepare", args=(str(patch), options)))
    again = llm.collective_rpc("textnlp_fast_prepare", args=(str(patch), options))
    assert all("under way" in answer["error"] for answer in again)
    assert llm.collective_rpc("textnlp_fast_abort") == [True] * DEGREE
    assert llm.holds(old)
