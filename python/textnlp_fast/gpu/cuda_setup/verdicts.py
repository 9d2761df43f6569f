"""What a rule says of the facts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

__all__ = ["Level", "Verdict", "fine", "problem", "unknown", "warning"]


class Level(str, Enum):
    """How it is."""

    OK = "ok"
    WARNING = "warning"
    """It works, but slower, or only until something else changes."""
    PROBLEM = "problem"
    """GPU programs fail, or some of them do."""
    UNKNOWN = "unknown"
    """It could not be found out; the evidence says why."""

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One sentence on one matter, what it rests on, and the commands that mend it."""

    level: Level
    summary: str
    evidence: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    """To be run in a shell, in their order."""
    rule: str = ""
    group: str = ""
    source: str = ""
    """Who says that it is so: the document that the rule was made from."""


def fine(summary: str, *, evidence: Iterable[str] = ()) -> Verdict:
    return Verdict(level=Level.OK, summary=summary, evidence=tuple(evidence))


def warning(summary: str, *, evidence: Iterable[str] = (), commands: Iterable[str] = ()) -> Verdict:
    return Verdict(level=Level.WARNING, summary=summary, evidence=tuple(evidence), commands=tuple(commands))


def problem(summary: str, *, evidence: Iterable[str] = (), commands: Iterable[str] = ()) -> Verdict:
    return Verdict(level=Level.PROBLEM, summary=summary, evidence=tuple(evidence), commands=tuple(commands))


def unknown(summary: str, *, evidence: Iterable[str] = (), commands: Iterable[str] = ()) -> Verdict:
    return Verdict(level=Level.UNKNOWN, summary=summary, evidence=tuple(evidence), commands=tuple(commands))
