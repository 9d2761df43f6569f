"""Autoscalers as the API shows them: their states and decisions, in the words of the log."""

from __future__ import annotations

import re
from typing import Final

from textnlp_fast.gpu.scaling.autoscaler.records import DecisionRecord, State
from textnlp_fast.service.jobs.records import time_text
from textnlp_fast.service.live_schemas import AutoscalerDecision, AutoscalerFleet

__all__ = ["decision_view", "fleet_view"]

_QUIET_S: Final = 600.0
"""After so long without a decision nobody scales the fleet: periods are far shorter."""


def decision_view(one: DecisionRecord) -> AutoscalerDecision:
    """A decision of the log."""
    ready = one.observed.get("ready")
    return AutoscalerDecision(
        number=one.number,
        at=time_text(one.time_s),
        replicas=None if ready is None else round(ready),
        wanted=one.target,
        before=one.before,
        outcome=one.outcome,
        reasons=[_one_line(f"{part}: {text}") for part, _, text in one.reasons],
        alerts=[_one_line(f"{name}: {text}") for name, text in one.alerts],
        load=one.demand,
        forecast=one.forecast,
        horizon_s=one.horizon_s,
        spot=one.observed.get("spot_share"),
        usd_per_hour=one.observed.get("usd_per_hour"),
        observed=dict(one.observed),
    )


def fleet_view(name: str, state: State, last: DecisionRecord | None, now_s: float) -> AutoscalerFleet:
    """A fleet by its state and its last decision."""
    ready = None if last is None else last.observed.get("ready")
    return AutoscalerFleet(
        name=name,
        target=state.policy_name,
        replicas=None if ready is None else round(ready),
        starting=0 if last is None else round(last.observed.get("starting", 0.0)),
        wanted=state.target,
        updated_at=None if last is None else time_text(last.time_s),
        slo_attainment=None if last is None else last.observed.get("slo_attainment"),
        paused=last is None or now_s - last.time_s > _QUIET_S,
        alerts=[] if last is None else [_one_line(f"{alert}: {text}") for alert, text in last.alerts],
    )


def _one_line(text: str) -> str:
    """What a policy of others wrote, as one line without control characters."""
    return re.sub(r"\s+", " ", "".join(c if c.isprintable() else " " for c in text)).strip()
