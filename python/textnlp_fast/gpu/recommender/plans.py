"""Ranked plans for a workload: which machines, how many, what they give and cost, and why others do not serve."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import Final

from textnlp_fast.errors import InvalidInputError, NoPlanError
from textnlp_fast.gpu.recommender.efficiency import Efficiency
from textnlp_fast.gpu.recommender.layout import Layout
from textnlp_fast.gpu.recommender.market import cheapest_by_type, listed, types_of
from textnlp_fast.gpu.recommender.serving import Point, best_point
from textnlp_fast.gpu.recommender.shape import ModelShape
from textnlp_fast.gpu.recommender.workload import Workload, check_is, check_positive, check_share, check_whole
from textnlp_fast.gpu.types import GPUSpec, GPUType, InstanceType, Market, Offer

__all__ = [
    "Plan",
    "Purchase",
    "Recommendation",
    "Sized",
    "layouts_for",
    "recommend",
    "sized_types",
]

#: Looks a type's data sheet up: a catalogue's `spec`.
SpecOf = Callable[[GPUType], GPUSpec]
_MACHINES_A_REPLICA: Final = 4


@dataclass(frozen=True, kw_only=True)
class Purchase:
    """Machines of one offer, and the replicas that run on them."""

    offer: Offer
    machines: int
    replicas: int
    point: Point

    @property
    def gpus(self) -> int:
        """Those that serve; machines may have more."""
        return self.replicas * self.point.layout.gpus

    @property
    def requests_per_s(self) -> float:
        """What the replicas can serve."""
        return self.replicas * self.point.requests_per_s

    @property
    def usd_per_hour(self) -> float:
        """Of all machines."""
        return self.machines * self.offer.usd_per_hour


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A fleet that serves the workload. Latencies are the worst of its parts."""

    purchases: tuple[Purchase, ...]
    requests_per_s: float
    """Asked for, headroom included."""
    tokens_per_s: float
    """Prompt and output together, at the rate asked for."""

    @property
    def gpu_types(self) -> tuple[GPUType, ...]:
        """Those of its machines."""
        return tuple(dict.fromkeys(one.offer.instance_type.gpu_type for one in self.purchases))

    @property
    def gpus(self) -> int:
        """Those that serve."""
        return sum(one.gpus for one in self.purchases)

    @property
    def replicas(self) -> int:
        """Of the model."""
        return sum(one.replicas for one in self.purchases)

    @property
    def machines(self) -> int:
        """To rent."""
        return sum(one.machines for one in self.purchases)

    @property
    def capacity_per_s(self) -> float:
        """Requests a second at which the targets still hold."""
        return sum(one.requests_per_s for one in self.purchases)

    @property
    def ttft_s(self) -> float:
        """Predicted time to the first token, at capacity."""
        return max(one.point.ttft_s for one in self.purchases)

    @property
    def tpot_s(self) -> float:
        """Predicted mean time between tokens, at capacity."""
        return max(one.point.tpot_s for one in self.purchases)

    @property
    def usd_per_hour(self) -> float:
        """Of all machines."""
        return sum(one.usd_per_hour for one in self.purchases)

    @property
    def usd_per_million_tokens(self) -> float:
        """Of prompt and output together, at the rate asked for: what capacity stands idle is paid, too."""
        return self.usd_per_hour / (self.tokens_per_s * 3600) * 1e6


@dataclass(frozen=True, kw_only=True)
class Recommendation:
    """Plans, the cheapest first, and why the GPU types that are in none do not serve."""

    plans: tuple[Plan, ...]
    rejected: tuple[tuple[str, str], ...]
    notes: tuple[str, ...] = ()

    @property
    def best(self) -> Plan:
        """The cheapest."""
        return self.plans[0]


@dataclass(frozen=True, kw_only=True)
class Sized:
    """What a machine of a type serves, in the layout that gets most out of it."""

    instance_type: InstanceType
    point: Point
    machines_a_replica: int
    replicas_a_machine: int
    """0 where a replica spans machines."""

    def machines_for(self, replicas: int) -> int:
        """How many it takes."""
        if self.machines_a_replica > 1:
            return replicas * self.machines_a_replica
        return -(-replicas // self.replicas_a_machine)


@dataclass
class _Sizing:
    """Points by GPU and layout: many instance types hold the same GPUs."""

    workload: Workload
    spec_of: SpecOf
    efficiency: Efficiency | None
    points: dict[tuple[GPUType, float, Layout], Point | str] = field(default_factory=dict)

    def point(self, gpu: GPUType, memory_gib: float, layout: Layout) -> Point | str:
        key = gpu, memory_gib, layout
        if key not in self.points:
            try:
                self.points[key] = best_point(
                    self.workload.shape,
                    self.spec_of(gpu),
                    self.workload.traffic,
                    weights=self.workload.format,
                    kv_bytes=self.workload.kv_bytes,
                    layout=layout,
                    gpu_memory_gib=memory_gib,
                    efficiency=self.efficiency,
                )
            except InvalidInputError as error:  # rates that nobody published
                self.points[key] = str(error.args[0])
        return self.points[key]


def layouts_for(shape: ModelShape, gpus: int) -> list[Layout]:
    """Layouts of a replica inside a machine of that many GPUs: powers of 2 that divide the heads.

    Copies of attention (`data`) only for models with experts, which the copies share.
    """
    powers = [1 << one for one in range(max(1, gpus).bit_length()) if 1 << one <= gpus]
    tensor = [one for one in powers if shape.heads % one == 0]
    if not shape.expert_layers:
        return [Layout(one) for one in tensor]
    return [Layout(one, data=copies) for one in tensor for copies in powers if one * copies <= gpus]


def recommend(
    workload: Workload,
    offers: Iterable[Offer],
    spec_of: SpecOf,
    *,
    gpu_types: Collection[GPUType] | None = None,
    spot_share: float = 0.0,
    max_usd_per_hour: float | None = None,
    limit: int | None = 10,
    efficiency: Efficiency | None = None,
) -> Recommendation:
    """Plans of one instance type each for the workload, the cheapest first.

    `offers` is what may be rented, wherever; `spot_share` of the replicas may run on spot machines, if those are
    cheaper, the rest is on demand. Raises NoPlanError, whose `rejected` says for each GPU type why, if nothing serves.
    """
    check_is("workload", workload, Workload)
    check_share("spot_share", spot_share)
    if max_usd_per_hour is not None:
        check_positive("max_usd_per_hour", max_usd_per_hour, most=math.inf)
    if limit is not None:
        check_whole("limit", limit, most=10**9)
    wanted = types_of(gpu_types)
    there = listed(offers, wanted)
    sized, why = sized_types(workload, (one.instance_type for one in there), spec_of, efficiency=efficiency)
    cheapest = cheapest_by_type(there)
    plans: list[Plan] = []
    dearest: dict[GPUType, float] = {}
    for one in sized:
        key = one.instance_type.provider, one.instance_type.name
        plan = _plan(workload, one, cheapest[key], spot_share)
        if plan is None:
            why.setdefault(
                one.instance_type.gpu_type, "it is offered on spot only, which was not allowed for all"
            )
        elif max_usd_per_hour is not None and plan.usd_per_hour > max_usd_per_hour:
            gpu = one.instance_type.gpu_type
            dearest[gpu] = min(dearest.get(gpu, math.inf), plan.usd_per_hour)
        else:
            plans.append(plan)
    for gpu, usd in dearest.items():
        why[gpu] = f"the cheapest plan costs ${usd:,.2f} an hour, over the budget of ${max_usd_per_hour:,.2f}"
    plans = _one_a_type_and_layout(plans)
    served = {gpu for plan in plans for gpu in plan.gpu_types}
    for gpu in wanted or ():
        why.setdefault(gpu, "no machine with it is on offer there")
    rejected = tuple(sorted((gpu.value, text) for gpu, text in why.items() if gpu not in served))
    if not plans:
        raise no_plan(rejected)
    plans.sort(key=lambda plan: (plan.usd_per_hour, plan.gpus, plan.tpot_s))
    return Recommendation(plans=tuple(plans[:limit]), rejected=rejected)


def no_plan(rejected: tuple[tuple[str, str], ...]) -> NoPlanError:
    """The error, with its reasons."""
    reasons = "\n".join(f"  {gpu}: {text}" for gpu, text in rejected)
    error = NoPlanError(
        f"nothing on offer serves this workload\n{reasons}" if reasons else "nothing is on offer"
    )
    error.rejected = rejected
    return error


def sized_types(
    workload: Workload,
    instance_types: Iterable[InstanceType],
    spec_of: SpecOf,
    *,
    efficiency: Efficiency | None = None,
) -> tuple[list[Sized], dict[GPUType, str]]:
    """What each instance type serves in the layout that serves most on it; and of the others, why they do not."""
    sizing = _Sizing(workload, spec_of, efficiency)
    sized: list[Sized] = []
    why: dict[GPUType, str] = {}
    widest: dict[GPUType, float] = {}
    for one in sorted(set(instance_types), key=lambda it: (it.provider, it.name)):
        found = _sized(sizing, one)
        if not isinstance(found, str):
            sized += found
        elif one.gpu_count >= widest.get(one.gpu_type, -math.inf):
            # The reason of the widest machine: the others would fail on the same, or sooner.
            widest[one.gpu_type] = one.gpu_count
            why[one.gpu_type] = found
    served = {one.instance_type.gpu_type for one in sized}
    return sized, {gpu: text for gpu, text in why.items() if gpu not in served}


def _sized(sizing: _Sizing, one: InstanceType) -> list[Sized] | str:
    if one.gpu_count < 1:
        return "machines with a part of a GPU are not planned with"
    gpus = int(one.gpu_count)
    try:
        spec = sizing.spec_of(one.gpu_type)
    except KeyError:
        return "the catalogue has no data sheet of it"
    if (unable := cannot_run(spec, sizing.workload)) is not None:
        return unable
    memory = min(one.gpu_memory_gib, spec.memory_gib)
    found: list[Sized] = []
    reasons: list[str] = []
    layouts = layouts_for(sizing.workload.shape, gpus)
    for layout in layouts:
        point = sizing.point(one.gpu_type, memory, layout)
        if isinstance(point, str):
            reasons.append(point)
        else:
            found.append(
                Sized(
                    instance_type=one,
                    point=point,
                    machines_a_replica=1,
                    replicas_a_machine=gpus // layout.gpus,
                )
            )
    if found or not reasons:
        return found or "no layout divides its heads among the GPUs of a machine"
    if not all("do not fit" in text for text in reasons):
        return next(text for text in reversed(reasons) if "do not fit" not in text)
    return _over_machines(sizing, one, layouts[-1], memory) or reasons[-1]


def cannot_run(spec: GPUSpec, workload: Workload) -> str | None:
    """Why engines do not run the workload on such a GPU, or None. Bounds are vLLM's, of compute capability."""
    bounds = [((7, 0), "any engine here")]
    bounds += {
        "fp8": [((8, 0), "fp8 weights")],
        "fp8-block": [((8, 0), "fp8 weights")],
        "int4": [((7, 5), "int4 weights")],
    }.get(workload.format.name, [])
    bounds += [((8, 9), "an fp8 KV cache")] if workload.kv_cache == "fp8" else []
    for least, what in bounds:
        if spec.compute_capability < least:
            has = ".".join(map(str, spec.compute_capability))
            return f"compute capability {has}: {what} asks for {least[0]}.{least[1]}"
    return None


def _over_machines(sizing: _Sizing, one: InstanceType, widest: Layout, memory: float) -> list[Sized] | None:
    """A replica over several machines, a stage of the pipeline each: only where it fits no single one."""
    for stages in range(2, _MACHINES_A_REPLICA + 1):
        if one.gpu_count < 2 or stages > sizing.workload.shape.layers:
            return None
        layout = Layout(widest.tensor, stages, widest.data)
        point = sizing.point(one.gpu_type, memory, layout)
        if not isinstance(point, str):
            return [Sized(instance_type=one, point=point, machines_a_replica=stages, replicas_a_machine=0)]
    return None


def _plan(workload: Workload, sized: Sized, offers: dict[Market, Offer], spot_share: float) -> Plan | None:
    replicas = replicas_for(workload.capacity_per_s, sized.point.requests_per_s)
    listed, spot = offers.get(Market.ON_DEMAND), offers.get(Market.SPOT)
    if spot is not None and listed is not None and spot.usd_per_hour > listed.usd_per_hour:
        spot = None
    on_spot = math.floor(replicas * spot_share + 1e-9) if spot is not None else 0
    if listed is None and on_spot < replicas:
        return None
    purchases = [
        Purchase(offer=offer, machines=sized.machines_for(count), replicas=count, point=sized.point)
        for offer, count in ((spot, on_spot), (listed, replicas - on_spot))
        if offer is not None and count > 0
    ]
    return plan_of(workload, purchases)


def plan_of(workload: Workload, purchases: Iterable[Purchase]) -> Plan:
    """The plan that these purchases make."""
    return Plan(
        purchases=tuple(purchases),
        requests_per_s=workload.capacity_per_s,
        tokens_per_s=workload.requests_per_s * (workload.prompt + workload.output),
    )


def replicas_for(requests_per_s: float, each: float) -> int:
    """How many replicas it takes; a billionth too much asks for no replica more."""
    return max(1, math.ceil(requests_per_s / each * (1 - 1e-9)))


def _one_a_type_and_layout(plans: list[Plan]) -> list[Plan]:
    """Of each instance type, the cheapest layout."""
    best: dict[tuple[str, str], Plan] = {}
    for plan in plans:
        bought = plan.purchases[0].offer.instance_type
        key = bought.provider, bought.name
        before = best.get(key)
        if before is None or (plan.usd_per_hour, plan.gpus, plan.tpot_s) < (
            before.usd_per_hour,
            before.gpus,
            before.tpot_s,
        ):
            best[key] = plan
    return list(best.values())
