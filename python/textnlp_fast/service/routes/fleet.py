"""The machines that are rented, by the journal."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends

from textnlp_fast.gpu.health.fleet import FleetHealth
from textnlp_fast.gpu.resources.fleet import FleetInstance
from textnlp_fast.service.auth import Role, require
from textnlp_fast.service.jobs.records import time_text
from textnlp_fast.service.live import Live, live_of
from textnlp_fast.service.live_schemas import FleetInstances, FleetInstanceView
from textnlp_fast.service.paging import Cursor, Limit, numbered_page

__all__ = ["router"]

router = APIRouter(prefix="/api/v1", tags=["fleet"])


@router.get("/fleet/instances", dependencies=[Depends(require(Role.READER))])
async def list_instances(
    live: Annotated[Live, Depends(live_of)], limit: Limit = 100, cursor: Cursor = None
) -> FleetInstances:
    """Machines that are alive by the journal, the newest first; no cloud is asked."""
    found, following = numbered_page(await live.instances.get(), cursor, limit)
    verdicts = _verdicts(live.health.health())
    return FleetInstances(
        items=[_view(one, verdicts) for one in found], next_cursor=following, note=live.fleet.note
    )


def _verdicts(health: FleetHealth | None) -> dict[str, str]:
    return {} if health is None else {one.machine: one.verdict.value for one in health.machines}


def _view(one: FleetInstance, verdicts: dict[str, str]) -> FleetInstanceView:
    instance = one.instance
    return FleetInstanceView.model_validate(
        {
            "id": instance.instance_id,
            "provider": instance.provider,
            "region": instance.region,
            "zone": instance.zone,
            "instance_type": instance.instance_type,
            "gpu_type": one.gpu_type,
            "gpus": one.gpu_count,
            "market": str(instance.market),
            "state": str(instance.state),
            "usd_per_hour": one.usd_per_hour,
            "launched_at": time_text(instance.launched_at.timestamp()),
            "spent_usd": float(one.costs.spent_usd),
            "saved_usd": float(one.costs.saved_usd),
            "health": verdicts.get(instance.instance_id),
        }
    )
