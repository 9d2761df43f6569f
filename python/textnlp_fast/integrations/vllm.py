"""New weights in the memory of a vLLM engine, on all ranks or on none.

    llm = LLM(model="...", worker_extension_cls="textnlp_fast.integrations.vllm.SwapWorkerExtension")
    swap_all(llm, "custom-llm@1.2.0", repository="s3://bucket/models", from_version="1.1.0")

Written to the interface that vLLM documents for extensions of workers: the class is mixed into the worker's, its
methods are called by ``collective_rpc`` in every worker process, ``self.model_runner.model`` is the model. It was
tested with a stand-in for that interface, not with vLLM itself.

Layouts are those of Llama-like models in the checkpoint's type (`textnlp_fast.loading.layouts`). Weights that vLLM
packs, pads or quantises when it loads them are no slices of the checkpoint's; they are refused, and nothing is written.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final, Protocol

from textnlp_fast.errors import InvalidInputError, NotRestoredError, SwapCancelledError, SwapRefusedError
from textnlp_fast.loading import Part, layout_of_rank
from textnlp_fast.loading.held_swap import HeldSwap
from textnlp_fast.loading.swapping import open_update
from textnlp_fast.loading.updates import some

__all__ = ["Engine", "SwapWorkerExtension", "abort_all", "commit_all", "prepare_all", "swap_all"]

#: How long a rank that is ready waits to hear whether all are.
DEFAULT_DECISION_S: Final = 600.0

Answer = dict[str, Any]
"""What a rank says, in plain types: ``rank``; ``ready`` or ``committed``; ``error``, a sentence, if it is not."""


class Engine(Protocol):
    """A ``vllm.LLM``, as far as this module goes."""

    def collective_rpc(self, method: str, *, args: tuple[Any, ...] = ()) -> list[Any]: ...

    def reset_prefix_cache(self) -> Any: ...


class SwapWorkerExtension:
    """For ``worker_extension_cls``. Its names begin alike, for vLLM refuses extensions that hide what workers have.

    Nothing is raised: where a worker raises, vLLM stops listening to the others, and takes what they said for the
    answer to its next call. The order is prepare, hold, commit; abort at any time before commit.
    """

    _textnlp_fast_pending: HeldSwap | None = None

    def textnlp_fast_prepare(
        self,
        update: str,
        options: Mapping[str, Any] | None = None,
        decision_timeout_s: float = DEFAULT_DECISION_S,
    ) -> Answer:
        """Puts the new weights into this rank's memory and checks them; the way back is kept until it is told.

        ``options`` are those of :func:`textnlp_fast.swap`; a ``layout`` among them stands for the one that would be
        worked out. Goes back by itself if it is not told to hold within ``decision_timeout_s``. Answers with ``absent``
        too: tensors that change and that this rank has no part of.
        """
        rank = -1
        try:
            rank, degree = _place()
            before = self._textnlp_fast_pending
            if before is not None and before.error is None:
                raise InvalidInputError("a swap is under way", hint="Commit it or abort it first.")
            worker: Any = self
            model = worker.model_runner.model
            chosen = {"partial": True, **(options or {})}
            if chosen.get("layout") is None:
                chosen["layout"] = _layout(worker, model, rank, degree)
            absent = _absent(update, chosen, model.state_dict())
            pending = HeldSwap(decision_timeout_s)
            pending.start(model, update, chosen)
        except Exception as error:  # noqa: BLE001  (whatever it is, the others' answers must be heard)
            return _answer(rank, "ready", error)
        self._textnlp_fast_pending = pending if pending.error is None else None
        return {**_answer(rank, "ready", pending.error), "absent": absent}

    def textnlp_fast_hold(self) -> Answer:
        """Keeps the new weights in place until it is told, however long that takes."""
        pending = self._textnlp_fast_pending
        if pending is None:
            return _answer(_rank(), "ready", _not_prepared())
        if not pending.hold():
            pending.finish(False)
        return _answer(_rank(), "ready", pending.error)

    def textnlp_fast_commit(self) -> Answer:
        """Keeps the new weights. Answers with ``report`` too, that of :func:`textnlp_fast.swap` as a dict."""
        pending = self._textnlp_fast_take()
        if pending is None:
            return _answer(_rank(), "committed", _not_prepared())
        pending.finish(True)
        answer = _answer(_rank(), "committed", pending.error)
        return answer if pending.report is None else {**answer, "report": asdict(pending.report)}

    def textnlp_fast_abort(self) -> Answer:
        """Puts the old weights back, if new ones are in place. ``ready`` is false if that did not work."""
        pending = self._textnlp_fast_take()
        if pending is None:
            return _answer(_rank(), "ready", None)
        pending.finish(False)
        failed = pending.error if not isinstance(pending.error, SwapCancelledError) else None
        return _answer(_rank(), "ready", failed)

    def _textnlp_fast_take(self) -> HeldSwap | None:
        pending, self._textnlp_fast_pending = self._textnlp_fast_pending, None
        return pending


def swap_all(
    engine: Engine,
    update: str | os.PathLike[str],
    *,
    decision_timeout_s: float = DEFAULT_DECISION_S,
    **options: Any,
) -> list[dict[str, Any]]:
    """Swaps ``update`` into every rank of an engine, or into none; a report for each rank.

    ``options`` are those of :func:`textnlp_fast.swap` that mean the same on every rank, in plain types: ``repository``
    is a URL or path. ``source=`` or, for a version, ``from_version=`` says what slices and fused tensors are checked
    against. Tensors that change must be somewhere on the ranks, unless ``partial=True``. No request may run
    meanwhile (``llm.sleep(level=0)`` of newer engines, or your own gate): until this returns the weights are neither
    old nor new. The prefix cache, which old weights filled, is reset.

    Raises SwapRefusedError if a rank could not take the new weights, or requests run; then all have the old ones.
    NotRestoredError if a rank is on the wrong side when all is over: then load the model anew. Whoever is interrupted
    while ranks prepare need do nothing: they go back by themselves after ``decision_timeout_s``.
    """
    prepare_all(engine, update, decision_timeout_s=decision_timeout_s, **options)
    return commit_all(engine)


def prepare_all(
    engine: Engine,
    update: str | os.PathLike[str],
    *,
    decision_timeout_s: float = DEFAULT_DECISION_S,
    **options: Any,
) -> None:
    """The first half of :func:`swap_all`: all ranks hold the new weights and wait to be told, however long that takes.

    Raises as that does; then all have the old ones.
    """
    plain = {name: _plain(name, value) for name, value in options.items()}
    # Its answer is how an engine says that requests run. Nothing was written yet.
    _reset_cache(engine)
    answers = engine.collective_rpc(
        "textnlp_fast_prepare", args=(os.fspath(update), plain, decision_timeout_s)
    )
    try:
        _check_all(answers)
        if not plain.get("partial"):
            _check_present(answers)
        _check_all(engine.collective_rpc("textnlp_fast_hold"))
        _reset_cache(engine)
    except BaseException:
        abort_all(engine)
        raise


def commit_all(engine: Engine) -> list[dict[str, Any]]:
    """The second half: all ranks keep what they hold. Raises NotRestoredError if one does not."""
    done: Sequence[Answer] = engine.collective_rpc("textnlp_fast_commit")
    late = [answer for answer in done if not answer["committed"]]
    if late:
        raise NotRestoredError(
            f"rank {_ranks(late)} did not keep the new weights, others did: {late[0]['error']}"
        )
    return [answer["report"] for answer in done]


def abort_all(engine: Engine) -> None:
    """Instead of it: all ranks put the old weights back. Raises NotRestoredError if one cannot."""
    _check_restored(engine.collective_rpc("textnlp_fast_abort"))


# --- on the side that asks ---------------------------------------------------------------------------------------


def _plain(name: str, value: Any) -> Any:
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if value is None or isinstance(value, str | bool | int):
        return value
    raise InvalidInputError(
        f"{name}= does not travel to the ranks of an engine",
        hint="Pass names, paths and numbers. What is a rank's own is for a class of yours that extends"
        " SwapWorkerExtension.",
    )


def _reset_cache(engine: Engine) -> None:
    # Older engines answer nothing.
    if engine.reset_prefix_cache() is False:
        raise SwapRefusedError(
            "the engine does not reset its prefix cache: requests run",
            hint="All ranks have the old weights. Let requests finish, hold back new ones, and swap again.",
        )


def _check_all(answers: Sequence[Answer]) -> None:
    failed = [answer for answer in answers if not answer["ready"]]
    if failed:
        error = SwapRefusedError(f"rank {_ranks(failed)} of {len(answers)}: {failed[0]['error']}")
        error.ranks = tuple(answer["rank"] for answer in failed)
        raise error


def _check_present(answers: Sequence[Answer]) -> None:
    """A tensor that no rank has under its name, nor as a part, is one whose old values would go on serving."""
    absent = set.intersection(*(set(answer["absent"]) for answer in answers)) if answers else set()
    if absent:
        raise SwapRefusedError(
            f"no rank has tensors that change: {some(sorted(absent))}",
            hint="All ranks have the old weights. Swap with layouts that say where the tensors are, or with"
            " partial=True if the engine does without them.",
        )


def _check_restored(answers: Sequence[Answer]) -> None:
    failed = [answer for answer in answers if not answer["ready"]]
    if failed:
        raise NotRestoredError(
            f"rank {_ranks(failed)} of {len(answers)} did not go back: {failed[0]['error']}"
        )


def _ranks(answers: Iterable[Answer]) -> str:
    return ", ".join(str(answer["rank"]) for answer in answers)


# --- on a rank ---------------------------------------------------------------------------------------------------


def _place() -> tuple[int, int]:
    """This worker's rank in tensor parallelism, and of how many."""
    from vllm.distributed import (  # noqa: PLC0415  (only workers have it)
        get_tensor_model_parallel_rank,
        get_tensor_model_parallel_world_size,
    )

    return int(get_tensor_model_parallel_rank()), int(get_tensor_model_parallel_world_size())


def _rank() -> int:
    return _place()[0]


def _layout(worker: Any, model: Any, rank: int, degree: int) -> dict[str, tuple[Part, ...]]:
    config = worker.vllm_config.model_config.hf_text_config
    heads = getattr(config, "num_key_value_heads", None)
    return layout_of_rank(model.state_dict(), rank=rank, degree=degree, key_value_heads=heads)


def _absent(update: str, options: Mapping[str, Any], held: Iterable[str]) -> list[str]:
    """Tensors that change and that are not in memory, neither under their names nor as parts."""
    opened = open_update(
        update, options.get("repository"), options.get("from_version"), options.get("source")
    )
    known = {part.tensor for parts in options["layout"].values() for part in parts}
    known.update(name for name in held if name not in options["layout"])
    old = opened.old or {}
    return [name for name, digest in opened.new.items() if name not in known and old.get(name) != digest]


def _not_prepared() -> InvalidInputError:
    return InvalidInputError("no swap was prepared", hint="Call textnlp_fast_prepare first.")


def _answer(rank: int, what: str, error: BaseException | None) -> Answer:
    if error is None:
        return {"rank": rank, what: True}
    return {"rank": rank, what: False, "error": f"{type(error).__name__}: {error}"}
