"""Any server that reads a folder when it starts, as an engine that rollouts change: pull, switch, restart, or go back.

The engine outlives a kill of the agent: the next agent finds it by process and start time. What is to be served stands
in a file before anything is stopped, so that whoever starts after a kill in between starts a whole version.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from signal import SIGKILL, SIGTERM
from typing import Any, Final

from textnlp_fast.adapter.rollout.engines import EngineLook, read_memory, write_memory
from textnlp_fast.adapter.rollout.probing import answers_well
from textnlp_fast.adapter.rollout.state import Mode
from textnlp_fast.contents.journal_lines import boot_id
from textnlp_fast.errors import InvalidInputError, ProviderUnavailableError
from textnlp_fast.gpu.resources.processes import process_start
from textnlp_fast.storage import Repository
from textnlp_fast.storage.names import check_name, check_version

__all__ = ["RestartEngine"]

_POLL_S: Final = 0.1
#: A child that waits for its line, so that it runs nothing before somebody knows of it.
_HELD_BACK: Final = ("sh", "-c", 'read go || exit 75; exec "$@" </dev/null', "sh")
_LONGEST_PAUSE_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class _Process:
    pid: int
    started: str
    boot: str

    @property
    def is_alive(self) -> bool:
        return self.boot == boot_id() and self.started != "" and process_start(self.pid) == self.started


class RestartEngine:
    """Runs `command`, in which the word `{model_dir}` is the folder of the version that it serves.

    `folder` keeps versions and what is remembered; of versions only the one that serves, the one before, and what is
    prepared. `ready_url` answers with 2xx once the engine serves, within `start_s` of its start. It is stopped by
    SIGTERM, and killed after `stop_s`. An engine that ends by itself is started again.

    Raises InvalidInputError for a command without `{model_dir}`. The constructor starts nothing: :meth:`start` does.
    """

    mode: Mode = "restart"

    def __init__(
        self,
        command: Sequence[str],
        folder: str | os.PathLike[str],
        repository: Repository,
        model: str,
        *,
        ready_url: str,
        environment: Mapping[str, str] | None = None,
        start_s: float = 900.0,
        stop_s: float = 60.0,
    ) -> None:
        if not command or "{model_dir}" not in command:
            raise InvalidInputError(
                "the engine's command lacks the word {model_dir}",
                hint="Write, for example: vllm serve {model_dir} --port 8000",
            )
        self._command = tuple(command)
        self._folder = Path(folder)
        self._repository = repository
        self._model = check_name(model)
        self._ready_url = ready_url
        self._environment = None if environment is None else dict(environment)
        self._start_s = start_s
        self._stop_s = stop_s
        self._path = self._folder / "engine.json"
        self._memory = read_memory(self._path)
        self._lock = threading.RLock()
        self._children: dict[int, subprocess.Popen[bytes]] = {}
        self._stopping = threading.Event()
        self._ready = False
        self._watcher: threading.Thread | None = None

    # --- what is served -------------------------------------------------------------------------------------

    def start(self, version: str | None = None) -> None:
        """Starts what was served last, else `version`; adopts an engine that runs already. Returns at once.

        Pulls the version where the folder has not got it. Raises what :meth:`Repository.pull` raises, and
        InvalidInputError where nothing says what to serve.
        """
        with self._lock:
            switching = self._memory.get("switching")
            if switching is not None:
                # An agent was killed in the middle: which of the two runs is unknown, and the old one is whole.
                self._end_process()
                self._remember(serving=switching, switching=None)
            serving = self._memory.get("serving") or version
            if serving is None:
                raise InvalidInputError(
                    "nothing says which version to serve", hint="Name one with --version."
                )
            if self._process() is None:
                self._pull(serving)
                self._remember(serving=serving)
                self._launch(serving)
        self._watcher = threading.Thread(target=self._watch, name="engine-watch", daemon=True)
        self._watcher.start()

    def close(self, *, stop_engine: bool) -> None:
        """Ends watching; with `stop_engine` the engine, too."""
        self._stopping.set()
        if self._watcher is not None:
            self._watcher.join()
        if stop_engine:
            with self._lock:
                self._end_process()

    def look(self) -> EngineLook:
        """What runs, by its process."""
        memory = self._memory
        process = self._process()
        return EngineLook(
            serving=memory.get("serving"),
            prepared=memory.get("prepared"),
            ready=process is not None and self._ready,
            run="" if process is None else f"{process.boot}:{process.pid}:{process.started}",
        )

    # --- verbs ----------------------------------------------------------------------------------------------

    def prepare(self, model: str, version: str) -> None:
        """Pulls a version beside the one that serves, reading only what that has not got."""
        if model != self._model:
            raise InvalidInputError(f"this replica serves {self._model}, not {model}", hint="Name its own.")
        self._pull(version)
        with self._lock:
            self._remember(prepared=version)

    def commit(self, version: str) -> None:
        """Stops the engine and starts it with what was prepared; where that does not answer, with what was before."""
        with self._lock:
            before = self._memory.get("serving")
            self._remember(switching=before)
            self._end_process()
            try:
                self._launch(version)
                self._await_ready(version)
            except ProviderUnavailableError:
                self._end_process()
                if before is not None:
                    self._launch(before)
                self._remember(switching=None, prepared=None)
                raise
            self._remember(serving=version, previous=before, prepared=None, switching=None)
        self._clear()

    def abort(self) -> None:
        """Forgets what was prepared."""
        with self._lock:
            self._remember(prepared=None)
        self._clear()

    def drain(self, deadline_s: float) -> int:
        """Nothing: the gateway holds requests back, and SIGTERM lets the engine finish those that run."""
        return 0

    def resume(self) -> None:
        """Nothing: the engine lets everybody in while it runs."""

    # --- versions -------------------------------------------------------------------------------------------

    def _place(self, version: str) -> Path:
        return self._folder / "versions" / check_version(version)

    def _pull(self, version: str) -> None:
        place = self._place(version)
        if place.exists():
            return  # it appears whole, by one rename
        place.parent.mkdir(parents=True, exist_ok=True)
        have = [each for each in place.parent.iterdir() if each.is_dir() and not each.name.startswith(".")]
        self._repository.pull(self._model, version, place, have=have)

    def _clear(self) -> None:
        """Removes versions that nobody goes back to."""
        keep = {self._memory.get(name) for name in ("serving", "previous", "prepared", "switching")}
        for each in (self._folder / "versions").iterdir():
            if each.name not in keep and not each.name.startswith("."):
                # Under another name first: what is half removed must not look like a version.
                gone = each.with_name(f".gone-{each.name}")
                shutil.rmtree(gone, ignore_errors=True)
                each.rename(gone)
                shutil.rmtree(gone, ignore_errors=True)

    def _remember(self, **changes: Any) -> None:
        memory = {name: value for name, value in {**self._memory, **changes}.items() if value is not None}
        write_memory(self._path, memory)
        self._memory = memory

    # --- the process ----------------------------------------------------------------------------------------

    def _process(self) -> _Process | None:
        """The engine, if it is alive."""
        found = self._memory.get("process")
        if found is None:
            return None
        process = _Process(int(found["pid"]), str(found["started"]), str(found["boot"]))
        child = self._children.get(process.pid)
        if child is not None and child.poll() is not None:
            return None
        return process if process.is_alive else None

    def _launch(self, version: str) -> None:
        """Starts the engine. It is written down before it runs anything: no kill leaves one that nobody knows."""
        words = [str(self._place(version)) if word == "{model_dir}" else word for word in self._command]
        environment = None if self._environment is None else {**os.environ, **self._environment}
        self._ready = False
        try:
            with (self._folder / "engine.log").open("ab") as log:
                child = subprocess.Popen(
                    [*_HELD_BACK, *words],
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=log,
                    env=environment,
                    start_new_session=True,
                )
        except OSError as error:
            raise ProviderUnavailableError(
                f"the engine cannot be started: {error.strerror or error}"
            ) from None
        self._children = {child.pid: child}
        self._remember(process={"pid": child.pid, "started": process_start(child.pid), "boot": boot_id()})
        assert child.stdin is not None
        with contextlib.suppress(BrokenPipeError), child.stdin:
            child.stdin.write(b"go\n")

    def _end_process(self) -> None:
        """Returns when no engine runs any more."""
        process = self._process()
        self._ready = False
        if process is None:
            return
        for signal, wait_s in ((SIGTERM, self._stop_s), (SIGKILL, 30.0)):
            # Its whole session: what it started must not hold the port, or the GPU.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal)
            end = time.monotonic() + wait_s
            while time.monotonic() < end:
                if self._process() is None:
                    return
                time.sleep(_POLL_S)
        raise ProviderUnavailableError(
            f"the engine (process {process.pid}) does not end",
            hint="A driver may hold it: look at the machine.",
        )

    def _await_ready(self, version: str) -> None:
        end = time.monotonic() + self._start_s
        while time.monotonic() < end:
            if self._process() is None:
                raise ProviderUnavailableError(
                    f"the engine ended while it loaded {version}", hint=f"See {self._folder / 'engine.log'}."
                )
            if answers_well(self._ready_url):
                self._ready = True
                return
            time.sleep(_POLL_S)
        raise ProviderUnavailableError(
            f"the engine did not answer with {version} within {self._start_s:g} s",
            hint=f"See {self._folder / 'engine.log'}.",
        )

    def _watch(self) -> None:
        """Starts the engine again where it ended, slower each time, and knows whether it is ready."""
        pause_s = 1.0
        while not self._stopping.wait(_POLL_S * 5):
            if not self._lock.acquire(blocking=False):
                continue  # a commit is under way
            try:
                serving = self._memory.get("serving")
                if self._process() is not None:
                    self._ready = answers_well(self._ready_url)
                    pause_s = 1.0 if self._ready else pause_s
                    continue
                if serving is None or self._stopping.wait(pause_s):
                    continue
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
                with contextlib.suppress(ProviderUnavailableError, InvalidInputError):
                    self._launch(serving)
            finally:
                self._lock.release()
