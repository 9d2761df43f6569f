"""Whatever fails while weights are swapped, the old ones are there bit by bit, or it is said which are not."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from delta.models import Model
from loading.swaps import ERRORS, Trap, data_of, resident, swap
from textnlp_fast.contents.windows import Progress
from textnlp_fast.errors import (
    DigestMismatchError,
    NotRestoredError,
    SwapCancelledError,
)
from textnlp_fast.loading import undo


@pytest.mark.parametrize("make_error", ERRORS, ids=["corrupt", "memory", "disk", "interrupt"])
@pytest.mark.parametrize("threads", [1, 3])
def test_a_failure_anywhere_leaves_the_old_weights(
    patch: Path, old: Model, new: Model, make_error: Callable[[], BaseException], threads: int
) -> None:
    before, after = data_of(resident(old)), data_of(resident(new))
    at = 0
    while True:
        at += 1
        loaded = resident(old)
        with pytest.MonkeyPatch.context() as patched:
            trap = Trap(patched, at, make_error())
            try:
                swap(loaded, patch, threads=threads, undo_budget_bytes=100)
            except BaseException as error:  # noqa: BLE001  (interrupts too)
                assert (
                    error is trap.error
                    or error.__cause__ is trap.error
                    or isinstance(error, SwapCancelledError)
                )
                assert data_of(loaded) == before, f"call {at}"
                assert trap.sprung
                continue
        assert not trap.sprung
        assert data_of(loaded) == after
        break
    assert at > 25


def test_cancelled_at_every_step(patch: Path, old: Model, new: Model) -> None:
    before, after = data_of(resident(old)), data_of(resident(new))
    steps = 0
    while True:
        steps += 1
        loaded, stop = resident(old), threading.Event()
        seen: list[Progress] = []

        def progress(
            step: Progress, seen: list[Progress] = seen, stop: threading.Event = stop, last: int = steps
        ) -> None:
            seen.append(step)
            if len(seen) == last:
                stop.set()

        try:
            swap(loaded, patch, cancelled=stop, progress=progress)
        except SwapCancelledError as error:
            assert "old weights" in error.hint
            assert data_of(loaded) == before
            continue
        assert data_of(loaded) == after
        break
    assert steps > 10
    assert {step.stage for step in seen} == {"check", "swap", "verify"}


def test_a_server_that_cannot_take_them(patch: Path, old: Model, new: Model) -> None:
    loaded = resident(old)

    def refuse() -> None:
        assert data_of(loaded) == data_of(resident(new))
        raise RuntimeError("the cache does not fit them")

    with pytest.raises(RuntimeError, match="cache"):
        swap(loaded, patch, before_commit=refuse)
    assert data_of(loaded) == data_of(resident(old))


def test_a_damaged_patch(patch: Path, old: Model) -> None:
    data = bytearray(patch.read_bytes())
    data[-5] ^= 4
    patch.write_bytes(data)
    loaded = resident(old)
    with pytest.raises(DigestMismatchError):
        swap(loaded, patch)
    assert data_of(loaded) == data_of(resident(old))


def test_weights_that_cannot_be_put_back_are_named(
    patch: Path, old: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = resident(old)

    def lost(self: object) -> Iterator[None]:
        raise OSError(5, "the journal is gone")
        yield

    monkeypatch.setattr(undo.Journal, "restore", lost)

    def refuse() -> None:
        raise RuntimeError("no")

    with pytest.raises(NotRestoredError, match="'q'") as caught:
        swap(loaded, patch, before_commit=refuse)
    assert set(caught.value.tensors) == {"q", "k", "scalar"}


def test_somebody_writes_to_the_weights_meanwhile(patch: Path, old: Model) -> None:
    loaded = resident(old)

    def scribble() -> None:
        loaded["q"][77] ^= 1
        raise RuntimeError("no")

    with pytest.raises(NotRestoredError) as caught:
        swap(loaded, patch, before_commit=scribble)
    assert caught.value.tensors == ("q",)
