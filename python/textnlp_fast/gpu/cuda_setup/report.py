"""The report: all verdicts on a machine, and its form as a document for scripts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, fields, is_dataclass, replace
from enum import Enum
from typing import Any

from textnlp_fast.gpu.cuda_setup.facts import Facts
from textnlp_fast.gpu.cuda_setup.machine import Machine
from textnlp_fast.gpu.cuda_setup.probes.gathering import gather
from textnlp_fast.gpu.cuda_setup.rules import RULES, Rule
from textnlp_fast.gpu.cuda_setup.verdicts import Level, Verdict
from textnlp_fast.gpu.cuda_setup.versions import Version

__all__ = ["Report", "diagnose", "examine"]


@dataclass(frozen=True, kw_only=True)
class Report:
    """What was found, and what it means."""

    facts: Facts
    verdicts: tuple[Verdict, ...]

    @property
    def healthy(self) -> bool:
        """Nothing is a problem. Warnings and what is not known do not count."""
        return not self.of(Level.PROBLEM)

    def of(self, level: Level) -> tuple[Verdict, ...]:
        return tuple(verdict for verdict in self.verdicts if verdict.level is level)

    def to_document(self) -> dict[str, Any]:
        """The report in JSON's types. `format` counts up when a field changes its meaning."""
        return {
            "format": 1,
            "healthy": self.healthy,
            "has_gpu": self.facts.has_gpu,
            "verdicts": [
                {
                    "rule": verdict.rule,
                    "group": verdict.group,
                    "level": verdict.level.value,
                    "summary": verdict.summary,
                    "evidence": list(verdict.evidence),
                    "commands": list(verdict.commands),
                    "source": verdict.source,
                }
                for verdict in self.verdicts
            ],
            "facts": _plain(self.facts),
        }


def examine(machine: Machine | None = None, *, require_gpu: bool = False) -> Report:
    """Looks at a machine (this one) and judges it. Changes nothing, and raises nothing for what it finds.

    With `require_gpu` a machine without a GPU that CUDA can use is a problem.
    """
    facts = gather(machine if machine is not None else Machine())
    return Report(facts=facts, verdicts=diagnose(facts, require_gpu=require_gpu))


def diagnose(
    facts: Facts, *, require_gpu: bool = False, rules: Iterable[Rule] = RULES
) -> tuple[Verdict, ...]:
    """What the rules make of facts. Pure."""
    verdicts = []
    for rule in rules:
        for verdict in rule.judge(facts):
            level = verdict.level
            if require_gpu and rule.name == "gpu-present" and not facts.gpus:
                level = Level.PROBLEM
            verdicts.append(
                replace(
                    verdict,
                    level=level,
                    rule=rule.name,
                    group=rule.group,
                    source=rule.source,
                    evidence=tuple(line for line in verdict.evidence if line),
                )
            )
    return tuple(verdicts)


def _plain(value: Any) -> Any:
    if isinstance(value, Version):
        return value.text
    if isinstance(value, Enum):
        return value.value
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, Set):
        return sorted(map(_plain, value), key=str)
    if isinstance(value, tuple | list):
        return [_plain(one) for one in value]
    return value
