"""Stages of a version's life and the moves between them: a state machine that a repository may choose for itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Final

from textnlp_fast.errors import InvalidInputError
from textnlp_fast.storage.registry.grammar import check_actor, check_stage

__all__ = [
    "DEFAULT_LIFECYCLE",
    "Lifecycle",
    "Move",
    "Stage",
    "check_roles",
    "lifecycle_document",
    "may",
    "read_lifecycle",
]

_MOST_STAGES: Final = 64
_MOST_PATTERNS: Final = 1000
Roles = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage. Of `keep` ones no version is ever collected; a `final` one is left by no move.

    `replaces_to`: only one version may be here, and whoever enters sends the one before to that stage.
    """

    name: str
    keep: bool = False
    final: bool = False
    replaces_to: str | None = None


@dataclass(frozen=True, slots=True)
class Move:
    """A move that is allowed, to those who have the `role` (None: to everybody)."""

    source: str
    target: str
    role: str | None = None


@dataclass(frozen=True, slots=True)
class Lifecycle:
    """Stages, the first of which every version begins in, and the moves between them."""

    stages: tuple[Stage, ...]
    moves: tuple[Move, ...]

    @property
    def initial(self) -> str:
        return self.stages[0].name

    @property
    def released(self) -> frozenset[str]:
        """Stages that are no reason to keep a version."""
        return frozenset(stage.name for stage in self.stages if not stage.keep)

    def stage(self, name: str) -> Stage:
        """The stage of this name. Raises InvalidInputError."""
        for stage in self.stages:
            if stage.name == name:
                return stage
        known = ", ".join(stage.name for stage in self.stages)
        raise InvalidInputError(f"there is no stage {name!r}", hint=f"The stages are: {known}.")

    def moves_from(self, name: str) -> list[Move]:
        """The moves that leave a stage. From one that the rules no longer have, all go back to the beginning."""
        if all(stage.name != name for stage in self.stages):
            return [Move(name, self.initial)]
        return [move for move in self.moves if move.source == name]


DEFAULT_LIFECYCLE: Final = Lifecycle(
    (
        Stage("draft"),
        Stage("staging", keep=True),
        Stage("production", keep=True, replaces_to="archived"),
        Stage("archived"),
    ),
    (
        Move("draft", "staging"),
        Move("draft", "archived"),
        Move("staging", "production"),
        Move("staging", "draft"),
        Move("staging", "archived"),
        Move("production", "archived"),
        Move("archived", "staging"),
    ),
)


def may(roles: Roles, actor: str, role: str | None) -> bool:
    """Whether the actor has the role; everybody has None."""
    return role is None or any(fnmatchcase(actor, pattern) for pattern in roles.get(role, ()))


# --- as JSON ------------------------------------------------------------------------------------------------


def lifecycle_document(lifecycle: Lifecycle) -> dict[str, Any]:
    """The lifecycle as JSON."""
    return {
        "stages": [
            {"name": stage.name, "keep": stage.keep, "final": stage.final, "replaces_to": stage.replaces_to}
            for stage in lifecycle.stages
        ],
        "moves": [{"from": move.source, "to": move.target, "role": move.role} for move in lifecycle.moves],
    }


def read_lifecycle(value: object, roles: Roles) -> Lifecycle:
    """Reads what a person or `lifecycle_document` wrote. Raises InvalidInputError for whatever makes no sense."""
    document = _object(value, "lifecycle", {"stages", "moves"})
    stages = tuple(_read_stage(each) for each in _list(document.get("stages"), "the stages", _MOST_STAGES))
    moves = tuple(_read_move(each) for each in _list(document.get("moves"), "the moves", _MOST_STAGES**2))
    lifecycle = Lifecycle(stages, moves)
    _check(lifecycle, roles)
    return lifecycle


def check_roles(value: object) -> dict[str, tuple[str, ...]]:
    """Reads roles, each with the patterns of those who have it. Raises InvalidInputError."""
    if not isinstance(value, dict) or len(value) > _MOST_STAGES:
        raise InvalidInputError(f"roles are an object of at most {_MOST_STAGES} lists of names")
    return {
        _role(role): tuple(
            check_actor(pattern) if isinstance(pattern, str) else check_actor("")
            for pattern in _list(patterns, f"role {role!r}", _MOST_PATTERNS)
        )
        for role, patterns in value.items()
    }


def _read_stage(value: object) -> Stage:
    document = _object(value, "a stage", {"name", "keep", "final", "replaces_to"})
    name = _stage_name(document.get("name"))
    replaces_to = document.get("replaces_to")
    return Stage(
        name,
        _flag(document.get("keep", False), f"keep of stage {name!r}"),
        _flag(document.get("final", False), f"final of stage {name!r}"),
        None if replaces_to is None else _stage_name(replaces_to),
    )


def _read_move(value: object) -> Move:
    document = _object(value, "a move", {"from", "to", "role"})
    role = document.get("role")
    return Move(
        _stage_name(document.get("from")),
        _stage_name(document.get("to")),
        None if role is None else _role(role),
    )


def _check(lifecycle: Lifecycle, roles: Roles) -> None:
    names = [stage.name for stage in lifecycle.stages]
    if not names or len(set(names)) != len(names):
        raise InvalidInputError("a lifecycle has at least one stage, and no two of one name")
    if lifecycle.stages[0].keep:
        raise InvalidInputError(
            f"every version begins in {names[0]}: were it kept there, none would ever be collected",
            hint="Let the first stage keep nothing; retention rules of `gc` keep the newest versions.",
        )
    pairs = [(move.source, move.target) for move in lifecycle.moves]
    if len(set(pairs)) != len(pairs):
        raise InvalidInputError(
            "a move is listed twice", hint="Give it one role, which several people may have."
        )
    for move in lifecycle.moves:
        for end in (move.source, move.target):
            lifecycle.stage(end)
        if move.source == move.target:
            raise InvalidInputError(f"a move leads from {move.source} to itself")
        if move.role is not None and move.role not in roles:
            raise InvalidInputError(
                f"moving from {move.source} to {move.target} needs the role {move.role!r}, which nobody has",
                hint=f'List who has it under roles: {{"{move.role}": ["alice", "ci-*"]}}.',
            )
    for stage in lifecycle.stages:
        _check_ways_out(lifecycle, stage)
    reached = {lifecycle.initial}
    while True:
        further = {move.target for move in lifecycle.moves if move.source in reached} - reached
        if not further:
            break
        reached |= further
    lost = [name for name in names if name not in reached]
    if lost:
        raise InvalidInputError(
            f"no moves lead from {lifecycle.initial} to {', '.join(lost)}",
            hint="Add a move, or remove the stage.",
        )


def _check_ways_out(lifecycle: Lifecycle, stage: Stage) -> None:
    out = {move.target for move in lifecycle.moves_from(stage.name)}
    if not out and not stage.final:
        raise InvalidInputError(
            f"no move leaves {stage.name}", hint='Say so with "final": true, or add a move.'
        )
    if out and stage.final:
        raise InvalidInputError(f"{stage.name} is final, and a move leaves it for {min(out)}")
    if stage.replaces_to is not None and stage.replaces_to not in out:
        raise InvalidInputError(
            f"{stage.name} sends the version before to {stage.replaces_to}, and no move leads there",
            hint=f"Add the move from {stage.name} to {stage.replaces_to}.",
        )


def _object(value: object, what: str, keys: set[str]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidInputError(f"{what} is not an object")
    unknown = sorted(map(str, value.keys() - keys))
    if unknown:
        raise InvalidInputError(
            f"{what} has no {unknown[0]!r}", hint=f"It may have: {', '.join(sorted(keys))}."
        )
    return value


def _list(value: object, what: str, most: int) -> list[Any]:
    if not isinstance(value, list) or len(value) > most:
        raise InvalidInputError(f"{what} are not a list of at most {most}")
    return value


def _flag(value: object, what: str) -> bool:
    if not isinstance(value, bool):
        raise InvalidInputError(f"{what} is neither true nor false")
    return value


def _stage_name(value: object) -> str:
    return check_stage(value if isinstance(value, str) else "")


def _role(value: object) -> str:
    # A role is called like a stage; the message says what it is.
    try:
        return check_stage(value if isinstance(value, str) else "")
    except InvalidInputError:
        raise InvalidInputError(
            f"{value!r} is not a role", hint="Use a letter, then up to 31 letters, digits or '-': release."
        ) from None
