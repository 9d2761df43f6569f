"""The extension of vLLM's workers, in a stand-in for what vLLM documents: all ranks take new weights, or none."""

from __future__ import annotations

import importlib.util
import json
import sys
import threading
import time
import types
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from delta.models import Model, make, nudged, weights, write
from loading.swaps import Trap, tensors_of
from loading.test_swap_slices import KEY_VALUE, model_of, moved, rank_of, same
from textnlp_fast.errors import InvalidInputError, NotRestoredError, SwapRefusedError
from textnlp_fast.integrations.vllm import SwapWorkerExtension, swap_all
from textnlp_fast.loading import held_swap
from textnlp_fast.storage import Repository, TransferOptions

torch: Any = importlib.import_module("torch") if importlib.util.find_spec("torch") else None

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


def parameter(words: Any) -> Any:
    """The same memory as a tensor in bf16, where torch is installed."""
    return words if torch is None else torch.from_numpy(words.view(np.int16)).view(torch.bfloat16)


class Worker:
    """What a worker of vLLM has, as far as extensions are promised it."""

    def __init__(self, rank: int, weights: dict[str, Any]) -> None:
        self.rank = rank
        self.replies: deque[tuple[bool, Any]] = deque()
        self.weights = {name: parameter(array) for name, array in weights.items()}
        model = types.SimpleNamespace(state_dict=lambda: self.weights)
        self.model_runner = types.SimpleNamespace(model=model)
        config = types.SimpleNamespace(num_key_value_heads=KEY_VALUE)
        self.vllm_config = types.SimpleNamespace(model_config=types.SimpleNamespace(hf_text_config=config))

    def words(self) -> dict[str, Any]:
        return {
            name: tensor if torch is None else tensor.view(torch.int16).numpy().view(np.uint16)
            for name, tensor in self.weights.items()
        }


def extended() -> type:
    """Mixes the extension in as vLLM does, which refuses names that the worker has already."""
    for name in dir(SwapWorkerExtension):
        assert name.startswith("__") or not hasattr(Worker, name), name
    return type("Worker", (Worker, SwapWorkerExtension), {})


class LLM:
    """Calls a method in every worker, each in its own thread, and resets a cache.

    What goes to workers and comes back is plain data. Where a worker raises, the answers of those behind it stay where
    they are and are taken for those to the next call, as vLLM's executor of several processes does it.
    """

    def __init__(self, weights: list[dict[str, Any]]) -> None:
        kind = extended()
        self.workers = [kind(rank, mine) for rank, mine in enumerate(weights)]
        self.calls: list[str] = []
        self.resets = 0
        self.answer_to_reset: Callable[[int], bool | None] = lambda number: True

    def collective_rpc(self, method: str, *, args: tuple[Any, ...] = ()) -> list[Any]:
        self.calls.append(method.removeprefix("textnlp_fast_"))
        sent = json.dumps(args)

        def call(worker: Any) -> None:
            HERE.rank = worker.rank
            try:
                answer = getattr(worker, method)(*self.received(worker, json.loads(sent)))
                worker.replies.append((True, json.loads(json.dumps(answer))))
            except Exception as error:  # noqa: BLE001  (as the executor has it)
                worker.replies.append((False, str(error)))

        with ThreadPoolExecutor(len(self.workers)) as pool:
            list(pool.map(call, self.workers))
        answers = []
        for worker in self.workers:
            is_good, answer = worker.replies.popleft()
            if not is_good:
                raise RuntimeError(f"Worker failed with error '{answer}'")
            answers.append(answer)
        return answers

    def received(self, worker: Any, args: list[Any]) -> list[Any]:
        return args

    def reset_prefix_cache(self) -> bool | None:
        self.resets += 1
        return self.answer_to_reset(self.resets)

    def holds(self, model: Model) -> bool:
        return all(same(worker.words(), rank_of(model, worker.rank, DEGREE)) for worker in self.workers)


def serving(model: Model, kind: type[LLM] = LLM) -> LLM:
    return kind([rank_of(model, rank, DEGREE) for rank in range(DEGREE)])


Case = tuple[Model, Model, str, dict[str, Any]]


@pytest.fixture
def case(tmp_path: Path) -> Case:
    """Two versions, the patch between them, and the options to swap it with."""
    old = model_of(1)
    new = moved(old, 2)
    patch = make(write(old, tmp_path / "old"), write(new, tmp_path / "new"), tmp_path / "p.tnpatch")
    return old, new, str(patch), {"source": str(tmp_path / "old")}


def prepare(llm: LLM, case: Case, timeout_s: float = 60.0) -> list[Any]:
    return llm.collective_rpc("textnlp_fast_prepare", args=(case[2], case[3], timeout_s))


def test_all_ranks_take_a_patch(tmp_path: Path, case: Case) -> None:
    old, new, patch, _ = case
    llm = serving(old)
    reports = swap_all(llm, Path(patch), source=tmp_path / "old")
    assert llm.holds(new)
    assert [report["target_version"] for report in reports] == ["1.1.0"] * DEGREE
    assert llm.calls == ["prepare", "hold", "commit"]
    assert llm.resets == 2


def test_all_ranks_take_a_version(tmp_path: Path) -> None:
    options = TransferOptions(shard_bytes=1 << 16, threads=2, prices=None)
    repository = Repository.open(tmp_path / "r", create=True, options=options, window_bytes=1 << 12)
    old = model_of(1)
    new = moved(old, 2)
    for n, model in enumerate((old, new)):
        repository.push(write(model, tmp_path / f"v{n}"), "m", f"1.{n}.0")
    llm = serving(old)
    swap_all(llm, "m@1.1.0", repository=tmp_path / "r", from_version="1.0.0")
    assert llm.holds(new)
    swap_all(llm, "m@1.0.0", repository=str(tmp_path / "r"), from_version="1.1.0")
    assert llm.holds(old)


@pytest.mark.parametrize("odd", range(DEGREE))
def test_one_rank_that_cannot_leaves_all_as_they_were(case: Case, odd: int) -> None:
    old, new, patch, options = case
    llm = serving(old)
    spoilt = llm.workers[odd].words()["model.layers.0.mlp.gate_up_proj.weight"]
    spoilt[0, 0] ^= 1
    before = [{name: array.copy() for name, array in worker.words().items()} for worker in llm.workers]
    with pytest.raises(SwapRefusedError, match=f"rank {odd} of 2: WrongBaseError.*gate_up_proj") as caught:
        swap_all(llm, patch, **options)
    assert caught.value.ranks == (odd,)
    assert all(same(worker.words(), was) for worker, was in zip(llm.workers, before, strict=True))
    spoilt[0, 0] ^= 1
    swap_all(llm, patch, **options)  # nothing is left over from the first try
    assert llm.holds(new)


def test_a_failure_at_any_step_of_any_rank_leaves_all_as_they_were(case: Case) -> None:
    old, new, patch, options = case
    at, springs = 1, 0
    while True:
        llm = serving(old)
        with pytest.MonkeyPatch.context() as patched:
            trap = Trap(patched, at, MemoryError("none left"))
            try:
                swap_all(llm, patch, **options)
            except SwapRefusedError as error:
                assert "none left" in str(error)
                assert llm.holds(old), f"call {at}"
                springs += 1
                at += 7
                continue
        assert not trap.sprung
        assert llm.holds(new)
        break
    assert springs > 10


@pytest.mark.parametrize("method", ["hold", "reset"])
def test_an_engine_that_fails_between_prepare_and_commit(case: Case, method: str) -> None:
    class Failing(LLM):
        def collective_rpc(self, name: str, *, args: tuple[Any, ...] = ()) -> list[Any]:
            if name.endswith(method):
                raise RuntimeError("the engine went away")
            return super().collective_rpc(name, args=args)

        def reset_prefix_cache(self) -> bool | None:
            if method == "reset" and self.resets:
                raise RuntimeError("the engine went away")
            return super().reset_prefix_cache()

    llm = serving(case[0], Failing)
    with pytest.raises(RuntimeError, match="went away"):
        swap_all(llm, case[2], **case[3])
    assert llm.holds(case[0])
    assert llm.calls[-1] == "abort"


# --- who waits for whom ------------------------------------------------------------------------------------------


def test_nobody_decides(case: Case) -> None:
    old, new, patch, options = case
    llm = serving(old)
    assert all(answer["ready"] for answer in prepare(llm, case, 0.05))
    for worker in llm.workers:
        worker._textnlp_fast_pending._thread.join()
    assert llm.holds(old)
    assert all("nobody said" in answer["error"] for answer in llm.collective_rpc("textnlp_fast_hold"))
    assert all("nobody said" in answer["error"] for answer in llm.collective_rpc("textnlp_fast_commit"))
    assert llm.holds(old)
    assert all(answer["ready"] for answer in prepare(llm, case, 0.05))
    for worker in llm.workers:
        worker._textnlp_fast_pending._thread.join()
    swap_all(llm, patch, **options)  # though nobody took back what was prepared
    assert llm.holds(new)


def test_one_rank_gives_up_before_it_is_told_to_hold(case: Case) -> None:
    class Slow(LLM):
        def received(self, worker: Any, args: list[Any]) -> list[Any]:
            if args and worker.rank == 1:
                return [*args[:2], 0.01]
            if not args and worker.rank == 1 and self.calls[-1] == "hold":
                worker._textnlp_fast_pending._thread.join()
            return args

    llm = serving(case[0], Slow)
    with pytest.raises(SwapRefusedError, match=r"rank 1 of 2.*nobody said"):
        swap_all(llm, case[2], **case[3])
    assert llm.holds(case[0])


def test_a_rank_that_holds_does_not_give_up(case: Case) -> None:
    llm = serving(case[0])
    assert all(answer["ready"] for answer in prepare(llm, case, 0.5))
    assert all(answer["ready"] for answer in llm.collective_rpc("textnlp_fast_hold"))
    time.sleep(0.6)
    assert all(answer["committed"] for answer in llm.collective_rpc("textnlp_fast_commit"))
    assert llm.holds(case[1])


def test_a_clock_that_runs_out_as_hold_arrives(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever hold says is what comes of it, however close the two are."""

    def swap(model: Any, update: str, *, before_commit: Callable[[], None]) -> str:
        before_commit()
        return "report"

    monkeypatch.setattr(held_swap, "swap", swap)
    outcomes = set()
    for number in range(100):
        rank = held_swap.HeldSwap(0.003)
        rank.start(None, "update", {})
        time.sleep(number % 13 * 0.0005)
        held = rank.hold()
        outcomes.add(held)
        rank.finish(held)
        assert (rank.report is not None) == held
        assert (rank.error is None) == held
    assert outcomes == {True, False}


def test_a_rank_that_does_not_commit_is_named(case: Case) -> None:
    class Split(LLM):
        def received(self, worker: Any, args: list[Any]) -> list[Any]:
            if worker.rank == 0 and self.calls[-1] == "commit":
                worker.textnlp_fast_abort()
            return args

    llm = serving(case[0], Split)
    with pytest.raises(NotRestoredError, match="rank 0 did not keep"):
        swap_all(llm, case[2], **case[3])


def test_calls_out_of_turn(case: Case) -> None:
    llm = serving(case[0])
    for method, what in (("hold", "ready"), ("commit", "committed")):
        for answer in llm.collective_rpc(f"textnlp_fast_{method}"):
            assert not answer[what]
            assert "no swap was prepared" in answer["error"]
    assert all(answer["ready"] for answer in llm.collective_rpc("textnlp_fast_abort"))
    assert all(answer["ready"] for answer in prepare(llm, case))
    assert all("under way" in answer["error"] for answer in prepare(llm, case))
    assert all(answer["ready"] for answer in llm.collective_rpc("textnlp_fast_abort"))
    assert llm.holds(case[0])


# --- what an engine must not go on with --------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "calls"), [(1, []), (2, ["prepare", "hold", "abort"])])
def test_requests_that_run(case: Case, number: int, calls: list[str]) -> None:
    llm = serving(case[0])
    llm.answer_to_reset = lambda at: at != number
    with pytest.raises(SwapRefusedError, match="requests run"):
        swap_all(llm, case[2], **case[3])
    assert llm.holds(case[0])
    assert llm.calls == calls


def test_a_cache_that_says_nothing(case: Case) -> None:
    llm = serving(case[0])
    llm.answer_to_reset = lambda at: None
    swap_all(llm, case[2], **case[3])
    assert llm.holds(case[1])


def test_a_tensor_that_no_rank_has(tmp_path: Path) -> None:
    """Experts that an engine fused by rules of its own, say: their old values would go on serving, unnoticed."""
    expert = weights(4, rows=8)
    sides: list[Model] = []
    for model, tensor in ((model_of(1), expert), (moved(model_of(1), 2), nudged(expert, 1))):
        sides.append({"model.safetensors": {**tensors_of(model), "model.experts.0.w1.weight": tensor}})
    old, new = sides
    patch = make(write(old, tmp_path / "old"), write(new, tmp_path / "new"), tmp_path / "p.tnpatch")
    llm = serving(old)
    with pytest.raises(SwapRefusedError, match="no rank has tensors that change: 'model"):
        swap_all(llm, patch, source=tmp_path / "old")
    assert llm.holds(old)
    # One rank is enough: those of a pipeline have other layers each.
    words = np.frombuffer(expert.data, np.uint16).copy()
    llm.workers[1].weights["model.experts.0.w1.weight"] = parameter(words)
    swap_all(llm, patch, source=tmp_path / "old")
    assert llm.holds(new)
    assert words.tobytes() == nudged(expert, 1).data
    llm = serving(old)
    swap_all(llm, patch, source=tmp_path / "old", partial=True)
    assert llm.holds(new)


def test_options_that_do_not_travel(case: Case) -> None:
    llm = serving(case[0])
    for option in ({"layout": {}}, {"before_commit": print}, {"cancelled": threading.Event()}):
        with pytest.raises(InvalidInputError, match="does not travel"):
            swap_all(llm, case[2], **case[3], **option)
    assert llm.calls == []


def test_a_patch_that_is_not_there(case: Case) -> None:
    llm = serving(case[0])
    with pytest.raises(SwapRefusedError, match="rank 0, 1 of 2"):
        swap_all(llm, case[2] + ".gone", **case[3])
    assert llm.holds(case[0])
