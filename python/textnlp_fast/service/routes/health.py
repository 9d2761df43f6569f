"""Whether the machines that are watched are good."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends

from textnlp_fast.gpu.health.facts import Finding
from textnlp_fast.gpu.health.fleet import MachineHealth
from textnlp_fast.gpu.health.judging import ACTION_WORDS
from textnlp_fast.service.auth import Role, require
from textnlp_fast.service.jobs.records import time_text
from textnlp_fast.service.live import Live, live_of
from textnlp_fast.service.live_schemas import FleetHealthView, HealthFinding, MachineView

__all__ = ["router"]

router = APIRouter(prefix="/api/v1", tags=["fleet"])


@router.get("/fleet/health", dependencies=[Depends(require(Role.READER))])
async def fleet_health(live: Annotated[Live, Depends(live_of)]) -> FleetHealthView:
    """The machines whose agents the service watches, the worst first, and what to do about each."""
    health = live.health.health()
    if health is None:
        return FleetHealthView(verdict=None, machines=[], note=live.health.note or "no agent was heard yet")
    return FleetHealthView.model_validate(
        {
            "verdict": health.verdict.value,
            "machines": [_machine(one) for one in health.machines],
            "note": live.health.note,
        }
    )


def _machine(one: MachineHealth) -> MachineView:
    return MachineView.model_validate(
        {
            "name": one.machine,
            "provider": one.provider,
            "state": one.verdict.value,
            "action": ACTION_WORDS[one.action],
            "gpus": sorted({finding.gpu for finding in one.findings if finding.gpu is not None}),
            "gpu_count": one.gpus,
            "findings": [_finding(finding) for finding in one.findings],
            "note": one.note,
        }
    )


def _finding(one: Finding) -> HealthFinding:
    return HealthFinding.model_validate(
        {
            "what": one.summary,
            "rule": one.rule,
            "gpu": one.gpu,
            "severity": one.severity.value,
            "since": time_text(one.first_at_s),
            "action": ACTION_WORDS[one.action],
            "source": one.provenance,
            "evidence": one.evidence,
            "count": one.count,
        }
    )
