"""Models as a process has them in memory, and traps for what a swap calls."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import textnlp_fast
from delta.models import Model, Tensor, make, write
from textnlp_fast.contents.windows import OpenFiles
from textnlp_fast.delta import codec
from textnlp_fast.errors import CorruptDataError
from textnlp_fast.loading import exchange, overwrite, swapping, undo
from textnlp_fast.tensors import device_memory

Weights = dict[str, npt.NDArray[np.uint8]]
BUDGET = 64 << 20


def swap(loaded: Any, patch: Path, **options: Any) -> swapping.SwapReport:
    return textnlp_fast.swap(loaded, patch, **{"memory_budget_bytes": BUDGET, "threads": 2, **options})


def both(tmp_path: Path, old: Model, new: Model) -> Path:
    return make(write(old, tmp_path / "old"), write(new, tmp_path / "new"), tmp_path / "p.tnpatch")


def tensors_of(model: Model) -> dict[str, Tensor]:
    return {
        name: tensor for file in model.values() if isinstance(file, dict) for name, tensor in file.items()
    }


def resident(model: Model) -> Weights:
    """The model's tensors, as a process has them."""
    return {name: np.frombuffer(tensor.data, np.uint8).copy() for name, tensor in tensors_of(model).items()}


def data_of(weights_: Weights) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in weights_.items()}


class Trap:
    """Counts calls of everything that a swap uses and raises at the n-th, once."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, at: int, error: BaseException, *more: tuple[Any, str]
    ) -> None:
        self.calls = 0
        self.at = at
        self.error = error
        self.sprung = False
        self._lock = threading.Lock()
        for owner, name in (
            (codec, "encode"),
            (codec, "encode_into"),
            (codec, "decode_into"),
            (codec, "decode_many"),
            (device_memory.DeviceArray, "empty"),
            (device_memory, "read_device"),
            (device_memory, "write_device"),
            (device_memory, "move_on_device"),
            (exchange, "_hash"),
            (OpenFiles, "read"),
            (overwrite.Overwrite, "_make_way"),
            (undo.Journal, "_keep"),
            *more,
        ):
            monkeypatch.setattr(owner, name, self._wrapped(getattr(owner, name)))

    def _wrapped(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*arguments: Any, **options: Any) -> Any:
            with self._lock:
                self.calls += 1
                springs = self.calls == self.at and not self.sprung
                self.sprung = self.sprung or springs
            if springs:
                raise self.error
            return function(*arguments, **options)

        return wrapper


ERRORS: list[Callable[[], BaseException]] = [
    lambda: CorruptDataError("a bad frame"),
    lambda: MemoryError("none left"),
    lambda: OSError(5, "the disk went away"),
    KeyboardInterrupt,
]
