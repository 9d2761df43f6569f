"""Situations that machines with GPUs get into, and what is to be said of each.

`wrong` are all verdicts that are not ok, by rule, in any order; `fine` are rules that must say ok; `commands` are
pieces that the commands of a rule must have.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from fakes.cuda_machine.machine import CudaMachine

__all__ = ["PROBLEM", "SITUATIONS", "UNKNOWN", "WARNING", "Situation", "situation"]

PROBLEM, WARNING, UNKNOWN = "problem", "warning", "unknown"


@dataclass(frozen=True, kw_only=True)
class Situation:
    """A machine, and what the doctor must say of it."""

    build: Callable[[CudaMachine], object]
    wrong: tuple[tuple[str, str], ...] = ()
    fine: tuple[str, ...] = ()
    commands: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    says: Mapping[str, str] = field(default_factory=dict)
    """Words of a rule's sentence or its evidence."""
    healthy: bool = True


SITUATIONS: dict[str, Situation] = {}


def situation(
    name: str,
    build: Callable[[CudaMachine], object],
    *,
    wrong: Mapping[str, str] | tuple[tuple[str, str], ...] = (),
    fine: tuple[str, ...] = (),
    commands: Mapping[str, tuple[str, ...] | str] | None = None,
    says: Mapping[str, str] | None = None,
) -> None:
    listed = tuple(wrong.items()) if isinstance(wrong, Mapping) else wrong
    assert name not in SITUATIONS
    SITUATIONS[name] = Situation(
        build=build,
        wrong=listed,
        fine=fine,
        commands={
            rule: (part,) if isinstance(part, str) else part for rule, part in (commands or {}).items()
        },
        says=says or {},
        healthy=all(level != PROBLEM for _, level in listed),
    )
