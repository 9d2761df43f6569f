"""What an agent asks of the engine beside it, whichever way that takes new weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from textnlp_fast.adapter.rollout.state import Mode
from textnlp_fast.errors import InvalidInputError
from textnlp_fast.state_files import read_state, write_state

__all__ = ["Engine", "EngineLook", "read_memory", "write_memory"]

_FORMAT: Final = 1
_LIMIT_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineLook:
    """What an engine is now, truly."""

    serving: str | None
    """The version that answers are computed with."""
    prepared: str | None
    """The version that is one commit away."""
    ready: bool
    """Whether it answers requests, its gate aside."""
    run: str
    """Another for each process that ever serves here."""
    running: int | None = None
    """Requests under way; None where it does not say."""
    is_open: bool = False
    """Whether its gate lets requests in; False where it has none."""


class Engine(Protocol):
    """An engine that takes versions of one model. The agent calls one of prepare, commit and abort at a time.

    Each raises TextnlpFastError where it did not work; then the engine serves what it served before, or `look` says
    that it is not ready.
    """

    mode: Mode
    """`swap`: prepare writes into the weights that serve, so nothing may run. `restart`: only commit does."""

    def look(self) -> EngineLook:
        """At any time, from any thread."""
        ...

    def prepare(self, model: str, version: str) -> None:
        """Gets a version to where one commit makes it serve; the version that serves is one abort away."""
        ...

    def commit(self, version: str) -> None:
        """Makes what was prepared serve."""
        ...

    def abort(self) -> None:
        """Gives up what was prepared."""
        ...

    def drain(self, deadline_s: float) -> int:
        """Lets no request in, waits for those that run; returns how many still do (0 where it does not say)."""
        ...

    def resume(self) -> None:
        """Lets requests in."""
        ...


def read_memory(path: Path) -> dict[str, Any]:
    """What was written into a file by :func:`write_memory`; empty if there is none. Raises CorruptDataError."""
    found = read_state(
        path,
        _FORMAT,
        limit_bytes=_LIMIT_BYTES,
        what="not what an agent wrote",
        hint="Remove it: the agent begins with what it is told to serve.",
    )
    return {} if found is None else found


def write_memory(path: Path, document: Mapping[str, Any]) -> None:
    """Replaces the file, on disk when this returns; whoever is killed on the way leaves the old one."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidInputError(f"cannot write {path}: {error.strerror or error}") from error
    write_state(path, _FORMAT, document)
