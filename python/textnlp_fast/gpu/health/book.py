"""The book of findings: opens, raises and ends them, and keeps those back that come and go."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from textnlp_fast.gpu.health.facts import Action, Finding, Severity
from textnlp_fast.gpu.health.judging import ACTION_WORDS
from textnlp_fast.gpu.health.rules import HealthRules, action_rank, severity_rank
from textnlp_fast.gpu.health.state import (
    MOST_FINDINGS,
    MOST_TIMES,
    HealthState,
    Key,
    OpenFinding,
    snapshot,
)

__all__ = ["Book"]

_MOST_EVIDENCE: Final = 600
_LEAST_HOLD_S: Final = 30.0


class Book:
    """Findings of a state. `changes` are those that others should hear of, each in its newest form."""

    def __init__(self, rules: HealthRules, state: HealthState) -> None:
        self._rules = rules
        self._state = state
        self._changes: dict[Key, Finding] = {}
        self._of: dict[tuple[str, str], dict[str, OpenFinding]] = {}
        for finding in state.open.values():
            self._of.setdefault((finding.machine, finding.gpu), {})[finding.rule] = finding

    def take_changes(self) -> list[Finding]:
        """What changed since the last call, in the order of first change."""
        changes = list(self._changes.values())
        self._changes.clear()
        return changes

    def of(self, machine: str, gpu: str) -> list[OpenFinding]:
        """The open findings of one GPU; `gpu` empty: of the machine itself."""
        return list(self._of.get((machine, gpu), {}).values())

    def open(self, finding: OpenFinding) -> OpenFinding | None:
        """A new finding; None if there are more than are kept."""
        if len(self._state.open) >= MOST_FINDINGS:
            self._state.ignored += 1
            return None
        self._state.open[finding.key] = finding
        self._of.setdefault((finding.machine, finding.gpu), {})[finding.rule] = finding
        self._changed(finding)
        return finding

    def again(
        self, finding: OpenFinding, at_s: float, severity: Severity, action: Action, evidence: str = ""
    ) -> None:
        """The same fault came once more: counts it, and never judges it milder than before."""
        finding.count += 1
        finding.first_at_s = min(finding.first_at_s, at_s)
        finding.last_at_s = max(finding.last_at_s, at_s)
        finding.ending_at_s = None
        self._raise(finding, severity, action)
        if evidence:
            finding.evidence = _added(finding.evidence, evidence)
        self._changed(finding)

    def holds(
        self, finding: OpenFinding, at_s: float, severity: Severity, action: Action, evidence: str
    ) -> None:
        """What was found is still so. Nobody is told, unless it got worse."""
        finding.last_at_s = max(finding.last_at_s, at_s)
        finding.ending_at_s = None
        if self._raise(finding, severity, action):
            finding.evidence = evidence
            self._changed(finding)

    def joins(
        self, finding: OpenFinding, rule: str, at_s: float, severity: Severity, action: Action, evidence: str
    ) -> None:
        """Another rule found the same fault."""
        finding.last_at_s = max(finding.last_at_s, at_s)
        news = rule not in finding.members
        if news:
            finding.members.append(rule)
            finding.evidence = _added(finding.evidence, evidence)
        if self._raise(finding, severity, action) or news:
            self._changed(finding)

    def raises(self, finding: OpenFinding, action: Action, evidence: str) -> None:
        """More is known of what to do."""
        if self._raise(finding, finding.severity, action):
            finding.evidence = _added(finding.evidence, evidence)
            self._changed(finding)

    def worsens(self, finding: OpenFinding, severity: Severity) -> None:
        """It has lasted long."""
        if self._raise(finding, severity, finding.action):
            self._changed(finding)

    def ends(self, finding: OpenFinding, at_s: float, why: str = "") -> None:
        """It is over."""
        self.drops(finding)
        if why:
            finding.evidence = _added(finding.evidence, why)
        times = self._state.closings.setdefault(finding.key, [])
        times.append(at_s)
        del times[:-MOST_TIMES]
        self._changes.pop(finding.key, None)
        self._changes[finding.key] = snapshot(finding, self._summary(finding), resolved=True)

    def drops(self, finding: OpenFinding) -> None:
        """Takes it out without a word."""
        self._state.open.pop(finding.key, None)
        place = (finding.machine, finding.gpu)
        of_gpu = self._of.get(place, {})
        of_gpu.pop(finding.rule, None)
        if not of_gpu:
            self._of.pop(place, None)

    def ends_unless_flapping(self, finding: OpenFinding, at_s: float, why: str = "") -> None:
        """It is over, or will be when it has stayed away for as long as its coming and going asks."""
        hold_s = self.hold_s(finding.key, at_s, 0.0)
        if hold_s:
            finding.ending_at_s = at_s + hold_s
        else:
            self.ends(finding, at_s, why)

    def hold_s(self, key: Key, at_s: float, least_s: float) -> float:
        """How long it has to be quiet before it is over."""
        flapping = self._rules.flapping
        recent = [time for time in self._state.closings.get(key, ()) if time > at_s - flapping.window_s]
        more = len(recent) - flapping.closings + 1
        if more <= 0:
            return least_s
        return max(least_s, min(flapping.most_s, max(least_s, _LEAST_HOLD_S) * 2.0 ** min(more, 16)))

    def snapshots(self) -> list[Finding]:
        """All that is open."""
        return [snapshot(one, self._summary(one)) for one in self._state.open.values()]

    def tick(self, now_s: float) -> None:
        """Ends what was only held, and what nothing was seen of for long enough."""
        for finding in list(self._state.open.values()):
            quiet_s = now_s - finding.last_at_s
            if finding.ending_at_s is not None and now_s >= finding.ending_at_s:
                self.ends(finding, now_s)
            elif finding.kind in ("xid", "sxid"):
                if quiet_s >= self._rules.clears_after_s[finding.action]:
                    self.ends(finding, now_s, "not seen again")
            elif finding.kind == "event":
                rule = self._rules.events.get(finding.rule)
                if rule is None:
                    continue
                if rule.clears_after_s is not None and quiet_s >= rule.clears_after_s:
                    self.ends(finding, now_s, "long past")
                elif (
                    rule.critical_after_s is not None and now_s - finding.first_at_s >= rule.critical_after_s
                ):
                    self.worsens(finding, Severity.CRITICAL)

    def forget(self, now_s: float) -> None:
        """Drops what would only grow."""
        horizon = now_s - self._rules.flapping.window_s
        for key, times in list(self._state.closings.items()):
            kept = [time for time in times if time > horizon]
            if kept:
                self._state.closings[key] = kept
            else:
                del self._state.closings[key]
        longest = now_s - max(one.window_s for one in self._rules.repeats.values())
        for key, times in list(self._state.history.items()):
            if not times or times[-1] < longest:
                del self._state.history[key]

    # --- inside -------------------------------------------------------------------------------------------

    def _raise(self, finding: OpenFinding, severity: Severity, action: Action) -> bool:
        worse_severity = max(finding.severity, severity, key=severity_rank)
        worse_action = max(finding.action, action, key=action_rank)
        changed = (worse_severity, worse_action) != (finding.severity, finding.action)
        finding.severity, finding.action = worse_severity, worse_action
        return changed

    def _changed(self, finding: OpenFinding) -> None:
        self._changes[finding.key] = snapshot(finding, self._summary(finding))

    def _summary(self, finding: OpenFinding) -> str:
        return f"{finding.what}: {ACTION_WORDS[finding.action]}."


def _added(evidence: str, more: str) -> str:
    parts = [*([evidence] if evidence else []), more]
    return "; ".join(parts)[:_MOST_EVIDENCE] if more not in evidence else evidence


def named(rules: HealthRules, source: Iterable[str], why: str = "") -> str:
    """A provenance in full."""
    spoken = rules.spoken(tuple(source))
    return f"{spoken} ({why})" if why else spoken
