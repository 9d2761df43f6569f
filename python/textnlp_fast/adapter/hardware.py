"""Which machines, and how many replicas: as the description names them, else as the recommender chooses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from textnlp_fast.adapter.description import Deployment
from textnlp_fast.errors import InvalidInputError, NoPlanError
from textnlp_fast.gpu.recommender import Layout, Plan, ReadModel, Workload, recommend
from textnlp_fast.gpu.types import GPUType, Market, Offer

if TYPE_CHECKING:
    from textnlp_fast.gpu.catalog import Catalog

__all__ = ["Hardware", "choose_hardware"]

#: GPUs of machines whose processors are ARM's: images of engines are seldom for those.
_BESIDE_ARM: Final = frozenset({GPUType.NVIDIA_T4G, GPUType.NVIDIA_GB200})


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """What one replica runs on, how many replicas there are to begin with, and what that costs."""

    gpu: GPUType | None
    """None: no GPU at all, for engines that need none."""
    layout: Layout
    """Of one replica."""
    replicas: int
    offers: tuple[Offer, ...] = ()
    """Machines that would be rented, the cheapest market first; none where the description's place is not a cloud's."""
    replicas_a_machine: int = 1
    requests_per_s: float | None = None
    """Of one replica, at its SLO; None: not predicted."""
    sequences: int | None = None
    """At once, at that rate."""
    ttft_s: float | None = None
    tpot_s: float | None = None
    usd_per_hour: float | None = None
    """Of all machines."""
    rejected: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def gpus(self) -> int:
        """Of one replica; 0 without one."""
        return self.layout.gpus if self.gpu is not None else 0

    @property
    def usd_per_hour_each(self) -> float | None:
        """Of one replica."""
        return None if self.usd_per_hour is None else self.usd_per_hour / self.replicas


def choose_hardware(
    deployment: Deployment,
    model: ReadModel | None,
    *,
    catalog: Catalog | None = None,
    one_a_machine: bool = False,
) -> Hardware:
    """By the workload where there is one, else what is named. Raises InvalidInputError and NoPlanError."""
    if deployment.workload is not None and model is not None:
        return _recommended(deployment, model, _catalog(catalog), one_a_machine)
    named = deployment.machines
    least = max(1, deployment.policy.min_instances)
    if named.gpu is None and named.instance_type is None:
        if deployment.engine.kind != "openai":
            raise InvalidInputError(
                "nothing says which GPU a replica needs",
                hint="Give workload, from which it is chosen, or machines.gpu.",
            )
        return Hardware(gpu=None, layout=Layout(), replicas=least, notes=("no GPU is asked for",))
    offers = _offers(deployment, _catalog(catalog))
    return _named(deployment, offers, least, one_a_machine)


def _catalog(catalog: Catalog | None) -> Catalog:
    if catalog is not None:
        return catalog
    from textnlp_fast.gpu.catalog import Catalog as Packaged  # noqa: PLC0415 - a megabyte of prices

    return Packaged.load()


def _offers(deployment: Deployment, catalog: Catalog) -> list[Offer]:
    named, place = deployment.machines, deployment.placement
    return catalog.offers(
        providers=place.clouds or None,
        regions=place.regions or None,
        gpu_types=None if named.gpu is None else [named.gpu],
        instance_types=None if named.instance_type is None else [named.instance_type],
        markets=None if deployment.spot.share > 0 else [Market.ON_DEMAND],
    )


def _named(deployment: Deployment, offers: list[Offer], least: int, one_a_machine: bool) -> Hardware:
    named = deployment.machines
    gpu = None if named.gpu is None else GPUType(named.gpu)
    if named.instance_type is not None and offers:
        gpu = offers[0].instance_type.gpu_type
    gpus = named.gpus or (int(offers[0].instance_type.gpu_count) if named.instance_type and offers else 1)
    fitting = [one for one in offers if _holds(one, gpus, one_a_machine)]
    if gpu is None or not fitting:
        where = ", ".join((*deployment.placement.clouds, *deployment.placement.regions)) or "any cloud"
        if one_a_machine or gpu is None:
            raise InvalidInputError(
                f"no machine on offer in {where} has {gpus} x {named.gpu or named.instance_type} "
                f"{'for one replica ' if one_a_machine else ''}as machines asks for",
                hint="`textnlp-fast gpu catalog show` lists what there is.",
            )
        # A cluster of one's own may have what no cloud rents.
        return Hardware(
            gpu=gpu,
            layout=Layout(gpus),
            replicas=least,
            notes=(f"no machine with {gpus} x {gpu} is on offer in {where}: no price is known",),
        )
    bought = _markets(fitting, deployment.spot.share)
    first = bought[0]
    each = 1 if one_a_machine else max(1, int(first.instance_type.gpu_count) // gpus)
    on_spot = int(least * deployment.spot.share + 1e-9) if first.market is Market.SPOT else 0
    priced = [(first, on_spot), (bought[-1], least - on_spot)]
    usd = sum(offer.usd_per_hour * -(-count // each) for offer, count in priced if count)
    return Hardware(
        gpu=gpu,
        layout=Layout(gpus),
        replicas=least,
        offers=tuple(bought),
        replicas_a_machine=each,
        usd_per_hour=usd,
        notes=_within_budget(deployment, usd),
    )


def _holds(offer: Offer, gpus: int, one_a_machine: bool) -> bool:
    count = offer.instance_type.gpu_count
    return count == gpus if one_a_machine else count >= gpus and count == int(count)


def _markets(offers: list[Offer], spot_share: float) -> list[Offer]:
    """The cheapest offer; where it is spot, also what is taken on demand beside it, of the same machine if possible."""
    first = offers[0]
    if first.market is not Market.SPOT:
        return [first]
    rest = [one for one in offers if one.market is Market.ON_DEMAND]
    same = [one for one in rest if one.instance_type == first.instance_type] or rest
    if not same:
        if spot_share < 1:
            raise InvalidInputError(
                "what is named is offered on spot only", hint="Set spot.share to 1, or name other machines."
            )
        return [first]
    return [first, same[0]]


def _recommended(deployment: Deployment, model: ReadModel, catalog: Catalog, one_a_machine: bool) -> Hardware:
    asked, named = deployment.workload, deployment.machines
    assert asked is not None
    workload = Workload(
        shape=model.shape,
        requests_per_s=asked.requests_per_s,
        prompt=asked.prompt_tokens,
        output=asked.output_tokens,
        ttft_s=deployment.slo.ttft_s,
        tpot_s=deployment.slo.tpot_s,
        weights=deployment.engine.weights or model.weights,
        kv_cache=deployment.engine.kv_cache,
        context=asked.context_tokens,
        headroom=asked.headroom,
    )
    offers = _offers(deployment, catalog)
    why: list[tuple[str, str]] = []
    if named.gpu is None and named.instance_type is None:
        # Whoever names one knows it.
        left = {one.instance_type.gpu_type for one in offers} & _BESIDE_ARM
        offers = [one for one in offers if one.instance_type.gpu_type not in left]
        why = [
            (gpu.value, "its machines have ARM processors: name it if the image is for those")
            for gpu in sorted(left)
        ]
    if named.gpus is not None and one_a_machine:
        offers = [one for one in offers if one.instance_type.gpu_count == named.gpus]
    found = recommend(
        workload,
        offers,
        catalog.spec,
        gpu_types=None if named.gpu is None else [GPUType(named.gpu)],
        spot_share=deployment.spot.share,
        max_usd_per_hour=deployment.budget.usd_per_hour or None,
        limit=None,
    )
    why += found.rejected
    for plan in found.plans:
        reason = _unfit(deployment, plan, one_a_machine)
        if reason is None:
            return _of_plan(deployment, plan, tuple(why))
        why.append((plan.purchases[0].offer.instance_type.name, reason))
    error = NoPlanError(
        "no plan for the workload fits this deployment\n" + "\n".join(f"  {a}: {b}" for a, b in why)
    )
    error.rejected = tuple(why)
    raise error


def _unfit(deployment: Deployment, plan: Plan, one_a_machine: bool) -> str | None:
    """Why a plan cannot be taken, or None."""
    layout = plan.purchases[0].point.layout
    if plan.machines > plan.replicas:
        return "a replica would span machines, which no target here is compiled for"
    if deployment.machines.gpus is not None and layout.gpus != deployment.machines.gpus:
        return f"a replica would take {layout.gpus} GPUs, not the {deployment.machines.gpus} of machines.gpus"
    if one_a_machine and any(int(one.offer.instance_type.gpu_count) != layout.gpus for one in plan.purchases):
        return "a machine would hold more GPUs than one replica takes"
    if plan.replicas > deployment.policy.max_instances:
        return f"it takes {plan.replicas} replicas, more than policy.max_instances {deployment.policy.max_instances}"
    return None


def _of_plan(deployment: Deployment, plan: Plan, rejected: tuple[tuple[str, str], ...]) -> Hardware:
    point = plan.purchases[0].point
    replicas = max(plan.replicas, deployment.policy.min_instances)
    usd = plan.usd_per_hour * replicas / plan.replicas
    offers = tuple(one.offer for one in plan.purchases)
    machine = offers[0].instance_type
    return Hardware(
        gpu=machine.gpu_type,
        layout=point.layout,
        replicas=replicas,
        offers=offers,
        replicas_a_machine=max(1, int(machine.gpu_count) // point.layout.gpus),
        requests_per_s=point.requests_per_s,
        sequences=point.batch,
        ttft_s=plan.ttft_s,
        tpot_s=plan.tpot_s,
        usd_per_hour=usd,
        rejected=rejected,
        notes=_within_budget(deployment, usd),
    )


def _within_budget(deployment: Deployment, usd_per_hour: float) -> tuple[str, ...]:
    budget = deployment.budget.usd_per_hour
    if budget is not None and usd_per_hour > budget:
        return (f"it costs ${usd_per_hour:,.2f} an hour, over the budget of ${budget:,.2f}",)
    return ()
