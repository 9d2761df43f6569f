"""What the fleet costs."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends

from textnlp_fast.service.auth import Role, require
from textnlp_fast.service.jobs.records import time_text
from textnlp_fast.service.live import Live, live_of
from textnlp_fast.service.live_schemas import CostPoint, FleetCosts, ProviderCosts

__all__ = ["router"]

router = APIRouter(prefix="/api/v1", tags=["fleet"])


@router.get("/fleet/costs", dependencies=[Depends(require(Role.READER))])
async def fleet_costs(live: Annotated[Live, Depends(live_of)]) -> FleetCosts:
    """What the fleet costs an hour now, has cost, and has saved by spot, from the journal."""
    series = await live.costs.get()
    return FleetCosts(
        at=time_text(series.at.timestamp()),
        usd_per_hour=float(series.total.usd_per_hour),
        spent_usd=float(series.total.spent_usd),
        saved_usd=float(series.total.saved_usd),
        running=series.total.running,
        budget_usd_per_hour=series.budget_usd_per_hour,
        budget_usd=series.budget_usd,
        by_provider=[
            ProviderCosts(
                provider=provider,
                running=costs.running,
                usd_per_hour=float(costs.usd_per_hour),
                spent_usd=float(costs.spent_usd),
                saved_usd=float(costs.saved_usd),
            )
            for provider, costs in series.by_provider
        ],
        points=[
            CostPoint(
                at=time_text(at.timestamp()),
                usd_per_hour=float(costs.usd_per_hour),
                spent_usd=float(costs.spent_usd),
                saved_usd=float(costs.saved_usd),
            )
            for at, costs in series.points
        ],
        note=live.fleet.note,
    )
