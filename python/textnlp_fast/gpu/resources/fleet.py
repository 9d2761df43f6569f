"""Instances as the fleet knows them: what the provider says, and what the journal does."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, replace

from textnlp_fast.gpu.providers.contract import LAUNCH_TAG, OWNER_TAG, Instance
from textnlp_fast.gpu.resources.ledger import Costs, costs_of
from textnlp_fast.gpu.resources.records import InstanceRecord, LaunchRecord

__all__ = ["FleetInstance", "fleet_instance"]


@dataclass(frozen=True, kw_only=True)
class FleetInstance:
    """A machine of the fleet."""

    instance: Instance
    """As it was last described."""
    launch_id: str
    gpu_type: str
    gpu_count: float
    usd_per_hour: float
    """At the launch."""
    on_demand_usd_per_hour: float | None
    costs: Costs
    recovered: bool
    """True if its process died at the launch, and the fleet found it later."""

    @property
    def instance_id(self) -> str:
        return self.instance.instance_id

    @property
    def provider(self) -> str:
        return self.instance.provider

    @property
    def region(self) -> str:
        return self.instance.region


def fleet_instance(
    record: LaunchRecord, one: InstanceRecord, described: Mapping[str, Instance], now: datetime.datetime
) -> FleetInstance:
    """The instance of a record, as described, or as the journal has it where it was not."""
    instance = described.get(one.instance_id)
    if instance is None:
        instance = Instance(
            provider=record.provider,
            region=record.region,
            zone=one.zone,
            instance_id=one.instance_id,
            instance_type=record.instance_type,
            market=record.market,
            state=one.state,
            launched_at=one.periods[0].began if one.periods else record.created_at,
            launch_id=record.launch_id,
            tags={**record.tags, LAUNCH_TAG: record.launch_id, OWNER_TAG: record.owner},
            reason=one.why,
        )
    else:
        instance = replace(instance, state=one.state)
    listed = record.on_demand_usd_per_hour
    return FleetInstance(
        instance=instance,
        launch_id=record.launch_id,
        gpu_type=record.gpu_type,
        gpu_count=record.gpu_count,
        usd_per_hour=float(record.usd_per_hour),
        on_demand_usd_per_hour=None if listed is None else float(listed),
        costs=costs_of(record, now, instance_id=one.instance_id),
        recovered=record.recovered,
    )
