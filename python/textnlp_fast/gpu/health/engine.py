"""Facts in, findings out. No clock, no I/O: what it remembers is in `state`, and time comes with the facts.

>>> engine = HealthEngine(load_rules())
>>> changes = engine.observe([Event(machine="m", kind="xid", at_s=0.0, gpu="GPU-1", code=79)], now_s=0.0)
>>> changes[0].action
<Action.REBOOT: 'reboot'>
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from textnlp_fast.gpu.health import gates
from textnlp_fast.gpu.health.book import Book, named
from textnlp_fast.gpu.health.facts import Event, Finding, Reading
from textnlp_fast.gpu.health.incidents import Incidents, group_of
from textnlp_fast.gpu.health.rules import EventRule, HealthRules, PolledRule, load_rules
from textnlp_fast.gpu.health.sequence import Fact, began_anew, ordered, whole
from textnlp_fast.gpu.health.signals import SIGNALS
from textnlp_fast.gpu.health.state import (
    MOST_GPUS,
    MOST_MACHINES,
    Gate,
    GPUState,
    HealthState,
    MachineState,
    OpenFinding,
)

__all__ = ["Fact", "HealthEngine"]

#: A clock may be ahead of the monitor's by so much; what is further ahead happened now.
_MOST_AHEAD_S: Final = 300.0
_TICK_EVERY_S: Final = 1.0
_FORGET_EVERY_S: Final = 300.0
_MOST_PARTS: Final = 64


class HealthEngine:
    """Judges facts by rules. Not thread-safe."""

    def __init__(self, rules: HealthRules | None = None, state: HealthState | None = None) -> None:
        self.rules = rules or load_rules()
        self.state = state or HealthState()
        self._book = Book(self.rules, self.state)
        self._incidents = Incidents(self.rules, self.state, self._book)
        self._polled = [
            (name, rule, SIGNALS[rule.signal], group_of(self.rules, rule=name))
            for name, rule in self.rules.polled.items()
            if rule.enabled
        ]
        self._ends: dict[str, list[str]] = {}
        for name, event_rule in self.rules.events.items():
            for kind in event_rule.ended_by:
                self._ends.setdefault(kind, []).append(name)
        self._ticked_s: float | None = None
        self._forgot_s: float | None = None

    def observe(self, facts: Iterable[Fact], *, now_s: float) -> list[Finding]:
        """Takes facts in the order of their times, whatever order they come in. Returns the findings that changed.

        `now_s` is the monitor's own time.
        """
        for fact in ordered(facts):
            machine = self._machine(fact.machine, now_s)
            if machine is None:
                continue
            if isinstance(fact, Reading):
                self._reading(machine, fact, now_s)
            else:
                self._event(machine, fact, min(fact.at_s, now_s + _MOST_AHEAD_S))
        if self._ticked_s is None or not 0 <= now_s - self._ticked_s < _TICK_EVERY_S:
            return self.tick(now_s=now_s)
        return self._book.take_changes()

    def tick(self, *, now_s: float) -> list[Finding]:
        """Lets time pass. Returns the findings that changed."""
        self._ticked_s = now_s
        self._book.tick(now_s)
        if self._forgot_s is None or not 0 <= now_s - self._forgot_s < _FORGET_EVERY_S:
            self._forgot_s = now_s
            self._forget(now_s)
        return self._book.take_changes()

    def findings(self) -> list[Finding]:
        """All that is open."""
        return self._book.snapshots()

    def resolve(self, machine: str, *, gpu: str | None = None, rule: str | None = None, at_s: float) -> int:
        """Ends findings because somebody says so. Returns how many; what is still wrong is found again."""
        count = 0
        for finding in list(self.state.open.values()):
            of_gpu = gpu is None or finding.gpu == gpu
            if finding.machine == machine and of_gpu and rule in (None, finding.rule):
                self._book.ends(finding, at_s, "resolved by hand")
                count += 1
        return count

    def forget_machine(self, machine: str) -> None:
        """The machine is watched no more."""
        self.state.machines.pop(machine, None)
        for finding in list(self.state.open.values()):
            if finding.machine == machine:
                self._book.drops(finding)
        for table in (self.state.closings, self.state.history):
            for key in [key for key in table if key[0] == machine]:
                del table[key]

    # --- readings -----------------------------------------------------------------------------------------

    def _reading(self, machine: MachineState, reading: Reading, now_s: float) -> None:
        gpu = self._gpu(machine, reading.gpu)
        if gpu is None:
            return
        at_s = min(reading.at_s, now_s + _MOST_AHEAD_S)
        if gpu.at_s is not None and at_s <= gpu.at_s:
            # Late, or told twice; unless the clock that told the last one was the wrong one.
            nearer = abs(at_s - now_s) < abs(gpu.at_s - now_s)
            if not nearer and now_s - gpu.heard_s <= self.rules.gap_s:
                self.state.ignored += 1
                return
            for gate in gpu.gates.values():
                gate.since, gate.good_since, gate.at_s = [], None, None
        gpu.at_s, gpu.heard_s, gpu.index = at_s, now_s, reading.index
        gpu.name = reading.name or gpu.name
        if began_anew(gpu, reading):
            self._incidents.recovered(
                reading.machine,
                reading.gpu,
                at_s,
                "its counters began anew: it was reset, or its driver loaded",
            )
        if reading.recovery_action is not None:
            if gpu.recovery_action and not reading.recovery_action:
                self._incidents.recovered(
                    reading.machine, reading.gpu, at_s, "the driver asks for no recovery any more"
                )
            gpu.recovery_action = reading.recovery_action
        busy = reading.utilisation_percent
        for name, rule, signal, group in self._polled:
            value = signal(reading)
            if value is None:
                continue
            if name not in gpu.gates:
                gpu.gates[name] = Gate()
            gate = gpu.gates[name]
            if rule.min_utilisation_percent and (busy is None or busy < rule.min_utilisation_percent):
                gate.since, gate.good_since = [], None
                continue
            self._poll(reading, at_s, name, rule, gate, value, group)

    def _poll(
        self,
        reading: Reading,
        at_s: float,
        name: str,
        rule: PolledRule,
        gate: Gate,
        value: float,
        group: str | None,
    ) -> None:
        if rule.window_s:
            growth = gates.grown(gate, at_s, value, rule.window_s, self.rules.gap_s)
            if growth is None:
                gate.at_s = at_s
                return
            value = growth
        key = (reading.machine, reading.gpu, name)
        finding = self.state.open.get(key)
        clear_s = rule.clear_s
        if self.state.closings:
            clear_s = self._book.hold_s(key, at_s, rule.clear_s)
        level, over = gates.step(rule, gate, at_s, value, gap_s=self.rules.gap_s, clear_s=clear_s)
        if level:
            self._found(reading, at_s, name, rule, level, value, finding, group)
        elif over:
            if finding is not None:
                self._book.ends(finding, at_s)
                if name == "gpu-lost":
                    self._incidents.recovered(reading.machine, reading.gpu, at_s, "the GPU answers again")
            elif group is not None:
                self._member_over(reading, at_s, name)

    def _found(
        self,
        reading: Reading,
        at_s: float,
        name: str,
        rule: PolledRule,
        level: int,
        value: float,
        finding: OpenFinding | None,
        group: str | None,
    ) -> None:
        reached = rule.levels[level - 1]
        evidence = f"{rule.signal} is {value:g} (limit {reached.at:g})"
        if reading.error and name in ("gpu-lost", "driver-error"):
            evidence = f"{evidence}: {reading.error[:200]}"
        if finding is not None:
            self._book.holds(finding, at_s, reached.severity, reached.action, evidence)
            return
        if name == "recovery-action" and self._incidents.asks(
            reading.machine, reading.gpu, reached.action, at_s, evidence
        ):
            return
        if group is not None:
            rules = {f"xid-{code}" for code in self.rules.together[group].xids}
            for other in self._book.of(reading.machine, reading.gpu):
                if other.rule in rules:
                    self._book.joins(other, name, at_s, reached.severity, reached.action, evidence)
                    return
        made = self._book.open(
            OpenFinding(
                machine=reading.machine,
                gpu=reading.gpu,
                rule=name,
                kind="polled",
                severity=reached.severity,
                action=reached.action,
                what=f"GPU {reading.index}: {rule.summary}",
                evidence=evidence,
                provenance=named(self.rules, rule.source),
                first_at_s=at_s,
                last_at_s=at_s,
            )
        )
        if made is not None and name == "gpu-lost":
            self._explains_count(reading, at_s)

    def _member_over(self, reading: Reading, at_s: float, name: str) -> None:
        """A rule that joined another's finding finds nothing any more: the fault is repaired."""
        for other in self._book.of(reading.machine, reading.gpu):
            if name in other.members:
                self._book.ends(other, at_s, f"{name} is over")

    # --- events -------------------------------------------------------------------------------------------

    def _event(self, machine: MachineState, event: Event, at_s: float) -> None:
        if event.kind in ("xid", "sxid"):
            if event.code is None or not 0 < event.code < 1 << 31:
                self.state.ignored += 1
            elif event.kind == "sxid":
                self._incidents.sxid(event, at_s)
            else:
                gpu = self._gpu(machine, event.gpu) if event.gpu else None
                self._incidents.xid(event, at_s, gpu)
            return
        if event.kind == "gpu-count":
            self._gpu_count(machine, event, at_s)
            return
        if event.kind == "driver-loaded":
            self._driver_loaded(machine, event, at_s)
        for name in self._ends.get(event.kind, ()):
            self._event_over(event, name, at_s)
        name = event.kind
        if name == "status-check":
            name = f"status-check-{event.details.get('check', 'instance')}"
        rule = self.rules.events.get(name)
        if rule is None or not rule.enabled:
            if event.kind not in self._ends and event.kind != "driver-loaded":
                self.state.ignored += 1
        elif event.details.get("over") == "true":
            self._event_over(event, name, at_s)
        else:
            self._event_found(event, name, rule, at_s)

    def _event_found(self, event: Event, name: str, rule: EventRule, at_s: float) -> None:
        key = (event.machine, event.gpu or "", name)
        part = event.details.get("id", "")
        evidence = " ".join(event.text.split())[:300] or event.source
        finding = self.state.open.get(key)
        if finding is not None:
            told = part in finding.parts if part else evidence in finding.evidence
            if told:
                # Sources that are asked again and again tell again and again: it is still so.
                finding.last_at_s = max(finding.last_at_s, at_s)
                finding.ending_at_s = None
            else:
                self._book.again(finding, at_s, rule.severity, rule.action, evidence)
        else:
            finding = self._book.open(
                OpenFinding(
                    machine=event.machine,
                    gpu=event.gpu or "",
                    rule=name,
                    kind="event",
                    severity=rule.severity,
                    action=rule.action,
                    what=rule.summary,
                    evidence=evidence,
                    provenance=named(self.rules, rule.source),
                    first_at_s=at_s,
                    last_at_s=at_s,
                )
            )
        if finding is not None and part and part not in finding.parts:
            finding.parts.append(part)
            del finding.parts[:-_MOST_PARTS]

    def _event_over(self, event: Event, name: str, at_s: float) -> None:
        finding = self.state.open.get((event.machine, event.gpu or "", name))
        if finding is None or at_s < finding.first_at_s:
            return
        part = event.details.get("id", "")
        if part and part in finding.parts:
            finding.parts.remove(part)
        if not part or not finding.parts:
            self._book.ends_unless_flapping(finding, at_s)

    def _driver_loaded(self, machine: MachineState, event: Event, at_s: float) -> None:
        for name, gpu in machine.gpus.items():
            self._incidents.recovered(event.machine, name, at_s, "the driver was loaded")
            gpu.counters.clear()
            for gate in gpu.gates.values():
                gate.raw = None
                gate.grown.clear()
        self._incidents.recovered(event.machine, "", at_s, "the driver was loaded")

    def _gpu_count(self, machine: MachineState, event: Event, at_s: float) -> None:
        if event.code is None or event.code < 0:
            self.state.ignored += 1
            return
        expected = max(machine.gpu_count or 0, event.code, whole(event.details.get("before", "")))
        machine.gpu_count = expected
        key = (event.machine, "", "gpu-count")
        finding = self.state.open.get(key)
        if event.code >= expected:
            if finding is not None:
                self._book.ends_unless_flapping(finding, at_s)
            return
        rule = self.rules.events.get("gpu-count")
        if rule is None or not rule.enabled:
            return
        evidence = f"{event.code} of {expected} GPUs are there"
        lost = self._lost(event.machine)
        if finding is None and len(lost) >= expected - event.code:
            for one in lost:
                self._book.joins(one, "gpu-count", at_s, one.severity, one.action, evidence)
        elif finding is None or at_s > finding.last_at_s:
            details = {**event.details, "id": ""}
            self._event_found(
                Event(machine=event.machine, kind="gpu-count", at_s=at_s, text=evidence, details=details),
                "gpu-count",
                rule,
                at_s,
            )

    def _explains_count(self, reading: Reading, at_s: float) -> None:
        """Lost GPUs explain why some are missing: one fault, one finding."""
        finding = self.state.open.get((reading.machine, "", "gpu-count"))
        if finding is not None:
            self._book.ends(finding, at_s, "the GPUs that are missing are known")

    def _lost(self, machine: str) -> list[OpenFinding]:
        found: list[OpenFinding] = []
        for group in self.rules.together.values():
            if "gpu-count" in group.machine_rules:
                rules = {*group.rules, *(f"xid-{code}" for code in group.xids)}
                found += [
                    one for key, one in self.state.open.items() if key[0] == machine and one.rule in rules
                ]
        return found

    # --- memory -------------------------------------------------------------------------------------------

    def _machine(self, name: str, now_s: float) -> MachineState | None:
        machine = self.state.machines.get(name)
        if machine is None:
            if len(self.state.machines) >= MOST_MACHINES:
                self.state.ignored += 1
                return None
            machine = self.state.machines[name] = MachineState()
        machine.heard_s = now_s
        return machine

    def _gpu(self, machine: MachineState, name: str | None) -> GPUState | None:
        if not name:
            return None
        gpu = machine.gpus.get(name)
        if gpu is None:
            if len(machine.gpus) >= MOST_GPUS:
                self.state.ignored += 1
                return None
            gpu = machine.gpus[name] = GPUState(index=len(machine.gpus))
        return gpu

    def _forget(self, now_s: float) -> None:
        self._book.forget(now_s)
        horizon = now_s - self.rules.forget_after_s
        for name, machine in list(self.state.machines.items()):
            if machine.heard_s < horizon:
                self.forget_machine(name)
                continue
            for gpu_name, gpu in list(machine.gpus.items()):
                if gpu.at_s is not None and gpu.heard_s < horizon:
                    for finding in self._book.of(name, gpu_name):
                        self._book.ends(finding, now_s, "nothing was heard of the GPU for long")
                    del machine.gpus[gpu_name]
