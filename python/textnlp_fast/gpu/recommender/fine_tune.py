"""Fine-tuning: what it takes of memory, how long it runs, and which machines do it for least.

Memory of states after ZeRO (arXiv:1910.02054), of activations after Korthikanti et al. (arXiv:2205.05198) with flash
attention, which keeps no matrix of scores. Time by the usual count of 6 FLOPs a parameter and token (4 where weights
are frozen, 2 more to compute activations again), at the share of the peak that published runs reach.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final, Literal

from textnlp_fast.errors import InvalidInputError
from textnlp_fast.gpu.recommender.layout import GIB, OVERHEAD_BYTES, UTILISATION
from textnlp_fast.gpu.recommender.market import cheapest_by_type, listed, types_of
from textnlp_fast.gpu.recommender.plans import SpecOf, no_plan
from textnlp_fast.gpu.recommender.precision import weight_format
from textnlp_fast.gpu.recommender.shape import ModelShape
from textnlp_fast.gpu.recommender.workload import check_is, check_positive, check_whole
from textnlp_fast.gpu.types import GPUSpec, GPUType, InstanceType, Offer

__all__ = ["FineTune", "FineTuneMemory", "FineTunePlan", "plan_fine_tune", "training_memory"]

MFU: Final = 0.40
"""Share of the dense bf16 peak: Llama 3 reports 38 to 43 % on H100 (arXiv:2407.21783, table 4)."""
_NETWORK_SHARE: Final = 0.7
_OPTIMIZERS: Final = {"adamw": 12.0, "adamw-8bit": 6.0, "sgd": 4.0}
"""Bytes a trained parameter: float32 master weights (4) and two moments (8), those in 8 bit (2), or none."""
_MACHINES: Final = (1, 2, 4, 8, 16, 32)


@dataclass(frozen=True, kw_only=True)
class FineTune:
    """A run over so many tokens. Raises InvalidInputError for what cannot be."""

    shape: ModelShape
    tokens: float
    method: Literal["full", "lora"] = "full"
    weights: str = "bf16"
    """Of frozen weights; `int4` with `lora` is QLoRA. Trained weights are bf16 with float32 masters."""
    sequence: int = 4096
    sequences_a_gpu: int = 1
    """In one pass; gradients are accumulated for larger batches, which costs nothing here."""
    optimizer: Literal["adamw", "adamw-8bit", "sgd"] = "adamw"
    zero: int = 3
    """What ZeRO spreads over GPUs: 1 optimizer states, 2 gradients too, 3 weights too; 0 nothing."""
    checkpointing: bool = True
    """Keep the input of each layer only, and compute the rest again."""
    rank: int = 16
    """Of LoRA's factors, on every matrix of attention and of dense feed-forward networks."""
    deadline_h: float | None = None

    def __post_init__(self) -> None:
        check_is("shape", self.shape, ModelShape)
        check_positive("tokens", self.tokens, most=1e15)
        check_whole("sequence", self.sequence, most=10**8)
        check_whole("sequences_a_gpu", self.sequences_a_gpu, most=10**6)
        check_whole("rank", self.rank, most=65536)
        if self.method not in ("full", "lora"):
            raise InvalidInputError(f"there is no method {self.method!r}", hint="Methods are full and lora.")
        if self.optimizer not in _OPTIMIZERS:
            raise InvalidInputError(
                f"there is no optimizer {self.optimizer!r} here", hint=f"Known are: {', '.join(_OPTIMIZERS)}."
            )
        if isinstance(self.zero, bool) or self.zero not in (0, 1, 2, 3):
            raise InvalidInputError(f"ZeRO has no stage {self.zero!r}", hint="Stages are 0 to 3.")
        if weight_format(self.weights).bits != 16 and self.method == "full":
            raise InvalidInputError(
                f"full fine-tuning does not train {self.weights} weights", hint="Use bf16, or method lora."
            )
        if self.deadline_h is not None:
            check_positive("deadline_h", self.deadline_h, most=24 * 3650)
        if self.shape.max_context is not None and self.sequence > self.shape.max_context:
            raise InvalidInputError(
                f"{self.shape.name} sees {self.shape.max_context} positions, a sequence has {self.sequence}"
            )

    @property
    def trained_parameters(self) -> int:
        """Those that get gradients."""
        return self.shape.parameters if self.method == "full" else adapter_parameters(self.shape, self.rank)

    @property
    def flops(self) -> float:
        """Of the whole run: matrix products and attention."""
        shape, pairs = self.shape, self.sequence / 2
        # Scores and values: 4 FLOPs a pair of positions, head and dimension, forward.
        attention = 4.0 * pairs * shape.heads * shape.head_dim * shape.layers
        forward = 2.0 * shape.active_parameters + attention
        backward = 2 * forward if self.method == "full" else 2.0 * shape.active_parameters + 2 * attention
        again = forward if self.checkpointing else 0.0
        return self.tokens * (forward + backward + again)


@dataclass(frozen=True, kw_only=True)
class FineTuneMemory:
    """What one GPU holds, in GiB."""

    weights_gib: float
    gradients_gib: float
    optimizer_gib: float
    activations_gib: float
    overhead_gib: float
    limit_gib: float

    @property
    def used_gib(self) -> float:
        """All of it."""
        return (
            self.weights_gib
            + self.gradients_gib
            + self.optimizer_gib
            + self.activations_gib
            + self.overhead_gib
        )


@dataclass(frozen=True, kw_only=True)
class FineTunePlan:
    """Machines of one offer for one run."""

    offer: Offer
    machines: int
    memory: FineTuneMemory
    hours: float
    bound_by: str
    """compute or network."""

    @property
    def gpus(self) -> int:
        """All of them."""
        return self.machines * int(self.offer.instance_type.gpu_count)

    @property
    def usd(self) -> float:
        """Of the run."""
        return self.hours * self.machines * self.offer.usd_per_hour


def adapter_parameters(shape: ModelShape, rank: int) -> int:
    """Of LoRA's two factors on every matrix of attention and of dense feed-forward networks."""
    if (mla := shape.latent) is not None:
        query = mla.nope_head_dim + mla.rope_head_dim
        pairs = [
            (shape.hidden, mla.kv_rank + mla.rope_head_dim),
            (mla.kv_rank, shape.heads * (mla.nope_head_dim + mla.value_head_dim)),
            (shape.heads * mla.value_head_dim, shape.hidden),
        ]
        first = [(shape.hidden, mla.query_rank), (mla.query_rank, shape.heads * query)]
        pairs += first if mla.query_rank else [(shape.hidden, shape.heads * query)]
    else:
        q, kv = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
        pairs = [(shape.hidden, q), (shape.hidden, kv), (shape.hidden, kv), (q, shape.hidden)]
    dense = shape.layers - shape.expert_layers
    attention = sum(inner + outer for inner, outer in pairs)
    each = (3 if shape.gated else 2) * (shape.hidden + shape.intermediate)
    shared = (
        (3 if shape.gated else 2) * (shape.hidden + shape.shared_intermediate)
        if shape.shared_intermediate
        else 0
    )
    return rank * (shape.layers * attention + dense * each + shape.expert_layers * shared)


def training_memory(run: FineTune, *, gpus: int, gpu_memory_gib: float) -> FineTuneMemory:
    """What each of `gpus` GPUs holds."""
    shape, spread = run.shape, float(gpus)
    trained = run.trained_parameters
    frozen = 0.0 if run.method == "full" else shape.weight_bytes(weight_format(run.weights))
    weights = (frozen + 2.0 * trained) / (spread if run.zero >= 3 else 1.0)
    gradients = 2.0 * trained / (spread if run.zero >= 2 else 1.0)
    states = _OPTIMIZERS[run.optimizer] * trained / (spread if run.zero >= 1 else 1.0)
    # A layer's weights are gathered to be used, and the next one's while they are.
    gathered = 2 * 2.0 * shape.matrix_parameters / shape.layers if run.zero >= 3 and gpus > 1 else 0.0
    overhead = OVERHEAD_BYTES + gathered
    return FineTuneMemory(
        weights_gib=weights / GIB,
        gradients_gib=gradients / GIB,
        optimizer_gib=states / GIB,
        activations_gib=_activations(run) / GIB,
        overhead_gib=overhead / GIB,
        limit_gib=gpu_memory_gib * UTILISATION,
    )


def _activations(run: FineTune) -> float:
    shape = run.shape
    tokens = float(run.sequence * run.sequences_a_gpu)
    width = max(
        shape.intermediate if shape.expert_layers < shape.layers else 0,
        shape.experts_per_token * shape.expert_intermediate + shape.shared_intermediate,
    )
    q, kv = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    # Inputs of both norms, of attention's products, of attention, of its output product, of the feed-forward network.
    layer = 2.0 * tokens * (4 * shape.hidden + 2 * q + 2 * kv + (3 if shape.gated else 2) * width)
    kept = shape.layers * 2.0 * tokens * shape.hidden + layer if run.checkpointing else shape.layers * layer
    # Logits in 16 bit, and the loss and its gradient in float32.
    return kept + tokens * shape.vocabulary * (2 + 4)


def _hours(run: FineTune, spec: GPUSpec, one: InstanceType, machines: int) -> tuple[float, str]:
    """How long, and what holds it up: arithmetic, or weights and gradients on their way between GPUs."""
    gpus = int(one.gpu_count) * machines
    compute_s = run.flops / (gpus * (spec.fp16_dense_tflops or 0.0) * 1e12 * MFU)
    steps = run.tokens / (gpus * run.sequence * run.sequences_a_gpu)
    trained, moved = 2.0 * run.trained_parameters, 0.0
    if gpus > 1:
        # ZeRO-3 gathers weights forward and backward and scatters gradients; below it gradients are all-reduced.
        frozen = 0.0 if run.method == "full" else run.shape.weight_bytes(weight_format(run.weights))
        moved = 3 * trained + 2 * frozen if run.zero >= 3 else 2 * trained
    inside = (spec.interconnect_gb_s or 0.0) / 2 * 1e9 * _NETWORK_SHARE
    exchange_s = steps * moved / inside if moved and inside else 0.0
    if machines > 1 and one.network_gbps:
        # All GPUs of a machine share its network: what each needs comes in once, and is handed on inside.
        exchange_s = max(exchange_s, steps * moved / (one.network_gbps / 8 * 1e9 * _NETWORK_SHARE))
    # The exchange runs beside the arithmetic: the longer of both counts.
    return max(compute_s, exchange_s) / 3600, "compute" if compute_s >= exchange_s else "network"


def plan_fine_tune(
    run: FineTune,
    offers: Iterable[Offer],
    spec_of: SpecOf,
    *,
    gpu_types: Collection[GPUType] | None = None,
    spot: bool = False,
    max_usd: float | None = None,
) -> list[FineTunePlan]:
    """Plans that fit and keep the deadline, the cheapest run first. Raises NoPlanError with the reasons."""
    check_is("run", run, FineTune)
    there = listed(offers, types_of(gpu_types), spot=spot)
    plans: list[FineTunePlan] = []
    why: dict[GPUType, str] = {}
    for markets in cheapest_by_type(there).values():
        offer = min(markets.values(), key=lambda one: one.usd_per_hour)
        found = _cheapest_count(run, offer, spec_of)
        if isinstance(found, str):
            why[offer.instance_type.gpu_type] = found
        else:
            plans.append(found)
    kept = [plan for plan in plans if max_usd is None or plan.usd <= max_usd]
    for plan in plans:
        if plan not in kept:
            why[plan.offer.instance_type.gpu_type] = (
                f"the run costs ${plan.usd:,.0f}, over ${max_usd or 0:,.0f}"
            )
    if not kept:
        raise no_plan(tuple(sorted((gpu.value, text) for gpu, text in why.items())))
    kept.sort(key=lambda plan: (plan.usd, plan.hours, plan.offer.instance_type.name))
    return kept


def _cheapest_count(run: FineTune, offer: Offer, spec_of: SpecOf) -> FineTunePlan | str:
    """The number of machines at which the run costs least, or why none does."""
    one = offer.instance_type
    if one.gpu_count < 1:
        return "machines with a part of a GPU are not planned with"
    try:
        spec = spec_of(one.gpu_type)
    except KeyError:
        return "the catalogue has no data sheet of it"
    if spec.fp16_dense_tflops is None:
        return "no rates are published to reckon with"
    best: FineTunePlan | None = None
    reason = ""
    for machines in _MACHINES if one.network_gbps else _MACHINES[:1]:
        gpus = machines * int(one.gpu_count)
        memory = training_memory(run, gpus=gpus, gpu_memory_gib=min(one.gpu_memory_gib, spec.memory_gib))
        if memory.used_gib > memory.limit_gib:
            reason = f"{memory.used_gib:.1f} GiB on each of {gpus} GPUs do not fit {memory.limit_gib:.1f}"
            continue
        hours, bound_by = _hours(run, spec, one, machines)
        if run.deadline_h is not None and hours > run.deadline_h:
            reason = f"{gpus} GPUs take {hours:,.1f} h, longer than {run.deadline_h:g}"
            continue
        plan = FineTunePlan(offer=offer, machines=machines, memory=memory, hours=hours, bound_by=bound_by)
        if best is None or plan.usd < best.usd * (1 - 1e-9):
            best = plan
    return best or reason
