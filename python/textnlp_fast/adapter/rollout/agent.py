"""The agent beside (or in) each engine: says what is served, and changes it when it is told.

`GET /v1/state`; `POST /v1/prepare`, `commit`, `abort`, `drain`, `resume` and `fence`, with JSON. Work goes on after the
answer; `state` says how far it is. Whoever comes with a smaller fence than was heard before is refused with 409.
"""

from __future__ import annotations

import hmac
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from textnlp_fast.adapter.rollout.agent_server import AgentServer, Refusal
from textnlp_fast.adapter.rollout.engines import Engine, read_memory, write_memory
from textnlp_fast.errors import InvalidInputError, TextnlpFastError
from textnlp_fast.gpu.health.addresses import guarded, host_name, is_loopback
from textnlp_fast.storage.names import check_name, check_version
from textnlp_fast.storage.registry.grammar import check_target

__all__ = ["DEFAULT_AGENT_PORT", "ReplicaAgent"]

DEFAULT_AGENT_PORT: Final = 9402
_LONGEST_DRAIN_S: Final = 3600.0
_MOST_TARGETS: Final = 100


class ReplicaAgent:
    """Serves until :meth:`close`, which leaves the engine as it is.

    Listens on `host` and `port` (0: any that is free). With `token`, requests carry `Authorization: Bearer TOKEN`; an
    address that other machines reach needs one. Nothing is encrypted: beyond a network that you trust, put TLS in
    front. `folder` keeps the fences that it has heard, over kills of the process, too.

    Raises InvalidInputError for an address without the token that it needs, or one that it cannot listen on.
    """

    def __init__(
        self,
        engine: Engine,
        folder: str | Path,
        *,
        host: str = "127.0.0.1",
        port: int = DEFAULT_AGENT_PORT,
        token: str | None = None,
    ) -> None:
        _, address = guarded(host, port, token)
        self._engine = engine
        self._token = token
        self._memory = Path(folder) / "agent.json"
        fences = read_memory(self._memory).get("fences", {})
        self._fences = {str(target): int(fence) for target, fence in fences.items()}
        self._lock = threading.Lock()
        self._operation = ""
        self._error = ""
        self._worker: threading.Thread | None = None
        self._server = AgentServer((address[0], address[1]), self._answer, self._admit)
        self.host, self.port = self._server.address
        self._names = {host.lower(), self.host.lower(), "localhost"}

    @property
    def url(self) -> str:
        """Where it serves."""
        return f"http://[{self.host}]:{self.port}" if ":" in self.host else f"http://{self.host}:{self.port}"

    def close(self) -> None:
        """Stops listening, and waits for the work that is under way."""
        self._server.close()
        worker = self._worker
        if worker is not None:
            worker.join()

    def __enter__(self) -> ReplicaAgent:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- requests -------------------------------------------------------------------------------------------

    def _admit(self, authorization: str, host: str) -> None:
        if self._token is not None:
            given = authorization.encode("latin-1", "replace")
            if not hmac.compare_digest(given, f"Bearer {self._token}".encode()):
                raise Refusal(401, "the token is missing or wrong")
            return
        # A page in a browser of this machine may send requests here under a name of its own; not under these.
        name = host_name(host)
        if name not in self._names and not is_loopback(name):
            raise Refusal(403, "the host is not this machine")

    def _answer(self, method: str, path: str, body: Mapping[str, Any] | None) -> dict[str, Any]:
        if path == "/v1/state" and method == "GET":
            return self.state()
        verb = path.removeprefix("/v1/")
        if verb not in ("prepare", "commit", "abort", "drain", "resume", "fence"):
            raise Refusal(404, "there are state, prepare, commit, abort, drain, resume and fence below /v1")
        if method != "POST" or body is None:
            raise Refusal(405, "verbs are posted, with JSON")
        try:
            self._check_fence(body)
            if verb == "drain":
                deadline_s = _seconds(body.get("deadline_s", 0))
                return {"running": self._engine.drain(deadline_s), **self.state()}
            if verb == "resume":
                self._resume()
            elif verb != "fence":
                self._begin(verb, body)
        except InvalidInputError as error:
            raise Refusal(400, str(error.args[0])) from None
        except TextnlpFastError as error:
            raise Refusal(503, str(error.args[0])) from None
        return self.state()

    def state(self) -> dict[str, Any]:
        """What is served and what is under way, as plain data."""
        with self._lock:
            busy = self._worker is not None and self._worker.is_alive()
            operation, error = self._operation, self._error
            fence = max(self._fences.values(), default=0)
        look = self._engine.look()
        return {
            "format": 1,
            "mode": self._engine.mode,
            "serving": look.serving,
            "prepared": look.prepared,
            "ready": look.ready,
            "run": look.run,
            "running": look.running,
            "open": look.is_open,
            "busy": busy,
            "operation": operation,
            "error": error,
            "fence": fence,
        }

    def _check_fence(self, body: Mapping[str, Any]) -> None:
        """Remembers the largest, on disk before anything is done under it."""
        fence, target = body.get("fence"), check_target(body.get("target", ""))
        if isinstance(fence, bool) or not isinstance(fence, int) or not 0 < fence < 1 << 52:
            raise InvalidInputError("fence is missing, or no number")
        with self._lock:
            known = self._fences.get(target, 0)
            if fence < known:
                raise Refusal(409, f"a later controller was here: fence {known}, not {fence}")
            if fence > known:
                if target not in self._fences and len(self._fences) >= _MOST_TARGETS:
                    raise InvalidInputError(f"this replica has heard from {_MOST_TARGETS} targets already")
                write_memory(self._memory, {"fences": {**self._fences, target: fence}})
                self._fences[target] = fence

    def _resume(self) -> None:
        with self._lock:
            if self._worker is not None and self._worker.is_alive():
                raise Refusal(503, "the replica is at work; its gate stays closed")
        if self._engine.mode == "swap" and self._engine.look().prepared is not None:
            raise Refusal(503, "weights are between two versions; commit or abort first")
        self._engine.resume()

    def _begin(self, verb: str, body: Mapping[str, Any]) -> None:
        operation, model, version = body.get("operation"), body.get("model"), body.get("version")
        if not isinstance(operation, str) or not 0 < len(operation) <= 300:
            raise InvalidInputError("operation is missing, or no text")
        if not isinstance(model, str) or not isinstance(version, str):
            raise InvalidInputError("model or version is missing")
        check_name(model)
        if verb != "abort" or version:
            check_version(version)
        with self._lock:
            if operation == self._operation:
                return  # heard before: under way, or done
            if self._worker is not None and self._worker.is_alive():
                raise Refusal(503, "the replica is at work on something else")
            self._operation, self._error = operation, ""
            self._worker = threading.Thread(
                target=self._work, args=(verb, model, version), name=f"agent-{verb}", daemon=True
            )
            self._worker.start()

    def _work(self, verb: str, model: str, version: str) -> None:
        error = ""
        try:
            self._do(verb, model, version)
        except TextnlpFastError as wrong:
            error = f"{type(wrong).__name__}: {wrong.args[0]}"
        except Exception as wrong:  # noqa: BLE001  (an engine's own error, which the controller has to hear of)
            error = f"{type(wrong).__name__}: {wrong}"
        with self._lock:
            self._error = error[:1000]

    def _do(self, verb: str, model: str, version: str) -> None:
        look = self._engine.look()
        if verb == "abort":
            if look.prepared is not None:
                self._engine.abort()
            return
        if verb == "commit":
            if look.prepared == version:
                self._engine.commit(version)
            elif look.serving != version or look.prepared is not None:
                raise InvalidInputError(f"{version} was not prepared", hint="Prepare it first.")
            return
        if look.prepared == version:
            return
        if look.prepared is not None:
            self._engine.abort()
        if look.serving != version:
            self._engine.prepare(model, version)


def _seconds(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _LONGEST_DRAIN_S:
        raise InvalidInputError(f"deadline_s is no number from 0 to {_LONGEST_DRAIN_S:g}")
    return float(value)
