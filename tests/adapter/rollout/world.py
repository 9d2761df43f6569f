"""Replicas and a gateway that do what they are told, break when they are told, and notice what must not happen.

The oracle of the machine's tests: it knows the truth, which the machine only sees, late and in part.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from textnlp_fast.adapter.rollout.machine import Decision, decide, heard
from textnlp_fast.adapter.rollout.state import Action, Mode, Sight, State, Terms

__all__ = ["Fault", "Node", "World"]


@dataclass(frozen=True)
class Fault:
    """What goes wrong at a tick: `crash`, `hide` (does not answer), `fail` (its next asks), `jam` (the gateway)."""

    tick: int
    kind: str
    replica: str = ""
    lasts: int = 1


@dataclass
class Node:
    mode: Mode
    serving: str | None
    prepared: str | None = None
    run: int = 1
    operation: str = ""
    error: str = ""
    at_work: tuple[str, str, int] | None = None
    down_until: int = -1
    hidden_until: int = -1
    failing: int = 0
    is_open: bool = True


@dataclass
class World:
    terms: Terms
    nodes: dict[str, Node]
    faults: tuple[Fault, ...] = ()
    bad: dict[str, int] = field(default_factory=dict)
    """Versions that are found unwell, so many ticks after they began to serve."""
    unloadable: frozenset[str] = frozenset()
    """Versions that can be prepared and never committed."""
    work: int = 2
    repeat: bool = False
    """Everything is done twice, and the first answer is lost."""
    tick: int = 0
    routed: set[str] = field(default_factory=set)
    weights: dict[str, int] = field(default_factory=dict)
    since: dict[str, int] = field(default_factory=dict)
    jammed_until: int = -1
    hurt: set[str] = field(default_factory=set)
    wrongs: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.routed = set(self.terms.base)

    # --- time ---------------------------------------------------------------------------------------------

    def pass_tick(self) -> None:
        self.tick += 1
        for fault in self.faults:
            if fault.tick == self.tick:
                self._strike(fault)
        for name, node in self.nodes.items():
            if node.at_work is not None:
                verb, version, left = node.at_work
                node.at_work = (verb, version, left - 1)
                if left <= 1:
                    node.at_work = None
                    self._finish(name, node, verb, version)

    def _strike(self, fault: Fault) -> None:
        if fault.kind == "jam":
            self.jammed_until = self.tick + fault.lasts
            return
        node = self.nodes[fault.replica]
        self.hurt.add(fault.replica)
        if fault.kind == "crash":
            node.run += 1
            node.prepared, node.at_work, node.operation, node.error = None, None, "", ""
            node.is_open = True
            node.down_until = self.tick + fault.lasts
            self.since[fault.replica] = self.tick
        elif fault.kind == "hide":
            node.hidden_until = self.tick + fault.lasts
        else:
            node.failing = fault.lasts

    def _finish(self, name: str, node: Node, verb: str, version: str) -> None:
        if node.failing or (verb == "commit" and version in self.unloadable):
            node.failing = max(0, node.failing - 1)
            if verb == "commit":
                node.prepared = None
            node.error = "told to fail"
            if verb == "prepare" or node.mode == "swap":
                node.prepared = None
            return
        node.error = ""
        if verb == "prepare":
            node.prepared = version if node.serving != version else None
        elif verb == "abort":
            node.prepared = None
        elif node.prepared == version:
            node.serving, node.prepared = version, None
            self.since[name] = self.tick
            node.run += node.mode == "restart"
        elif node.serving != version:
            node.error = "not prepared"

    # --- what is seen -------------------------------------------------------------------------------------

    def sights(self) -> dict[str, Sight]:
        return {name: self._sight(name, node) for name, node in self.nodes.items()}

    def _sight(self, name: str, node: Node) -> Sight:
        if self.tick <= max(node.hidden_until, node.down_until):
            return Sight(reachable=False)
        late = self.bad.get(node.serving or "")
        unwell = late is not None and self.tick - self.since.get(name, 0) >= late
        known = self.tick - self.since.get(name, -9) >= 1
        return Sight(
            serving=node.serving,
            prepared=node.prepared,
            mode=node.mode,
            busy=node.at_work is not None,
            operation=node.operation,
            error=node.error,
            run=str(node.run),
            is_open=node.mode == "swap" and node.is_open,
            healthy=(not unwell) if known else None,
        )

    # --- what is done -------------------------------------------------------------------------------------

    def act(self, action: Action) -> bool:
        """Whether it was done and heard."""
        node = self.nodes[action.replica]
        if action.verb in ("drain", "resume", "weigh"):
            if self.tick <= self.jammed_until:
                return False
            if action.verb == "drain":
                self.routed.discard(action.replica)
                if self.tick <= max(node.hidden_until, node.down_until):
                    return False
                node.is_open = False
            elif action.verb == "resume":
                if self.tick <= max(node.hidden_until, node.down_until):
                    return False
                if node.at_work is not None or (node.mode == "swap" and node.prepared is not None):
                    self.wrongs.append(f"{action.replica} is resumed while it is changed")
                node.is_open = True
                self.routed.add(action.replica)
            self.weights[action.replica] = action.weight
            return True
        if self.tick <= max(node.hidden_until, node.down_until) or node.operation == action.ask:
            return False
        changes = node.mode == "swap" or action.verb == "commit"
        if changes and action.replica in self.routed:
            self.wrongs.append(f"{action.verb} of {action.replica}, which gets requests")
        if changes and node.mode == "swap" and node.is_open and action.verb != "abort":
            self.wrongs.append(f"{action.verb} of {action.replica}, whose gate is open")
        node.operation, node.error = action.ask, ""
        node.at_work = (action.verb, action.version, self.work)
        return True

    def check(self, state: State) -> None:
        """What must hold at every moment."""
        terms = self.terms
        down = {
            name
            for name, node in self.nodes.items()
            if self.tick <= max(node.down_until, node.hidden_until) or (node.serving in self.bad)
        }
        serving = {one for one in self.routed if one not in down}
        least = len(terms.base) - terms.max_unavailable - len((down | self.hurt) & set(self.nodes))
        if state.direction == "back":
            least -= 1
        if len(serving) < least:
            self.wrongs.append(f"tick {self.tick}: {len(serving)} serve, at least {least} were to")
        most = len(terms.base) + len(terms.extras)
        if len(self.routed) > most:
            self.wrongs.append(f"{len(self.routed)} are routed to, at most {most} may be")
        versions = {self.nodes[one].serving for one in self.routed}
        if not versions <= {terms.old, terms.new}:
            self.wrongs.append(f"{versions} serve")
        calm = terms.strategy == "blue-green" and not state.switched and state.direction == "forward"
        if calm and terms.new in versions:
            self.wrongs.append("what is green serves before the switch")

    # --- all of it ----------------------------------------------------------------------------------------

    def run(self, state: State, most: int = 3000) -> State:
        """Until the rollout has ended."""
        for _ in range(most):
            self.pass_tick()
            decision = decide(self.terms, state, self.sights(), float(self.tick))
            state = self.carry_out(decision)
            self.check(state)
            if state.phase != "running":
                return state
        self.wrongs.append(f"no end after {most} ticks: {state}")
        return state

    def carry_out(self, decision: Decision) -> State:
        state = decision.state
        for action in decision.actions:
            done = self.act(action)
            if self.repeat and self.tick % 2:
                continue  # done, and nobody heard
            if self.repeat:
                self.act(action)
            if done:
                state = heard(state, action)
        return replace(state)
