"""Jobs of many requests by a deadline: what counts is that all are done, and what that cost."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from textnlp_fast.errors import InvalidInputError
from textnlp_fast.gpu.recommender.market import cheapest_by_type, listed, types_of
from textnlp_fast.gpu.recommender.plans import Sized, SpecOf, no_plan, sized_types
from textnlp_fast.gpu.recommender.shape import ModelShape
from textnlp_fast.gpu.recommender.workload import Workload, check_is, check_positive, check_whole
from textnlp_fast.gpu.types import GPUType, Offer

__all__ = ["BatchJob", "BatchPlan", "plan_batch"]


@dataclass(frozen=True, kw_only=True)
class BatchJob:
    """Requests that may wait. Lengths are means, in tokens."""

    shape: ModelShape
    requests: int
    deadline_h: float
    prompt: int = 1000
    output: int = 250
    weights: str = "bf16"
    kv_cache: str = "bf16"
    startup_h: float = 0.1
    """From the order of a machine to its first token; it is paid, and it counts against the deadline."""

    def __post_init__(self) -> None:
        check_whole("requests", self.requests, most=10**13)
        check_positive("deadline_h", self.deadline_h, most=24 * 365)
        if not (isinstance(self.startup_h, (int, float)) and 0 <= self.startup_h < math.inf):
            raise InvalidInputError(f"startup_h cannot be {self.startup_h!r}")
        if self.startup_h >= self.deadline_h:
            raise InvalidInputError(
                f"machines take {self.startup_h:g} h to start, and all has to be done in {self.deadline_h:g}",
                hint="Give more time, or a shorter start (startup_h).",
            )
        self.workload(1.0)

    def workload(self, requests_per_s: float) -> Workload:
        """The same requests as traffic, with no target of latency."""
        return Workload(
            shape=self.shape,
            requests_per_s=requests_per_s,
            prompt=self.prompt,
            output=self.output,
            ttft_s=math.inf,
            tpot_s=math.inf,
            weights=self.weights,
            kv_cache=self.kv_cache,
        )


@dataclass(frozen=True, kw_only=True)
class BatchPlan:
    """Machines of one offer, from start to end."""

    offer: Offer
    sized: Sized
    machines: int
    hours: float
    """Until the last request is done, with the start."""

    @property
    def usd(self) -> float:
        """Of all of it."""
        return self.machines * self.offer.usd_per_hour * self.hours


def plan_batch(
    job: BatchJob,
    offers: Iterable[Offer],
    spec_of: SpecOf,
    *,
    gpu_types: Collection[GPUType] | None = None,
    spot: bool = False,
    max_usd: float | None = None,
) -> list[BatchPlan]:
    """Plans that keep the deadline, the cheapest first: of each offer's type, as few machines as keep it.

    More machines cost the same work and more starts, so the fewest are the cheapest. Raises NoPlanError.
    """
    check_is("job", job, BatchJob)
    there = listed(offers, types_of(gpu_types), spot=spot)
    sized, why = sized_types(job.workload(1.0), (one.instance_type for one in there), spec_of)
    cheapest = cheapest_by_type(there)
    plans = []
    for one in sized:
        unit = one.machines_a_replica
        rate = max(1, one.replicas_a_machine) * one.point.requests_per_s
        units = max(
            1, math.ceil(job.requests / (rate * 3600 * (job.deadline_h - job.startup_h)) * (1 - 1e-9))
        )
        hours = job.startup_h + job.requests / (rate * units * 3600)
        plans += [
            BatchPlan(offer=offer, sized=one, machines=units * unit, hours=hours)
            for offer in cheapest[one.instance_type.provider, one.instance_type.name].values()
        ]
    plans.sort(key=lambda plan: (plan.usd, plan.machines, plan.offer.instance_type.name))
    kept = [plan for plan in plans if max_usd is None or plan.usd <= max_usd]
    if not kept:
        reasons = {gpu.value: text for gpu, text in why.items()}
        if plans:
            reasons["all types"] = f"the cheapest costs ${plans[0].usd:,.2f}, over ${max_usd or 0:,.2f}"
        raise no_plan(tuple(sorted(reasons.items())))
    return kept
