"""The machine that is examined: its files, its environment and its commands, each read within bounds.

Everything that the probes know comes through here, so a folder and canned answers can stand in for a machine.
"""

from __future__ import annotations

import os
import resource
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

__all__ = ["Answer", "Machine", "Runner", "run_command"]

_FILE_LIMIT = 1 << 20
_OUTPUT_LIMIT = 4 << 20
_NAMES_LIMIT = 20_000


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came of a command. `status` is None where it did not run, or had to be killed."""

    status: int | None
    output: str = ""
    errors: str = ""
    missing: bool = False
    """There is no such command."""
    timed_out: bool = False
    stuck: bool = False
    """It did not even end when it was killed: it waits in the kernel."""
    truncated: bool = False
    """It wrote more than anybody reads, and was killed for it."""

    @property
    def ok(self) -> bool:
        return self.status == 0 and not self.truncated

    @property
    def text(self) -> str:
        """All that it said, for messages that some versions print here and others there."""
        return "\n".join(part for part in (self.output.strip(), self.errors.strip()) if part)


class Runner(Protocol):
    """Runs a command within a time limit and gives at most so many bytes of what it says."""

    def __call__(
        self, arguments: Sequence[str], *, environment: Mapping[str, str], timeout_s: float, limit_bytes: int
    ) -> Answer: ...


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Where to look. The defaults are this machine, this process' environment and this Python's packages."""

    root: Path = Path("/")
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    runner: Runner = field(default_factory=lambda: run_command)
    python: str = sys.executable
    site_paths: tuple[str, ...] = field(default_factory=lambda: tuple(path for path in sys.path if path))
    """Folders that Python imports from, in their order, as they are: not below `root`."""
    space: Mapping[str, int] | None = None
    """Sizes of file systems in bytes, by where they are mounted; None: ask the system."""
    memlock_bytes: int | None = -2
    """Memory that a process may lock; None: without limit; -2: ask the system."""
    architecture: str = field(default_factory=lambda: os.uname().machine)
    may_open: Callable[[Path], bool] = field(default=lambda path: os.access(path, os.R_OK | os.W_OK))
    """Whether this user may open a device file to read and write."""

    def path(self, path: str) -> Path:
        """Where an absolute path of the machine lies."""
        return self.root / path.lstrip("/")

    def outside(self, path: Path) -> str:
        """The path as the machine knows it."""
        try:
            return "/" + str(path.relative_to(self.root))
        except ValueError:
            return str(path)

    def exists(self, path: str) -> bool:
        try:
            return self.path(path).exists()
        except OSError:
            return False

    def is_dir(self, path: str) -> bool:
        try:
            return self.path(path).is_dir()
        except OSError:
            return False

    def read(self, path: str, *, limit_bytes: int = _FILE_LIMIT) -> str | None:
        """The start of a text file; None where there is none that can be read."""
        data = self.read_bytes(path, limit_bytes=limit_bytes)
        return None if data is None else data.decode("utf-8", "replace")

    def read_bytes(self, path: str, *, limit_bytes: int = _FILE_LIMIT, at: int = 0) -> bytes | None:
        """Bytes of a file, from `at` on, or from its end where `at` is negative."""
        target = self.path(path)
        try:
            # A pipe or a device in a file's place would keep us waiting.
            if not target.is_file():
                return None
            with target.open("rb") as file:
                if at:
                    size = file.seek(0, os.SEEK_END)
                    file.seek(max(0, size + at) if at < 0 else at)
                return file.read(limit_bytes)
        except OSError:
            return None

    def list(self, path: str, pattern: str = "*") -> list[str]:
        """Names in a folder that match, sorted; none where there is no folder that can be read."""
        try:
            found = []
            for entry in self.path(path).glob(pattern):
                found.append(entry.name)
                if len(found) >= _NAMES_LIMIT:
                    break
            return sorted(found)
        except (OSError, ValueError):
            return []

    def real(self, path: str) -> str:
        """The path without symbolic links."""
        try:
            return self.outside(Path(os.path.realpath(self.path(path))))
        except OSError:
            return path

    def which(self, command: str) -> str | None:
        """Where PATH finds a command."""
        for folder in self.environment.get("PATH", "").split(os.pathsep):
            candidate = f"{folder.rstrip('/')}/{command}"
            if folder.startswith("/") and self.exists(candidate) and not self.is_dir(candidate):
                return candidate
        return None

    def run(
        self, *arguments: str, timeout_s: float = 20.0, limit_bytes: int = _OUTPUT_LIMIT, lookup: bool = True
    ) -> Answer:
        """What a command says; nothing of it goes through a shell. It is looked for on PATH first."""
        if lookup and self.which(arguments[0]) is None:
            return Answer(status=None, missing=True)
        if self.runner is run_command and self.root != Path("/"):
            return Answer(status=None, missing=True)  # a command would tell of this machine, not of that tree
        environment = {**self.environment, "LC_ALL": "C"}
        return self.runner(arguments, environment=environment, timeout_s=timeout_s, limit_bytes=limit_bytes)

    def size_of(self, path: str) -> int | None:
        """Bytes of the file system that is mounted there; None where nothing is."""
        if self.space is not None:
            return self.space.get(path)
        try:
            status = os.statvfs(self.path(path))
        except OSError:
            return None
        return status.f_frsize * status.f_blocks

    def lockable_bytes(self) -> int | None:
        """Memory that a process may lock (`ulimit -l`); None: without limit."""
        if self.memlock_bytes != -2:
            return self.memlock_bytes
        soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
        return None if soft == resource.RLIM_INFINITY else soft


def run_command(
    arguments: Sequence[str], *, environment: Mapping[str, str], timeout_s: float, limit_bytes: int
) -> Answer:
    """Runs a command in a session of its own, and kills all of that when the time or the output is used up."""
    try:
        process = subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=dict(environment),
            start_new_session=True,
        )
    except FileNotFoundError:
        return Answer(status=None, missing=True)
    except (OSError, ValueError) as error:
        return Answer(status=None, errors=str(error))
    try:
        return _answer_of(process, time.monotonic() + timeout_s, limit_bytes)
    except BaseException:
        _kill(process)  # in a session of its own it does not see the key that interrupts us
        raise


def _answer_of(process: subprocess.Popen[bytes], deadline: float, limit_bytes: int) -> Answer:
    chunks, truncated = _read(process, deadline, limit_bytes)
    timed_out = False
    if not truncated:
        try:
            process.wait(timeout=max(0.05, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            timed_out = True
    stuck = (timed_out or truncated) and not _kill(process)
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()
    return Answer(
        status=None if timed_out or truncated else process.returncode,
        output=chunks[0].decode("utf-8", "replace"),
        errors=chunks[1].decode("utf-8", "replace"),
        timed_out=timed_out,
        stuck=stuck,
        truncated=truncated,
    )


def _read(
    process: subprocess.Popen[bytes], deadline: float, limit_bytes: int
) -> tuple[tuple[bytes, bytes], bool]:
    """What it writes until it stops writing, the time is over, or it is too much; and whether it was too much."""
    streams = [stream for stream in (process.stdout, process.stderr) if stream is not None]
    kept: list[bytearray] = [bytearray() for _ in streams]
    with selectors.DefaultSelector() as selector:
        for number, stream in enumerate(streams):
            selector.register(stream, selectors.EVENT_READ, number)
        while selector.get_map() and (left := deadline - time.monotonic()) > 0:
            for key, _ in selector.select(left):
                data = os.read(key.fd, 1 << 16)
                if not data:
                    selector.unregister(key.fileobj)
                kept[key.data] += data
                if sum(map(len, kept)) > limit_bytes:
                    return (bytes(kept[0][:limit_bytes]), bytes(kept[1][:limit_bytes])), True
    return (bytes(kept[0]), bytes(kept[1])), False


def _kill(process: subprocess.Popen[bytes]) -> bool:
    """Kills the command and its children; false if it stays: whoever waits in the kernel takes no signal."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    try:
        process.wait(timeout=2.0)
    except subprocess.TimeoutExpired:
        return False
    return True
