"""A vLLM engine as one that rollouts change in place: all ranks hold the new weights before any keeps them.

    llm = LLM(model="...", worker_extension_cls="textnlp_fast.integrations.vllm.SwapWorkerExtension")
    replica = VllmReplica(llm, "s3://bucket/models", "custom-llm", "1.1.0")
    agent = ReplicaAgent(replica, "/var/lib/replica")

Tested with the stand-in for vLLM's interface that `vllm` is tested with, not with vLLM itself.
"""

from __future__ import annotations

import os
import secrets
import threading
from pathlib import Path
from typing import Any, Final

from textnlp_fast.adapter.rollout.engines import EngineLook, write_memory
from textnlp_fast.adapter.rollout.gate import Gate
from textnlp_fast.adapter.rollout.state import Mode
from textnlp_fast.errors import InvalidInputError, NotRestoredError, SwapRefusedError
from textnlp_fast.integrations.vllm import Engine, abort_all, commit_all, prepare_all

__all__ = ["VllmReplica"]

_MEMORY: Final = "serving.json"


class VllmReplica:
    """An engine that serves `version` of `model`; as `TensorReplica` otherwise.

    `repository` is a path or URL that all ranks reach; `options` are those of `swap_all`.
    """

    mode: Mode = "swap"

    def __init__(
        self,
        engine: Engine,
        repository: str | os.PathLike[str],
        model: str,
        version: str,
        *,
        folder: str | os.PathLike[str] | None = None,
        gate: Gate | None = None,
        **options: Any,
    ) -> None:
        self.gate = gate or Gate()
        self._engine = engine
        self._repository = os.fspath(repository)
        self._model = model
        self._serving: str | None = version
        self._memory = None if folder is None else Path(folder) / _MEMORY
        self._options = options
        self._lock = threading.Lock()
        self._prepared: str | None = None
        self._run = secrets.token_hex(8)

    def look(self) -> EngineLook:
        """What the ranks hold."""
        with self._lock:
            return EngineLook(
                serving=self._serving,
                prepared=self._prepared,
                ready=self._serving is not None,
                run=self._run,
                running=self.gate.running,
                is_open=self.gate.is_open,
            )

    def prepare(self, model: str, version: str) -> None:
        """All ranks hold the new weights; needs the gate closed and no request running."""
        if model != self._model:
            raise InvalidInputError(f"this replica serves {self._model}, not {model}", hint="Name its own.")
        if self.gate.is_open or self.gate.running:
            raise SwapRefusedError(
                f"{self.gate.running} requests run, or may come", hint="Drain the replica first."
            )
        # What fused tensors are checked against is the version that is known to be there.
        options = {"from_version": self._serving, **self._options, "repository": self._repository}
        try:
            prepare_all(self._engine, f"{model}@{version}", **options)
        except NotRestoredError:
            self._lose()
            raise
        with self._lock:
            self._prepared = version

    def commit(self, version: str) -> None:
        """All ranks keep them."""
        if self._prepared != version:
            raise InvalidInputError(f"{version} was not prepared", hint="Prepare it first.")
        try:
            commit_all(self._engine)
        except NotRestoredError:
            self._lose()
            raise
        if self._memory is not None:
            write_memory(self._memory, {"model": self._model, "version": version})
        with self._lock:
            self._serving, self._prepared = version, None

    def abort(self) -> None:
        """All ranks put the old weights back."""
        try:
            abort_all(self._engine)
        except NotRestoredError:
            self._lose()
            raise
        with self._lock:
            self._prepared = None

    def drain(self, deadline_s: float) -> int:
        """Closes the gate."""
        return self.gate.close(deadline_s)

    def resume(self) -> None:
        """Opens the gate."""
        self.gate.open()

    def _lose(self) -> None:
        with self._lock:
            self._serving = self._prepared = None
