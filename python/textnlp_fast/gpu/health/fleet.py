"""Whether a fleet is good, in one call: `verdict_of` judges what a monitor knows, `fleet_health` asks around first."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final

from textnlp_fast.errors import InvalidInputError
from textnlp_fast.gpu.health.facts import Action, Finding, Severity
from textnlp_fast.gpu.health.monitor import GPUHealthMonitorManager, MachineStatus
from textnlp_fast.gpu.health.rules import HealthRules, action_rank, severity_rank
from textnlp_fast.gpu.health.watching import checked_machines

__all__ = ["FleetHealth", "MachineHealth", "Verdict", "fleet_health", "verdict_of", "watch_fleet"]


_NO_GPU: Final = "what reads its GPUs told of none"


class Verdict(str, Enum):
    """Of a machine or a fleet; the worst of its parts."""

    GOOD = "good"
    """Nothing of severity warning or worse is open."""
    DEGRADED = "degraded"
    """Warnings are open, or what reads GPUs told of none."""
    BAD = "bad"
    """Something critical is open, or nothing was ever heard."""

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, kw_only=True)
class MachineHealth:
    """One machine: its verdict, what to do, and why."""

    machine: str
    provider: str
    verdict: Verdict
    action: Action
    """The greatest that any finding asks for."""
    gpus: int
    findings: tuple[Finding, ...]
    note: str
    """What is not known of it."""


@dataclass(frozen=True, kw_only=True)
class FleetHealth:
    """The fleet: good only if all of it is."""

    verdict: Verdict
    machines: tuple[MachineHealth, ...]

    @property
    def good(self) -> bool:
        """Whether nothing is wrong that is known."""
        return self.verdict is Verdict.GOOD

    @property
    def findings(self) -> tuple[Finding, ...]:
        """All that is open, machine by machine."""
        return tuple(finding for machine in self.machines for finding in machine.findings)


def verdict_of(monitor: GPUHealthMonitorManager) -> FleetHealth:
    """What a monitor knows now."""
    machines = tuple(
        sorted(
            (_machine(one, monitor.findings(one.machine)) for one in monitor.status().machines),
            key=lambda one: (one.verdict is Verdict.GOOD, one.verdict is Verdict.DEGRADED, one.machine),
        )
    )
    order = list(Verdict)
    worst = max((one.verdict for one in machines), key=order.index, default=Verdict.GOOD)
    return FleetHealth(verdict=worst, machines=machines)


def _machine(status: MachineStatus, findings: Sequence[Finding]) -> MachineHealth:
    severity = max((one.severity for one in findings), key=severity_rank, default=Severity.INFO)
    action = max((one.action for one in findings), key=action_rank, default=Action.NONE)
    silent = not any(source.heard_s is not None for source in status.sources)
    # What reads GPUs and tells of none has not said that they are well.
    blind = status.gpus == 0 and any(source.reads_gpus for source in status.sources)
    if silent or blind:
        action = max(action, Action.CHECK, key=action_rank)
    if severity is Severity.CRITICAL or silent:
        verdict = Verdict.BAD
    else:
        verdict = Verdict.DEGRADED if blind or severity is Severity.WARNING else Verdict.GOOD
    return MachineHealth(
        machine=status.machine,
        provider=status.provider,
        verdict=verdict,
        action=action,
        gpus=status.gpus,
        findings=tuple(findings),
        note=status.note or (_NO_GPU if blind and not silent else ""),
    )


async def watch_fleet(
    monitor: GPUHealthMonitorManager,
    *,
    aws: Sequence[str] = (),
    region: str | None = None,
    endpoint_url: str | None = None,
    agents: Mapping[str, str] | Sequence[str] = (),
    dcgm: Mapping[str, str] | Sequence[str] = (),
    headers: Mapping[str, str] | None = None,
    local: str | None = None,
    first_round_s: float = 30.0,
) -> None:
    """Begins to watch what is named: instances of AWS, agents and exporters by URL, this machine.

    `agents` and `dcgm` map machines to URLs, or are URLs alone: then each is its machine's name. Raises as
    `start_monitoring` does, and InvalidInputError where nothing is named.
    """
    of_agents, of_dcgm = _by_machine("agents", agents), _by_machine("dcgm", dcgm)
    if not (aws or of_agents or of_dcgm or local):
        raise InvalidInputError(
            "no machine is named", hint="Name agents, exporters, instances of AWS, or this machine."
        )
    aws = checked_machines(aws) if aws else ()
    rounds = []
    if aws:
        rounds.append(
            monitor.start_monitoring(
                "aws",
                aws,
                region=region,
                endpoint_url=endpoint_url,
                agents={name: url for name, url in of_agents.items() if name in aws},
                dcgm={name: url for name, url in of_dcgm.items() if name in aws},
                headers=headers,
                first_round_s=first_round_s,
            )
        )
    mine_agents = {name: url for name, url in of_agents.items() if name not in aws}
    mine_dcgm = {name: url for name, url in of_dcgm.items() if name not in aws}
    if mine_agents or mine_dcgm:
        rounds.append(
            monitor.start_monitoring(
                "url",
                [*dict.fromkeys([*mine_agents, *mine_dcgm])],
                agents=mine_agents,
                dcgm=mine_dcgm,
                headers=headers,
                first_round_s=first_round_s,
            )
        )
    if local:
        rounds.append(monitor.start_monitoring("local", [local], first_round_s=first_round_s))
    await asyncio.gather(*rounds)


async def fleet_health(
    *,
    aws: Sequence[str] = (),
    region: str | None = None,
    endpoint_url: str | None = None,
    agents: Mapping[str, str] | Sequence[str] = (),
    dcgm: Mapping[str, str] | Sequence[str] = (),
    headers: Mapping[str, str] | None = None,
    local: str | None = None,
    rules: HealthRules | str | Path | None = None,
    state_file: str | Path | None = None,
    look_s: float = 0.0,
    timeout_s: float = 30.0,
) -> FleetHealth:
    """Asks all that is named once, or for `look_s` seconds, and says whether the fleet is good.

    One look finds what is wrong now; what shows in time only (a rate, a throttled GPU) takes `look_s`, or a monitor
    that runs. With `state_file` each call goes on where the last stood.
    """
    for what, value in (("look_s", look_s), ("timeout_s", timeout_s)):
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
            raise InvalidInputError(f"{what} is {value!r:.60}: no number of seconds")
    monitor = GPUHealthMonitorManager(rules=rules, sinks=(), state_file=state_file)
    async with monitor:
        await watch_fleet(
            monitor,
            aws=aws,
            region=region,
            endpoint_url=endpoint_url,
            agents=agents,
            dcgm=dcgm,
            headers=headers,
            local=local,
            first_round_s=timeout_s,
        )
        if look_s > 0:
            await asyncio.sleep(look_s)
        return verdict_of(monitor)


def _by_machine(what: str, named: Mapping[str, str] | Sequence[str]) -> dict[str, str]:
    if isinstance(named, str):
        raise InvalidInputError("a list of URLs is needed, not one URL", hint=f"Give [{named!r}].")
    try:
        table = dict(named) if isinstance(named, Mapping) else {url: url for url in named}
    except TypeError:
        table = {"": repr(named)}
    wrong = [pair for pair in table.items() if not all(isinstance(one, str) and one for one in pair)]
    if wrong:
        raise InvalidInputError(
            f"{what} are {named!r:.100}: no machines and URLs",
            hint='Give {"node-1": "http://node-1:9401"}, or a list of URLs.',
        )
    return table
