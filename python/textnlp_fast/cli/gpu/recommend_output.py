"""How recommendations are printed: tables for people, JSON for scripts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from textnlp_fast.cli.output import print_json, print_line, print_table, without_empty

if TYPE_CHECKING:
    from textnlp_fast.gpu.recommender import (
        BatchPlan,
        FineTunePlan,
        Memory,
        Plan,
        Purchase,
        ReadModel,
        Recommendation,
        Workload,
    )
    from textnlp_fast.gpu.recommender.fine_tune import FineTuneMemory
    from textnlp_fast.gpu.types import Offer

__all__ = ["show_batch", "show_fine_tune", "show_plans"]

Job = TypeVar("Job", bound="BatchPlan | FineTunePlan")


def show_plans(workload: Workload, found: Recommendation, model: ReadModel, chosen: dict[str, Any]) -> None:
    """Plans for traffic, and why other GPU types do not serve."""
    plans = found.plans[: chosen["limit"]]
    if chosen["as_json"]:
        print_json(
            {
                "model": _model(model, workload.weights),
                "plans": [_plan(plan) for plan in plans],
                "rejected": [{"gpu_type": gpu, "reason": text} for gpu, text in found.rejected],
                "notes": list(model.notes),
            }
        )
        return
    print_line(
        f"{workload.shape.name}: {workload.shape.parameters / 1e9:.1f}B parameters in {workload.format.name}, "
        f"{workload.capacity_per_s:g} requests/s of {workload.prompt} + {workload.output} tokens, "
        f"first token within {workload.ttft_s:g} s, then one each {workload.tpot_s * 1000:g} ms"
    )
    rows = [
        _row(number if one is plan.purchases[0] else None, plan, one)
        for number, plan in enumerate(plans, 1)
        for one in plan.purchases
    ]
    columns = (
        "# gpu,type,region,market,machines,layout,replicas,gpus,batch,GiB,TTFT s,TPOT ms,req/s,USD/h,USD/Mtok"
    )
    print_table(*without_empty(columns.split(","), rows, keep=3), left=4, yields=1)
    print_line("USD/Mtok: a million tokens, of prompts and answers together, at the rate that was asked for.")
    if len(plans) < len(found.plans):
        print_line(f"{len(found.plans) - len(plans)} more: --limit.")
    if found.rejected:
        print_line("Not these:")
        for gpu, text in found.rejected:
            print_line(f"  {gpu}: {text}")
    _notes(model, [one.offer for plan in plans for one in plan.purchases])


def _row(number: int | None, plan: Plan, one: Purchase) -> list[str]:
    point = one.point
    first = number is not None
    return [
        f"{number or ' '} {one.offer.instance_type.gpu_type.value.removeprefix('nvidia-')}",
        *_place(one.offer),
        str(one.machines),
        str(point.layout),
        str(one.replicas),
        str(one.gpus),
        str(point.batch),
        _gib(point.memory),
        f"{point.ttft_s:.2f}",
        f"{point.tpot_s * 1000:.1f}",
        f"{one.requests_per_s:.1f}",
        f"{one.usd_per_hour:,.2f}",
        f"{plan.usd_per_million_tokens:.3f}" if first else "",
    ]


def show_batch(plans: Sequence[BatchPlan], model: ReadModel, chosen: dict[str, Any]) -> None:
    """Plans for a batch job."""

    def document(plan: BatchPlan) -> dict[str, Any]:
        return {
            **_offer(plan.offer),
            "machines": plan.machines,
            "layout": str(plan.sized.point.layout),
            "hours": plan.hours,
            "usd": plan.usd,
        }

    columns: dict[str, Callable[[BatchPlan], str]] = {
        "machines": lambda plan: str(plan.machines),
        "layout": lambda plan: str(plan.sized.point.layout),
        "hours": lambda plan: f"{plan.hours:.2f}",
        "USD": lambda plan: f"{plan.usd:,.2f}",
    }
    _show_jobs(plans, model, chosen, document, columns)


def show_fine_tune(plans: Sequence[FineTunePlan], model: ReadModel, chosen: dict[str, Any]) -> None:
    """Plans for fine-tuning."""

    def document(plan: FineTunePlan) -> dict[str, Any]:
        return {
            **_offer(plan.offer),
            "machines": plan.machines,
            "gpus": plan.gpus,
            "memory_gib": _memory(plan.memory),
            "hours": plan.hours,
            "bound_by": plan.bound_by,
            "usd": plan.usd,
        }

    columns: dict[str, Callable[[FineTunePlan], str]] = {
        "machines": lambda plan: str(plan.machines),
        "gpus": lambda plan: str(plan.gpus),
        "GiB": lambda plan: _gib(plan.memory),
        "bound by": lambda plan: plan.bound_by,
        "hours": lambda plan: f"{plan.hours:.1f}",
        "USD": lambda plan: f"{plan.usd:,.2f}",
    }
    _show_jobs(plans, model, chosen, document, columns)


def _show_jobs(
    plans: Sequence[Job],
    model: ReadModel,
    chosen: dict[str, Any],
    document: Callable[[Job], dict[str, Any]],
    columns: Mapping[str, Callable[[Job], str]],
) -> None:
    """Plans of one offer each: `document` for scripts, else what it offers and the `columns`."""
    shown = plans[: chosen["limit"]]
    if chosen["as_json"]:
        print_json(
            {
                "model": _model(model, chosen["weights"]),
                "plans": [document(plan) for plan in shown],
                "notes": list(model.notes),
            }
        )
        return
    rows = [
        [
            plan.offer.instance_type.gpu_type.value,
            *_place(plan.offer),
            *(cell(plan) for cell in columns.values()),
        ]
        for plan in shown
    ]
    print_table(["gpu", "type", "region", "market", *columns], rows, left=4, yields=1)
    _notes(model, [plan.offer for plan in shown])


def _place(offer: Offer) -> list[str]:
    return [offer.instance_type.name, offer.zone or offer.region, offer.market.value]


def _gib(memory: Memory | FineTuneMemory) -> str:
    return f"{memory.used_gib:.0f}/{memory.limit_gib:.0f}"


def _memory(memory: Memory | FineTuneMemory) -> dict[str, Any]:
    return {**vars(memory), "used_gib": memory.used_gib}


def _notes(model: ReadModel, offers: Sequence[Offer]) -> None:
    for note in model.notes:
        print_line(f"Note: {note}.")
    stale = sum(offer.stale for offer in offers)
    if stale:
        print_line(
            f"{stale} of {len(offers)} prices are stale: `textnlp-fast gpu catalog refresh` asks for new ones."
        )


def _model(model: ReadModel, weights: str | None) -> dict[str, Any]:
    shape = model.shape
    return {
        "name": shape.name,
        "parameters": shape.parameters,
        "active_parameters": shape.active_parameters,
        "weights": weights or model.weights,
    }


def _offer(offer: Offer) -> dict[str, Any]:
    its = offer.instance_type
    return {
        "gpu_type": its.gpu_type.value,
        "provider": its.provider,
        "instance_type": its.name,
        "region": offer.region,
        "zone": offer.zone,
        "market": offer.market.value,
        "usd_per_hour_a_machine": offer.usd_per_hour,
        "as_of": offer.as_of.isoformat(),
        "stale": offer.stale,
    }


def _plan(plan: Plan) -> dict[str, Any]:
    return {
        "gpus": plan.gpus,
        "replicas": plan.replicas,
        "machines": plan.machines,
        "capacity_per_s": plan.capacity_per_s,
        "ttft_s": plan.ttft_s,
        "tpot_s": plan.tpot_s,
        "usd_per_hour": plan.usd_per_hour,
        "usd_per_million_tokens": plan.usd_per_million_tokens,
        "machines_of": [
            {
                **_offer(one.offer),
                "machines": one.machines,
                "replicas": one.replicas,
                "gpus": one.gpus,
                "tensor": one.point.layout.tensor,
                "pipeline": one.point.layout.pipeline,
                "data": one.point.layout.data,
                "batch": one.point.batch,
                "requests_per_s": one.requests_per_s,
                "ttft_s": one.point.ttft_s,
                "tpot_s": one.point.tpot_s,
                "memory_gib": _memory(one.point.memory),
            }
            for one in plan.purchases
        ],
    }
