"""Ray Serve deployments that follow our policy.

    autoscaling_config={
        "min_replicas": 1, "max_replicas": 20, "upscale_delay_s": 0, "downscale_delay_s": 0,
        "policy": {
            "policy_function": "textnlp_fast.integrations.ray_serve:LLMAutoscalingPolicy",
            "policy_kwargs": {"slo_attainment": 0.999, "capacity_concurrency": 16},
        },
    }

Ray's controller calls the policy about every 0.1 s with an `AutoscalingContext`; ours decides every `period_s` and
repeats itself in between. Ray multiplies what a policy says by `upscaling_factor` and `downscaling_factor` and delays
it by `upscale_delay_s` and `downscale_delay_s`: leave the factors at 1, set the delays to 0, or there are two policies.
From 0 replicas Ray starts the first ones by itself as soon as there is a request.

What Ray measures are requests inside: those queued at handles wait, the others run. A replica whose class has
`record_autoscaling_stats` and returns numbers under the names of `Observation`'s fields (`waiting_requests` and
`kv_cache_use` of its engine, say) is seen better: sums are summed, shares averaged, of latencies the worst is taken.

Written to ray 2.60; `policy_kwargs` are newer than custom policies. For a version without them there is the function
`autoscale`, which takes what it knows from the deployment's autoscaling settings.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, Final

from textnlp_fast.errors import CorruptDataError
from textnlp_fast.gpu.scaling.numbers import is_number
from textnlp_fast.gpu.scaling.observation import Observation
from textnlp_fast.gpu.scaling.policy import Policy, ScalingPolicy
from textnlp_fast.integrations.policy_settings import SettingError, default_policy, read_policy

__all__ = ["LLMAutoscalingPolicy", "autoscale", "observe"]

#: Ours in the state that Ray keeps between calls.
STATE: Final = "textnlp_fast"


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


#: Fields that replicas may report, and what becomes of all replicas' numbers.
REPORTED: Final[Mapping[str, Callable[[list[float]], float]]] = {
    "request_rate": sum,
    "prompt_tokens_rate": sum,
    "output_tokens_rate": sum,
    "waiting_requests": sum,
    "running_requests": sum,
    "prefill_tokens": sum,
    "decode_tokens": sum,
    "kv_cache_use": _mean,
    "gpu_utilisation": _mean,
    "slo_attainment": _mean,
    "ttft_s": max,
    "inter_token_s": max,
}


def observe(ctx: Any) -> Observation:
    """An `AutoscalingContext` as an Observation. Figures that are no numbers count as not measured."""
    reported: dict[str, float] = {}
    for name, by_replica in (ctx.aggregated_metrics or {}).items():
        values = [number for one in by_replica.values() if (number := _number(one)) is not None]
        if name in REPORTED and values:
            reported[name] = REPORTED[name](values)
    queued, inside = _number(ctx.total_queued_requests), _number(ctx.total_num_requests)
    at_replicas = None if inside is None else max(0.0, inside - (queued or 0.0))
    if "waiting_requests" in reported:
        # The engines' own queues: what Ray counts as running there has not begun.
        if "running_requests" not in reported and at_replicas is not None:
            reported["running_requests"] = max(0.0, at_replicas - reported["waiting_requests"])
        reported["waiting_requests"] += queued or 0.0
    else:
        reported.update({} if queued is None else {"waiting_requests": queued})
        if at_replicas is not None:
            reported.setdefault("running_requests", at_replicas)
    ready = int(ctx.current_num_replicas)
    starting = max(0, int(ctx.target_num_replicas) - ready)
    return Observation(time_s=float(ctx.current_time), ready=ready, starting=starting, **reported)


class LLMAutoscalingPolicy:
    """A policy of Ray's kind: called with a context, it answers with a number of replicas and its state.

    The settings are those of `ScalingPolicy`, flat (`capacity_concurrency`, `cold_start_weights_s`); how many there may
    be, Ray knows. Without a capacity, `target_ongoing_requests` is taken for the concurrency. `policy` names another
    one than ours, "module:maker", where `maker(ScalingPolicy)` gives a Policy. Raises SettingError.
    """

    def __init__(self, *, policy: str | None = None, **settings: Any) -> None:
        for name in ("min_instances", "max_instances"):
            if name in settings:
                raise SettingError(name, "comes from Ray", hint="Set min_replicas and max_replicas.")
        read_policy(settings)
        self._settings = settings
        self._make = default_policy if policy is None else _named(policy)
        self._policy: Policy | None = None
        self._made_for: tuple[Any, ...] = ()
        self._turn = -1

    def __call__(self, ctx: Any) -> tuple[int, dict[str, Any]]:
        state = dict(ctx.policy_state or {})
        ours = state.get(STATE) or {}
        bounds = (int(ctx.capacity_adjusted_min_replicas), int(ctx.capacity_adjusted_max_replicas))
        settings = self._for(bounds, ctx.config)
        since_s = float(ctx.current_time) - ours.get("time_s", -math.inf)
        # A clock that was set back does not stop decisions.
        if ours.get("bounds") == bounds and 0.0 <= since_s < settings.period_s:
            return int(ours["target"]), state
        policy = self._standing_policy(settings, ours)
        decision = policy.decide(observe(ctx))
        target = min(max(decision.target, bounds[0]), bounds[1])
        self._turn = int(ours.get("turn", 0)) + 1
        state[STATE] = {
            "time_s": float(ctx.current_time),
            "bounds": bounds,
            "target": target,
            "turn": self._turn,
            "snapshot": dict(policy.snapshot()),
        }
        return target, state

    def _for(self, bounds: tuple[int, int], config: Any) -> ScalingPolicy:
        settings = {**self._settings, "min_instances": bounds[0], "max_instances": max(1, bounds[1])}
        if not any(name.startswith("capacity_") for name in settings):
            target = getattr(config, "target_ongoing_requests", None)
            settings.update({} if target is None else {"capacity_concurrency": float(target)})
        return read_policy(settings)

    def _standing_policy(self, settings: ScalingPolicy, ours: Mapping[str, Any]) -> Policy:
        """The policy as it was left: in memory if this object left it, else from the state that Ray kept."""
        same = self._policy is not None and self._made_for == (settings,) and self._turn == ours.get("turn")
        if not same or self._policy is None:
            self._policy, self._made_for = self._make(settings), (settings,)
            if "snapshot" in ours:
                try:
                    self._policy.restore(ours["snapshot"])
                except CorruptDataError:
                    # Another version's state after an upgrade: learning begins anew, serving goes on.
                    self._policy = self._make(settings)
        return self._policy


def autoscale(ctx: Any) -> tuple[int, dict[str, Any]]:
    """The policy as a plain function, with the default settings; all of its state is what Ray keeps."""
    return LLMAutoscalingPolicy()(ctx)


def _named(path: str) -> Callable[[ScalingPolicy], Policy]:
    module, _, name = path.partition(":")
    try:
        maker: Callable[[ScalingPolicy], Policy] = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise SettingError(
            "policy", f"{path!r} cannot be imported: {error}", hint="Write module:maker."
        ) from error
    return maker


def _number(value: object) -> float | None:
    return float(value) if is_number(value) else None
