"""What serves: the engine's command, variables and secrets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from textnlp_fast.adapter.words import (
    SUBDOMAIN,
    check_choice,
    check_image,
    check_number,
    check_text,
    check_texts,
    check_whole,
    matches,
    refuse,
    shown,
)
from textnlp_fast.gpu.recommender.precision import kv_bytes_of, weight_format

__all__ = ["Engine", "EngineKind", "SecretRef", "check_variables"]

EngineKind = Literal["vllm", "sglang", "openai"]

_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}", re.ASCII)
_KEY: Final = re.compile(r"[A-Za-z0-9._-]{1,253}", re.ASCII)
#: Variables whose values nobody should read in a manifest.
_SECRET: Final = re.compile(
    r"(^|_)(TOKEN|SECRET|PASSWORD|PASSWD|API_?KEY|ACCESS_KEY|PRIVATE_KEY|CREDENTIAL)S?$", re.ASCII | re.I
)


@dataclass(frozen=True, kw_only=True)
class SecretRef:
    """A value that is kept elsewhere: key `key` of the secret `name`, never its text."""

    name: str
    key: str

    def __post_init__(self) -> None:
        if not matches(SUBDOMAIN, self.name, most=253):
            refuse(
                "secret's name", f"cannot be {shown(self.name)}", hint="Lower case letters, digits, '-', '.'."
            )
        if not matches(_KEY, self.key, most=253):
            refuse("secret's key", f"cannot be {shown(self.key)}", hint="Letters, digits, '.', '_' and '-'.")


@dataclass(frozen=True, kw_only=True)
class Engine:
    """What serves. Any server that speaks OpenAI's API will do.

    In `command` and `arguments`, a word that is exactly `{model_dir}`, `{served_name}`, `{port}` or `{gpus}` is
    replaced.
    """

    kind: EngineKind = "vllm"
    image: str | None = None
    """Container image; on plain instances None runs the command on the machine itself."""
    command: tuple[str, ...] = ()
    """Instead of the kind's own; `openai` has none."""
    arguments: tuple[str, ...] = ()
    """Behind the command's own."""
    environment: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, SecretRef] = field(default_factory=dict)
    """Variables from secrets."""
    port: int = 8000
    served_name: str | None = None
    """The model's name in requests; None: the deployment's."""
    weights: str | None = None
    """Format that the engine keeps weights in (bf16, fp8, int8, int4); None: as published."""
    kv_cache: str = "bf16"
    start_s: float = 900.0
    """How long it may take to load and answer before it counts as failed."""
    drain_s: float = 60.0
    """How long requests under way may take when it is stopped."""

    def __post_init__(self) -> None:
        check_choice("engine.kind", self.kind, EngineKind)
        if self.image is not None:
            check_image("engine.image", self.image)
        for name in ("command", "arguments"):
            check_texts(f"engine.{name}", getattr(self, name))
        if self.kind == "openai" and not self.command:
            refuse("engine.command", "is missing: only vllm and sglang have one of their own")
        if self.command and not self.command[0].strip():
            refuse("engine.command", "begins with an empty word")
        check_variables("engine", self.environment, self.secrets)
        check_whole("engine.port", self.port, least=1, most=65535)
        if self.served_name is not None:
            check_text("engine.served_name", self.served_name, most=256)
        if self.weights is not None:
            weight_format(self.weights)
        kv_bytes_of(self.kv_cache)
        check_number("engine.start_s", self.start_s, above=0.0, most=86400.0)
        check_number("engine.drain_s", self.drain_s, least=0.0, most=3600.0)


def check_variables(where: str, environment: object, secrets: object) -> None:
    """Raises InvalidInputError for names that are none, values of another kind, secrets in the open, a name in both."""
    for name, mapping, kind in (("environment", environment, str), ("secrets", secrets, SecretRef)):
        if not isinstance(mapping, Mapping):
            refuse(f"{where}.{name}", "must be a mapping of names")
        for variable, value in mapping.items():
            if not matches(_VARIABLE, variable, most=255):
                refuse(f"{where}.{name}", f"{shown(variable)} is no variable's name")
            if not isinstance(value, kind):
                refuse(f"{where}.{name}.{variable}", f"must be a {kind.__name__}")
    assert isinstance(environment, Mapping) and isinstance(secrets, Mapping)
    for variable, value in environment.items():
        check_text(f"{where}.environment.{variable}", value, most=32 * 1024, empty=True, lines=True)
        if value and _SECRET.search(variable):
            refuse(
                f"{where}.environment.{variable}",
                "looks like a secret, and whoever reads what is made of this reads it",
                hint=f"Write {where}.secrets.{variable}: {{name: SECRET, key: KEY}} instead.",
            )
    both = set(environment) & set(secrets)
    if both:
        refuse(f"{where}.secrets.{min(both)}", f"is in {where}.environment, too")
