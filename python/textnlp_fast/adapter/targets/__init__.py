"""What runs a deployment: each target compiles a plan to the files that it takes. Pure: a plan in, texts out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Final, Literal, cast, get_args

from textnlp_fast.errors import InvalidInputError

if TYPE_CHECKING:
    from textnlp_fast.adapter.planning import DeploymentPlan

__all__ = ["ONE_A_MACHINE", "TARGETS", "File", "Target", "compile_plan"]

Target = Literal["k8s", "kserve", "ray", "skypilot", "instances"]
TARGETS: Final[tuple[str, ...]] = get_args(Target)
#: Whose machines hold one replica each.
ONE_A_MACHINE: Final = frozenset({"skypilot", "instances"})
_HOMES: Final = {
    "k8s": "kubernetes",
    "kserve": "kserve",
    "ray": "ray_serve",
    "skypilot": "skypilot",
    "instances": "instances",
}


@dataclass(frozen=True)
class File:
    """A file to be made: its name and its text."""

    name: str
    text: str


def compile_plan(plan: DeploymentPlan, target: str) -> tuple[File, ...]:
    """The files by which `target` runs the plan; the same plan gives the same bytes. Raises InvalidInputError."""
    if target not in _HOMES:
        raise InvalidInputError(f"there is no target {target!r}", hint=f"Known are: {', '.join(TARGETS)}.")
    home = import_module(f"{__name__}.{_HOMES[target]}")
    make = cast("Callable[[DeploymentPlan], tuple[File, ...]]", home.compile_files)
    return make(plan)
