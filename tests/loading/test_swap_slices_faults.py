"""Slices of a version, with a failure at each step: in host memory, on a device, out of a damaged repository."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import textnlp_fast
from codec.devices import NO_DEVICE, to_device, to_host
from delta.models import Model, write
from loading.swaps import ERRORS, Trap
from loading.test_swap_slices import Words, layout, model_of, moved, rank_of
from textnlp_fast.errors import DeviceError, SwapCancelledError, TextnlpFastError
from textnlp_fast.storage import Repository, TransferOptions
from textnlp_fast.storage.object_windows import ObjectWindows

RANK, DEGREE = 1, 2
Steps = tuple[Path, Model, Model]


@pytest.fixture
def steps(tmp_path: Path) -> Steps:
    """A repository with three versions, and the first and the last of them."""
    options = TransferOptions(shard_bytes=1 << 16, threads=2, prices=None)
    repository = Repository.open(tmp_path / "r", create=True, options=options, window_bytes=1 << 12)
    models = [model_of(1)]
    models += [moved(models[0], 2)]
    models += [moved(models[1], 5)]
    for n, model in enumerate(models):
        repository.push(write(model, tmp_path / f"v{n}"), "m", f"1.{n}.0")
    return tmp_path / "r", models[0], models[2]


class Rank:
    """A rank's weights, in host memory or on a device."""

    def __init__(self, model: Model, on_device: bool) -> None:
        self._host = rank_of(model, RANK, DEGREE)
        self.weights: dict[str, Any] = {
            name: to_device(array.reshape(-1).view(np.uint8)) if on_device else array
            for name, array in self._host.items()
        }

    def swap(self, repository: Path, **options: Any) -> None:
        textnlp_fast.swap(
            self.weights,
            "m@1.2.0",
            repository=repository,
            from_version="1.0.0",
            layout=layout(self._host, RANK, DEGREE),
            threads=2,
            **options,
        )

    def holds(self, model: Model) -> bool:
        wanted = rank_of(model, RANK, DEGREE)
        return all(np.array_equal(self._words(name), wanted[name].reshape(-1)) for name in wanted)

    def _words(self, name: str) -> Words:
        array = self.weights[name]
        flat = array.reshape(-1) if isinstance(array, np.ndarray) else to_host(array)
        return flat.view(np.uint16)


def fail_everywhere(steps: Steps, on_device: bool, make_error: Callable[[], BaseException], step: int) -> int:
    """Swaps with the n-th call failing, for every ``step``-th n, until none does; how often it failed."""
    repository, old, new = steps
    at, failures = 1, 0
    while True:
        rank = Rank(old, on_device)
        with pytest.MonkeyPatch.context() as patched:
            trap = Trap(patched, at, make_error(), (ObjectWindows, "read_coded"), (ObjectWindows, "prefetch"))
            try:
                rank.swap(repository, undo_budget_bytes=100)
            except BaseException as error:  # noqa: BLE001  (interrupts too)
                cause: BaseException | None = error
                while cause is not None and cause is not trap.error:
                    cause = cause.__cause__
                assert cause is trap.error or isinstance(error, SwapCancelledError)
                assert rank.holds(old), f"call {at}"
                failures += 1
                at += step
                continue
        assert not trap.sprung
        assert rank.holds(new)
        return failures


@pytest.mark.parametrize("make_error", ERRORS, ids=["corrupt", "memory", "disk", "interrupt"])
def test_a_failure_anywhere(steps: Steps, make_error: Callable[[], BaseException]) -> None:
    assert fail_everywhere(steps, False, make_error, 5) > 10


@pytest.mark.gpu
@NO_DEVICE
@pytest.mark.parametrize(
    "make_error", [ERRORS[0], lambda: DeviceError("the device fell off the bus")], ids=["corrupt", "device"]
)
def test_a_failure_anywhere_on_a_device(steps: Steps, make_error: Callable[[], BaseException]) -> None:
    assert fail_everywhere(steps, True, make_error, 17) > 5


def test_a_refusal_at_the_end(steps: Steps) -> None:
    repository, old, new = steps
    rank = Rank(old, False)

    def refuse() -> None:
        assert rank.holds(new)
        raise RuntimeError("another rank is not ready")

    with pytest.raises(RuntimeError, match="not ready"):
        rank.swap(repository, before_commit=refuse)
    assert rank.holds(old)


def test_damaged_objects(steps: Steps) -> None:
    """A byte flipped in any object that the versions' tensors are in: an error and the old bytes, or no harm at all."""
    repository, old, new = steps
    objects = [path for path in repository.rglob("*") if path.is_file() and path.stat().st_size > 2000]
    assert objects
    dice = np.random.default_rng(3)
    refused = 0
    for path in objects:
        whole = path.read_bytes()
        for place in dice.integers(len(whole), size=6):
            harmed = bytearray(whole)
            harmed[place] ^= 1 << int(dice.integers(8))
            path.chmod(0o644)
            path.write_bytes(harmed)
            rank = Rank(old, False)
            try:
                rank.swap(repository)
            except TextnlpFastError:
                refused += 1
                assert rank.holds(old), (path, place)
            else:
                assert rank.holds(new), (path, place)
        path.write_bytes(whole)
    assert refused > 5
    rank = Rank(old, False)
    rank.swap(repository)
    assert rank.holds(new)
