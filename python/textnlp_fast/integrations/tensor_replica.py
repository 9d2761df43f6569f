"""A process that serves out of its own tensors, as an engine that rollouts change in place.

replica = TensorReplica(weights, "s3://bucket/models", "custom-llm", "1.1.0")
agent = ReplicaAgent(replica, "/var/lib/replica", port=9402)
with replica.gate.request():      # around each answer
    ...
"""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from textnlp_fast.adapter.rollout.engines import EngineLook, read_memory, write_memory
from textnlp_fast.adapter.rollout.gate import Gate
from textnlp_fast.adapter.rollout.state import Mode
from textnlp_fast.errors import InvalidInputError, NotRestoredError, SwapCancelledError, SwapRefusedError
from textnlp_fast.loading.held_swap import HeldSwap
from textnlp_fast.storage import Repository

__all__ = ["TensorReplica", "last_served"]

_DECISION_S: Final = 600.0
_MEMORY: Final = "serving.json"


def last_served(folder: str | os.PathLike[str], default: str) -> str:
    """The version to load at the start: the one that was committed last with this folder, else `default`."""
    return str(read_memory(Path(folder) / _MEMORY).get("version", default))


class TensorReplica:
    """Tensors by their names in the checkpoint, or a module, that hold `version` of `model` now.

    `gate` is closed while they are changed: take :meth:`Gate.request` around whatever reads them. With `folder`, the
    version that was committed last is found again by :func:`last_served`. `before_commit` may refuse new weights, and
    drops what was computed with the old ones; `options` are those of :func:`textnlp_fast.swap`.
    """

    mode: Mode = "swap"

    def __init__(
        self,
        tensors: Mapping[str, Any] | Any,
        repository: str | os.PathLike[str] | Repository,
        model: str,
        version: str,
        *,
        folder: str | os.PathLike[str] | None = None,
        gate: Gate | None = None,
        before_commit: Callable[[], None] | None = None,
        **options: Any,
    ) -> None:
        self.gate = gate or Gate()
        self._tensors = tensors
        self._repository = repository
        self._model = model
        self._serving: str | None = version
        self._memory = None if folder is None else Path(folder) / _MEMORY
        self._before_commit = before_commit
        self._options = options
        self._lock = threading.Lock()
        self._prepared: str | None = None
        self._pending: HeldSwap | None = None
        self._run = secrets.token_hex(8)
        self._broken = False

    @property
    def version(self) -> str | None:
        """The version that the tensors hold; None while they hold none that is known."""
        return self._serving

    def look(self) -> EngineLook:
        """What the tensors hold."""
        with self._lock:
            return EngineLook(
                serving=self._serving,
                prepared=self._prepared,
                ready=not self._broken,
                run=self._run,
                running=self.gate.running,
                is_open=self.gate.is_open,
            )

    def prepare(self, model: str, version: str) -> None:
        """Puts new weights in place and holds them; needs the gate closed and no request running.

        Raises SwapRefusedError while requests run, and whatever :func:`textnlp_fast.swap` raises.
        """
        if model != self._model:
            raise InvalidInputError(f"this replica serves {self._model}, not {model}", hint="Name its own.")
        if self.gate.is_open or self.gate.running:
            raise SwapRefusedError(
                f"{self.gate.running} requests run, or may come", hint="Drain the replica first."
            )
        pending = HeldSwap(_DECISION_S)
        options = {"repository": self._repository, **self._options}
        with self._lock:
            self._broken = True  # until it is known that either version is whole
        pending.start(self._tensors, f"{model}@{version}", options)
        if pending.error is None and pending.hold():
            try:
                if self._before_commit is not None:
                    self._before_commit()
            except BaseException:
                pending.finish(False)
                self._settle(pending)
                raise
            with self._lock:
                self._broken, self._prepared, self._pending = False, version, pending
            return
        pending.finish(False)
        self._settle(pending)
        assert pending.error is not None
        raise pending.error

    def commit(self, version: str) -> None:
        """Keeps the new weights."""
        pending = self._pending
        if pending is None or self._prepared != version:
            raise InvalidInputError(f"{version} was not prepared", hint="Prepare it first.")
        pending.finish(True)
        if pending.error is not None:
            self._settle(pending)
            raise pending.error
        # After the memory has changed: whoever is killed before this line loads, and reports, the version before.
        if self._memory is not None:
            write_memory(self._memory, {"model": self._model, "version": version})
        with self._lock:
            self._serving, self._prepared, self._pending = version, None, None

    def abort(self) -> None:
        """Puts the old weights back."""
        pending = self._pending
        if pending is None:
            return
        pending.finish(False)
        self._settle(pending)
        if pending.error is not None and not isinstance(pending.error, SwapCancelledError):
            raise pending.error

    def drain(self, deadline_s: float) -> int:
        """Closes the gate."""
        return self.gate.close(deadline_s)

    def resume(self) -> None:
        """Opens the gate."""
        self.gate.open()

    def _settle(self, pending: HeldSwap) -> None:
        """After a swap that was not kept: the old weights are whole, or nothing is."""
        with self._lock:
            self._prepared, self._pending = None, None
            self._broken = isinstance(pending.error, NotRestoredError)
            if self._broken:
                self._serving = None
