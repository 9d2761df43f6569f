"""A rollout as plain values: what was agreed, how far it is, what was seen of replicas, what is to be done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from textnlp_fast.adapter.rollout_settings import Rollout, Strategy
from textnlp_fast.errors import InvalidInputError

__all__ = ["ENDED", "Action", "Ask", "Held", "Phase", "Sight", "State", "Terms", "terms_of"]

Phase = Literal["running", "succeeded", "rolled-back", "stuck"]
Place = Literal["in", "leaving", "out", "entering"]
Verb = Literal["prepare", "commit", "abort", "drain", "resume", "weigh"]
Mode = Literal["swap", "restart"]

ENDED: Final[frozenset[str]] = frozenset({"succeeded", "rolled-back", "stuck"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What does not change while a rollout lasts."""

    strategy: Strategy
    old: str | None
    """The version to go back to; None where nothing was served before."""
    new: str
    base: tuple[str, ...]
    """Replicas in service when it began, in the order in which they are changed."""
    extras: tuple[str, ...] = ()
    """Spare replicas that serve as well while it lasts: the surge, or all that is green."""
    max_unavailable: int = 0
    steps: tuple[int, ...] = (100,)
    """Percent of the traffic, of a canary."""
    bake_s: float = 0.0
    tries: int = 2
    """How often a replica is asked for one thing before that counts as failed."""
    lost_s: float = 30.0
    """How long a replica may not answer."""
    patience_s: float = 180.0
    """How long a replica may stay as it is when it should change."""
    operation_s: float = 3600.0
    """How long it may be at work on one thing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What a replica's agent was asked. An agent that hears the same `id` again does nothing again."""

    id: str
    verb: Literal["prepare", "commit", "abort"]
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What is remembered of a replica from one decision to the next."""

    place: Place = "in"
    """In or out of the traffic; `leaving` and `entering` until the gateway has confirmed it."""
    weight: int = 100
    """Percent, as the gateway was told last."""
    ask: Ask | None = None
    tries: int = 0
    """Of what is asked, that failed."""
    run: str = ""
    """Which process serves; another one that nobody asked for means that this one died."""
    mark: str = ""
    since_s: float = 0.0
    """Since when it looks as `mark` says, in seconds since 1970."""
    deaths: int = 0
    """How often its process died on the way back."""
    lost: str = ""
    """Why it is given up: on the way back, or as an extra that is not needed any more. It serves if it can."""
    still: bool = False
    """Whether one that is given up could not even be put back into the traffic."""


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """How far a rollout is."""

    phase: Phase = "running"
    direction: Literal["forward", "back"] = "forward"
    reason: str = ""
    """Why it goes back, or why it cannot."""
    step: int = 0
    switched: bool = False
    """Of blue-green: whether the traffic goes to what is new."""
    baking_since_s: float | None = None
    asked: int = 0
    """How many things were asked of agents."""
    replicas: Mapping[str, Held] = field(default_factory=dict)

    def held(self, replica: str) -> Held:
        """What is remembered of a replica."""
        return self.replicas[replica]

    def with_held(self, replica: str, **changes: object) -> State:
        """The state with some of a replica's changed."""
        held = replace(self.replicas[replica], **changes)  # type: ignore[arg-type]
        return replace(self, replicas={**self.replicas, replica: held})


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """What a replica's agent says now, and what its health check says."""

    reachable: bool = True
    serving: str | None = None
    prepared: str | None = None
    mode: Mode = "swap"
    busy: bool = False
    operation: str = ""
    """The last `Ask.id` that it heard; it is done with it if it is not busy."""
    error: str = ""
    """How that failed."""
    ready: bool = True
    run: str = ""
    is_open: bool = False
    """Whether its own gate lets requests in, from whomever; False where it has none."""
    healthy: bool | None = None
    """None: not known yet."""
    why: str = ""
    """What the health check says where it is not."""

    @property
    def whole(self) -> bool:
        """Whether it can take requests, as far as is known."""
        held_back = self.mode == "swap" and self.prepared is not None
        return self.reachable and self.ready and not held_back and self.healthy is not False


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """One thing to do now. Doing it twice is as good as once."""

    verb: Verb
    replica: str
    version: str = ""
    ask: str = ""
    weight: int = 100


def terms_of(
    settings: Rollout,
    *,
    old: str | None,
    new: str,
    base: tuple[str, ...],
    spares: tuple[str, ...] = (),
) -> Terms:
    """What settings mean for these replicas.

    Raises InvalidInputError where they allow no step at all: nobody may be missing and there is no spare, or blue-green
    has fewer spares than replicas.
    """
    if not base:
        raise InvalidInputError(
            "no replica is in service", hint="Name the replicas, each with its agent's address."
        )
    count = len(base)
    if settings.strategy == "blue-green":
        if len(spares) < count:
            raise InvalidInputError(
                f"blue-green needs as many spare replicas as serve: {count}, and there are {len(spares)}",
                hint="Add replicas to the target, or roll out by rolling or canary.",
            )
        extras, unavailable = spares[:count], 0
    else:
        extras = spares[: settings.surge_of(count)]
        unavailable = min(settings.unavailable_of(count), count)
        if unavailable == 0 and not extras:
            raise InvalidInputError(
                "no replica may be missing, and there is no spare one to stand in",
                hint="Set rollout.max_unavailable to 1, or add a replica to the target as a spare.",
            )
    return Terms(
        strategy=settings.strategy,
        old=old,
        new=new,
        base=base,
        extras=extras,
        max_unavailable=unavailable,
        steps=settings.steps if settings.strategy == "canary" else (100,),
        bake_s=settings.bake_s,
    )
