"""All that the engine remembers, and its JSON: whoever stops and starts again goes on where it stood."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Final

from textnlp_fast.errors import CorruptDataError
from textnlp_fast.gpu.health.facts import Action, Finding, Severity

__all__ = ["GPUState", "Gate", "HealthState", "Key", "MachineState", "OpenFinding"]

#: A finding's place: machine, GPU (empty: the whole machine), rule.
Key = tuple[str, str, str]

MOST_MACHINES: Final = 4096
MOST_GPUS: Final = 256
MOST_FINDINGS: Final = 16384
MOST_TIMES: Final = 64


@dataclass(slots=True)
class Gate:
    """One polled rule on one GPU."""

    since: list[float | None] = field(default_factory=list)
    """Since when each level has been reached without a break."""
    readings: list[int] = field(default_factory=list)
    """How many readings in a row reached each level."""
    good_since: float | None = None
    at_s: float | None = None
    raw: float | None = None
    grown: list[list[float]] = field(default_factory=list)
    """Of a counter: when it grew, and by how much."""


@dataclass(slots=True)
class GPUState:
    index: int = -1
    name: str | None = None
    at_s: float | None = None
    """The last reading's own time."""
    heard_s: float = 0.0
    """When that was, by the monitor's clock."""
    counters: dict[str, int] = field(default_factory=dict)
    recovery_action: int = 0
    gates: dict[str, Gate] = field(default_factory=dict)
    recent_xids: list[list[float]] = field(default_factory=list)
    """Time and code of the last XIDs."""


@dataclass(slots=True)
class MachineState:
    gpus: dict[str, GPUState] = field(default_factory=dict)
    gpu_count: int | None = None
    """How many GPUs it should have: the most that were seen."""
    heard_s: float = 0.0


@dataclass(slots=True)
class OpenFinding:
    """A finding and what is needed to go on with it. `kind`: xid, sxid, polled, event."""

    machine: str
    gpu: str
    rule: str
    kind: str
    severity: Severity
    action: Action
    what: str
    evidence: str
    provenance: str
    first_at_s: float
    last_at_s: float
    count: int = 1
    members: list[str] = field(default_factory=list)
    """Other rules that found the same fault."""
    parts: list[str] = field(default_factory=list)
    """Identifiers of events that each are a part of it, as planned maintenances are."""
    seen: list[list[Any]] = field(default_factory=list)
    """Occurrences: the rule, and when which source told of it."""
    ending_at_s: float | None = None
    """When it ends unless it comes again."""

    @property
    def key(self) -> Key:
        return (self.machine, self.gpu, self.rule)


@dataclass(slots=True)
class HealthState:
    machines: dict[str, MachineState] = field(default_factory=dict)
    open: dict[Key, OpenFinding] = field(default_factory=dict)
    closings: dict[Key, list[float]] = field(default_factory=dict)
    """When findings ended, for those that come and go."""
    history: dict[Key, list[float]] = field(default_factory=dict)
    """When XIDs came, by machine, GPU and family of `repeats`, resolved ones too."""
    ignored: int = 0
    """Facts that were late, of an unknown kind, or of more machines and GPUs than are remembered."""

    def document(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "version": 1,
            "machines": {name: asdict(machine) for name, machine in self.machines.items()},
            "open": [asdict(finding) for finding in self.open.values()],
            "closings": [[*key, times] for key, times in self.closings.items()],
            "history": [[*key, times] for key, times in self.history.items()],
            "ignored": self.ignored,
        }

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> HealthState:
        """The state that `document` is of. Raises CorruptDataError for anything else."""
        try:
            if document["version"] != 1:
                raise ValueError(f"its version is {document['version']!r}")
            state = cls(ignored=int(document["ignored"]))
            for name, machine in document["machines"].items():
                state.machines[str(name)] = _machine(machine)
            for one in document["open"]:
                values = {**one, "severity": Severity(one["severity"]), "action": Action(one["action"])}
                finding = OpenFinding(**{item.name: values[item.name] for item in fields(OpenFinding)})
                state.open[finding.key] = finding
            for name in ("closings", "history"):
                for machine_name, gpu, rule, times in document[name]:
                    place: Key = (str(machine_name), str(gpu), str(rule))
                    getattr(state, name)[place] = [float(time) for time in times]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CorruptDataError(
                f"this is no state of a health monitor: {type(error).__name__}: {error}",
                hint="Remove the file: the monitor begins anew and finds again what is still wrong.",
            ) from None
        return state


def _machine(document: Mapping[str, Any]) -> MachineState:
    machine = MachineState(gpu_count=document["gpu_count"], heard_s=float(document["heard_s"]))
    for name, one in document["gpus"].items():
        values = {item.name: one[item.name] for item in fields(GPUState)}
        values["gates"] = {rule: Gate(**gate) for rule, gate in one["gates"].items()}
        machine.gpus[str(name)] = GPUState(**values)
    return machine


def snapshot(finding: OpenFinding, summary: str, *, resolved: bool = False) -> Finding:
    """What others see of it."""
    return Finding(
        machine=finding.machine,
        gpu=finding.gpu or None,
        rule=finding.rule,
        severity=finding.severity,
        action=finding.action,
        summary=summary,
        evidence=finding.evidence,
        provenance=finding.provenance,
        first_at_s=finding.first_at_s,
        last_at_s=finding.last_at_s,
        count=finding.count,
        resolved=resolved,
    )
