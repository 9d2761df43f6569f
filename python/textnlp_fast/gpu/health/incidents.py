"""XIDs and SXIDs as they come: told twice, in bursts, again and again, and together with what else is known."""

from __future__ import annotations

import math
from typing import Final

from textnlp_fast.gpu.health.book import Book, named
from textnlp_fast.gpu.health.facts import Action, Event, Severity
from textnlp_fast.gpu.health.judging import Judgement, judge_sxid, judge_xid, recovery_in
from textnlp_fast.gpu.health.rules import HealthRules, action_rank, severity_rank, xid_catalogue
from textnlp_fast.gpu.health.state import MOST_TIMES, GPUState, HealthState, OpenFinding

__all__ = ["Incidents", "group_of"]

_RECOVERY_XID: Final = 154
_MOST_RECENT: Final = 32
#: Lines that only continue an SXID's message.
_CONTINUED: Final = ("severity ", "data {")
_REPAIRED_BY_RESET: Final = frozenset(
    {Action.NONE, Action.RESTART_APP, Action.RESET_GPU, Action.REBOOT, Action.DRAIN}
)


def group_of(rules: HealthRules, *, xid: int | None = None, rule: str | None = None) -> str | None:
    """The group of `together` that an XID or a polled rule is in."""
    for name, group in rules.together.items():
        if (xid is not None and xid in group.xids) or (rule is not None and rule in group.rules):
            return name
    return None


class Incidents:
    """Takes XIDs and SXIDs into the book."""

    def __init__(self, rules: HealthRules, state: HealthState, book: Book) -> None:
        self._rules = rules
        self._state = state
        self._book = book

    def xid(self, event: Event, at_s: float, gpu: GPUState | None) -> None:
        """Takes one XID."""
        assert event.code is not None
        if event.code == _RECOVERY_XID:
            self._recovery(event, at_s)
            return
        judged = judge_xid(self._rules, event)
        name = event.gpu or ""
        own = self._state.open.get((event.machine, name, judged.rule))
        finding = own or self._same_fault(event.machine, name, event.code, at_s)
        if finding is not None and self._told_already(finding, event, at_s, judged.rule):
            return
        severity, action = self._repeated(event.machine, name, event.code, judged, at_s)
        if finding is None:
            finding = self._book.open(self._made(event, judged, severity, action, at_s, "xid"))
        elif own is not None:
            self._book.again(finding, at_s, severity, action, _evidence(event))
        else:
            self._book.joins(finding, judged.rule, at_s, severity, action, _evidence(event))
        if finding is not None:
            self._remember(finding, event, at_s, judged.rule)
        if gpu is not None:
            self._drain_when(event, at_s, gpu)

    def sxid(self, event: Event, at_s: float) -> None:
        """Takes one SXID."""
        if event.text.strip().lower().startswith(_CONTINUED):
            return
        judged = judge_sxid(self._rules, event)
        finding = self._state.open.get((event.machine, event.gpu or "", judged.rule))
        if finding is None:
            made = self._book.open(self._made(event, judged, judged.severity, judged.action, at_s, "sxid"))
            if made is not None:
                self._remember(made, event, at_s, judged.rule)
        elif not self._told_already(finding, event, at_s):
            self._book.again(finding, at_s, judged.severity, judged.action, _evidence(event))
            self._remember(finding, event, at_s, judged.rule)

    def asks(self, machine: str, gpu: str, action: Action, at_s: float, evidence: str) -> bool:
        """The driver says which recovery it needs. True if an XID's finding takes that up."""
        serious = [
            one
            for one in self._book.of(machine, gpu)
            if one.kind == "xid" and one.severity is Severity.CRITICAL and _announces(one.rule)
        ]
        if not serious:
            return False
        self._book.raises(max(serious, key=lambda one: (one.last_at_s, one.rule)), action, evidence)
        return True

    def recovered(self, machine: str, gpu: str, at_s: float, why: str) -> None:
        """The GPU was reset, or its driver loaded: XIDs from before that ask for no more are over."""
        for finding in self._book.of(machine, gpu):
            over = finding.kind == "xid" or finding.rule == "recovery-action"
            if over and finding.first_at_s < at_s and finding.action in _REPAIRED_BY_RESET:
                self._book.ends(finding, at_s, why)

    # --- inside -------------------------------------------------------------------------------------------

    def _recovery(self, event: Event, at_s: float) -> None:
        action = recovery_in(event.text)
        name = event.gpu or ""
        if action is Action.NONE:
            self.recovered(event.machine, name, at_s, "XID 154: no recovery action is needed any more")
            return
        evidence = _evidence(event)
        if self.asks(event.machine, name, action or Action.NONE, at_s, evidence):
            return
        severity = Severity.INFO if action is None else Severity.CRITICAL
        rule = self._rules.polled["recovery-action"]
        what = "the driver asks for recovery (XID 154)" if action else "XID 154, whose message was not read"
        name_of_rule = "recovery-action" if action else f"xid-{_RECOVERY_XID}"
        finding = self._state.open.get((event.machine, name, name_of_rule))
        judged = Judgement(name_of_rule, severity, action or Action.NONE, what, ("catalogue", *rule.source))
        if finding is None:
            made = self._made(event, judged, severity, judged.action, at_s, "xid")
            self._book.open(made)
            self._remember(made, event, at_s, name_of_rule)
        elif not self._told_already(finding, event, at_s):
            self._book.again(finding, at_s, severity, judged.action, evidence)
            self._remember(finding, event, at_s, name_of_rule)

    def _told_already(self, finding: OpenFinding, event: Event, at_s: float, rule: str | None = None) -> bool:
        """Whether it is one that is known, told by another source or twice by one."""
        rule = rule or finding.rule
        occurrences = [tellings for told, tellings in finding.seen if told == rule]
        telling = [at_s, event.source]
        if any(telling in tellings for tellings in occurrences):
            return True
        for tellings in occurrences:
            sources = {source for _, source in tellings}
            scraped = "dcgm" in (*sources, event.source)
            apart_s = self._rules.same_event_scraped_s if scraped else self._rules.same_event_s
            near = any(abs(time - at_s) <= apart_s for time, _ in tellings)
            if event.source not in sources and "" not in (*sources, event.source) and near:
                # One telling of a source stands for one of each other.
                tellings.append(telling)
                return True
        return False

    def _remember(self, finding: OpenFinding, event: Event, at_s: float, rule: str) -> None:
        finding.seen.append([rule, [[at_s, event.source]]])
        del finding.seen[:-MOST_TIMES]

    def _same_fault(self, machine: str, gpu: str, code: int, at_s: float) -> OpenFinding | None:
        name = group_of(self._rules, xid=code)
        if name is None:
            return None
        group = self._rules.together[name]
        rules = {f"xid-{one}" for one in group.xids}
        for finding in self._book.of(machine, gpu):
            near = abs(finding.last_at_s - at_s) <= group.within_s
            if finding.rule in group.rules or (finding.rule in rules and near):
                return finding
        return None

    def _repeated(
        self, machine: str, gpu: str, code: int, judged: Judgement, at_s: float
    ) -> tuple[Severity, Action]:
        families = self._rules.repeats
        name = next((name for name, one in families.items() if code in one.xids), None)
        if name is None:
            name = next(name for name, one in families.items() if not one.xids)
            place = f"{name}:{code}"
        else:
            place = name
        family = families[name]
        times = self._state.history.setdefault((machine, gpu, place), [])
        times.append(at_s)
        times.sort()
        times[:] = [time for time in times if time > times[-1] - family.window_s][-MOST_TIMES:]
        steps = _bursts(times, self._rules.burst_s) // family.every
        severity, action = judged.severity, judged.action
        if not steps or action_rank(action) > action_rank(family.ladder[-1]):
            return severity, action
        start = max(
            (place for place, one in enumerate(family.ladder) if action_rank(one) <= action_rank(action)),
            default=None,
        )
        if start is None:
            return severity, action
        action = max(action, family.ladder[min(start + steps, len(family.ladder) - 1)], key=action_rank)
        if action_rank(action) >= action_rank(Action.RESET_GPU) and action is not judged.action:
            severity = max(severity, Severity.CRITICAL, key=severity_rank)
        return severity, action

    def _drain_when(self, event: Event, at_s: float, gpu: GPUState) -> None:
        rule = self._rules.drain_when
        assert event.code is not None
        gpu.recent_xids = [
            one
            for one in [*gpu.recent_xids, [at_s, float(event.code)]]
            if abs(one[0] - at_s) <= rule.within_s
        ][-_MOST_RECENT:]
        codes = {int(one[1]) for one in gpu.recent_xids}
        if rule.xid in codes and codes & set(rule.with_):
            for finding in self._book.of(event.machine, event.gpu or ""):
                if finding.rule == f"xid-{rule.xid}" or f"xid-{rule.xid}" in finding.members:
                    self._book.raises(finding, rule.action, "its row is being remapped")

    def _made(
        self, event: Event, judged: Judgement, severity: Severity, action: Action, at_s: float, kind: str
    ) -> OpenFinding:
        return OpenFinding(
            machine=event.machine,
            gpu=event.gpu or "",
            rule=judged.rule,
            kind=kind,
            severity=severity,
            action=action,
            what=judged.what,
            evidence=_evidence(event),
            provenance=named(self._rules, judged.source, judged.why),
            first_at_s=at_s,
            last_at_s=at_s,
        )


def _bursts(times: list[float], burst_s: float) -> int:
    """How many occurrences there were, where those that follow each other fast are one."""
    count, begun = 0, -math.inf
    for time in times:
        if time - begun > burst_s:
            count += 1
            begun = time
    return count


def _announces(rule: str) -> bool:
    row = xid_catalogue().get(int(rule.removeprefix("xid-"))) if rule.startswith("xid-") else None
    return row is not None and row.announces_recovery


def _evidence(event: Event) -> str:
    text = " ".join(event.text.split())[:200]
    source = f" ({event.source})" if event.source else ""
    kind = "SXID" if event.kind == "sxid" else "XID"
    return f"{kind} {event.code}{source}{': ' + text if text else ''}"
