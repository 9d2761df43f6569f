"""New weights in the memory of a vLLM engine, on all ranks or on none.

    llm = LLM(model="...", worker_extension_cls="textnlp_fast.integrations.vllm.SwapWorkerExtension")
    swap_all(llm, "custom-llm@1.2.0", repository="s3://bucket/models", from_version="1.1.0")

Written to the interface that vLLM documents for extensions of workers: the class is mixed into the worker's, its
methods are called by ``collective_rpc`` in every worker process, ``self.model_runner.model`` is the model. It was
tested with a stand-in for that interface, not with vLLM itself.

Layouts are those of Llama-like models in the checkpoint's type (`textnlp_fast.loading.layouts`). Weights that vLLM
packs or quantises when it loads them are no slices of the checkpoint's; they are refused, and nothing is written.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final, Protocol

from textnlp_fast.errors import InvalidInputError, SwapCancelledError, SwapRefusedError
from textnlp_fast.loading import Part, SwapReport, layout_of_rank, swap

__all__ = ["Engine", "SwapWorkerExtension", "swap_all"]

#: How long a rank that is ready waits to be told whether all are.
DEFAULT_DECISION_S: Final = 600.0


class Engine(Protocol):
    """A ``vllm.LLM``, as far as this module goes."""

    def collective_rpc(self, method: str, *, args: tuple[Any, ...] = ()) -> list[Any]: ...

    def reset_prefix_cache(self) -> Any: ...


class _Swap:
    """A swap on one rank, in a thread that stops before it commits until it is told what to do."""

    def __init__(self, decision_timeout_s: float) -> None:
        self._timeout_s = decision_timeout_s
        self._ready = threading.Event()
        self._decided = threading.Event()
        self._commit = False
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._report: SwapReport | None = None

    def start(self, model: Any, update: str, options: Mapping[str, Any]) -> BaseException | None:
        """Returns when the new weights are in place and checked, or the error if the old ones are back."""

        def run() -> None:
            try:
                self._report = swap(model, update, before_commit=self._wait, **options)
            except BaseException as error:  # noqa: BLE001  (it is raised by whoever asks for the outcome)
                self._error = error
            finally:
                self._ready.set()

        self._thread = threading.Thread(target=run, name="textnlp-fast-swap-rank")
        self._thread.start()
        self._ready.wait()
        return self._error

    def finish(self, commit: bool) -> SwapReport | None:
        """Commits, or puts the old weights back; raises what went wrong on the way."""
        assert self._thread is not None
        self._commit = commit
        self._decided.set()
        self._thread.join()
        if self._error is not None and (commit or not isinstance(self._error, SwapCancelledError)):
            raise self._error
        return self._report

    def _wait(self) -> None:
        self._ready.set()
        if not self._decided.wait(self._timeout_s):
            raise SwapCancelledError(f"nobody said within {self._timeout_s:g} s whether all ranks are ready")
        if not self._commit:
            raise SwapCancelledError("another rank could not take the new weights")


class SwapWorkerExtension:
    """For ``worker_extension_cls``. Its names begin alike, for vLLM refuses extensions that hide what workers have."""

    _textnlp_fast_pending: _Swap | None = None

    def textnlp_fast_prepare(
        self,
        update: str,
        options: Mapping[str, Any] | None = None,
        decision_timeout_s: float = DEFAULT_DECISION_S,
    ) -> dict[str, Any]:
        """Puts the new weights into this rank's memory and checks them; the way back is kept until it is told.

        ``options`` are those of :func:`textnlp_fast.swap`; a ``layout`` among them stands for the one that would be
        worked out. Returns ``rank``, ``ready`` and, if it is not, ``error``: an exception would hide what others say.
        """
        rank, degree = _place()
        if self._textnlp_fast_pending is not None:
            return _answer(
                rank, InvalidInputError("a swap is under way", hint="Commit it or abort it first.")
            )
        worker: Any = self
        model = worker.model_runner.model
        chosen = dict(options or {})
        try:
            if chosen.get("layout") is None:
                chosen["layout"] = _layout(worker, model, rank, degree)
        except InvalidInputError as error:
            return _answer(rank, error)
        pending = _Swap(decision_timeout_s)
        failure = pending.start(model, update, {"partial": True, **chosen})
        if failure is None:
            self._textnlp_fast_pending = pending
        return _answer(rank, failure)

    def textnlp_fast_commit(self) -> dict[str, Any]:
        """Keeps the new weights. The report of :func:`textnlp_fast.swap`, as a dict."""
        report = self._textnlp_fast_take().finish(True)
        assert report is not None
        return asdict(report)

    def textnlp_fast_abort(self) -> bool:
        """Puts the old weights back, if new ones are in place; whether there were any."""
        if self._textnlp_fast_pending is None:
            return False
        self._textnlp_fast_take().finish(False)
        return True

    def _textnlp_fast_take(self) -> _Swap:
        pending = self._textnlp_fast_pending
        if pending is None:
            raise InvalidInputError("no swap was prepared", hint="Call textnlp_fast_prepare first.")
        self._textnlp_fast_pending = None
        return pending


def swap_all(
    engine: Engine,
    update: str,
    *,
    decision_timeout_s: float = DEFAULT_DECISION_S,
    **options: Any,
) -> list[dict[str, Any]]:
    """Swaps ``update`` into every rank of an engine, or into none; a report for each rank.

    ``options`` are those of :func:`textnlp_fast.swap`, and must be picklable: ``repository`` is a URL or path. With
    more than one rank ``source=`` or, for a version, ``from_version=`` says what slices are checked against. No request
    may run meanwhile (``llm.sleep(level=0)`` of newer engines, or your own gate): until this returns the weights are
    neither old nor new. The prefix cache, which old weights filled, is reset.

    Raises SwapRefusedError if a rank could not take the new weights; then all have the old ones.
    """
    answers: Sequence[Mapping[str, Any]] = engine.collective_rpc(
        "textnlp_fast_prepare", args=(update, options, decision_timeout_s)
    )
    failed = [answer for answer in answers if not answer["ready"]]
    if failed:
        engine.collective_rpc("textnlp_fast_abort")
        ranks = ", ".join(str(answer["rank"]) for answer in failed)
        error = SwapRefusedError(f"rank {ranks} of {len(answers)}: {failed[0]['error']}")
        error.ranks = tuple(answer["rank"] for answer in failed)
        raise error
    reports = engine.collective_rpc("textnlp_fast_commit")
    engine.reset_prefix_cache()
    return reports


def _place() -> tuple[int, int]:
    """This worker's rank in tensor parallelism, and of how many."""
    from vllm.distributed import (  # noqa: PLC0415  (only workers have it)
        get_tensor_model_parallel_rank,
        get_tensor_model_parallel_world_size,
    )

    return int(get_tensor_model_parallel_rank()), int(get_tensor_model_parallel_world_size())


def _layout(worker: Any, model: Any, rank: int, degree: int) -> dict[str, tuple[Part, ...]]:
    config = worker.vllm_config.model_config.hf_text_config
    heads = getattr(config, "num_key_value_heads", None)
    return layout_of_rank(model.state_dict(), rank=rank, degree=degree, key_value_heads=heads)


def _answer(rank: int, error: BaseException | None) -> dict[str, Any]:
    if error is None:
        return {"rank": rank, "ready": True}
    return {"rank": rank, "ready": False, "error": f"{type(error).__name__}: {error}"}
