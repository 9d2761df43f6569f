"""Autoscalers of this process for Prometheus; `docs/guide/metrics.md` lists them. Needs ``prometheus-client``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from textnlp_fast.gpu.scaling.autoscaler.manager import GPUAutoscalerManager
from textnlp_fast.gpu.scaling.autoscaler.period import FleetLoop
from textnlp_fast.telemetry.metrics import prometheus

__all__ = ["GAUGES", "AutoscalerMetrics"]

_PREFIX: Final = "textnlp_fast_autoscaler_"
GAUGES: Final[Mapping[str, str]] = {
    "active": "1 where this process scales the fleet, 0 where another does or nobody",
    "target_replicas": "Replicas that the last decision wants",
    "desired_replicas": "Replicas that the fleet was told, by whomever",
    "ready_replicas": "Replicas that serve",
    "starting_replicas": "Replicas that are paid for and do not serve yet",
    "draining_replicas": "Replicas that finish what they have",
    "spot_replicas": "Replicas on spot machines",
    "demand_replicas": "Demand now, in replicas",
    "forecast_replicas": "Demand that is expected when what is ordered now would serve",
    "forecast_error_replicas": "The last forecast whose time has come, less the demand then",
    "usd_per_hour": "What the fleet costs, by the prices that the policy was told",
    "spot_saved_usd_per_hour": "What its spot replicas cost less than on demand",
    "slo_attainment": "Share of requests within the SLO",
    "cold_start_seconds": "From order to service, as the policy counts on it",
}


class AutoscalerMetrics:
    """A collector: ``registry.register(AutoscalerMetrics(manager))``. What is not known is left out."""

    def __init__(self, manager: GPUAutoscalerManager) -> None:
        prometheus()
        self._manager = manager

    def describe(self) -> list[Any]:
        """Nothing: fleets come and go."""
        return []

    def collect(self) -> Iterator[Any]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily  # noqa: PLC0415

        loops = self._manager.loops()
        told = [(loop.book.name, _values(loop, role)) for loop, role in loops]
        for name, what in GAUGES.items():
            gauge = GaugeMetricFamily(_PREFIX + name, what, labels=["fleet"])
            for fleet, values in told:
                value = values[name]
                if value is not None:
                    gauge.add_metric([fleet], float(value))
            yield gauge
        periods = CounterMetricFamily(f"{_PREFIX}periods", "Periods of this process", labels=["fleet"])
        parts = CounterMetricFamily(
            f"{_PREFIX}decisions",
            "Decisions, by the part of the policy that decided",
            labels=["fleet", "part"],
        )
        alerts = CounterMetricFamily(f"{_PREFIX}alerts", "Alerts, by name", labels=["fleet", "alert"])
        for loop, _ in loops:
            periods.add_metric([loop.book.name], loop.tallies.periods)
            for part, count in list(loop.tallies.parts.items()):
                parts.add_metric([loop.book.name, part], count)
            for alert, count in list(loop.tallies.alerts.items()):
                alerts.add_metric([loop.book.name, alert], count)
        yield from (periods, parts, alerts)


def _values(loop: FleetLoop, role: str) -> dict[str, float | None]:
    tallies, price = loop.tallies, loop.settings.usd_per_hour
    fleet, decision, seen = tallies.fleet, tallies.decision, tallies.observation
    paid = None if fleet is None else fleet.ready + fleet.starting + fleet.draining
    spot = sum(one.spot for one in fleet.replicas) if fleet and fleet.replicas else None
    cheap = loop.settings.spot_usd_per_hour
    saved = None if spot is None or price is None or cheap is None else spot * (price - cheap)
    return {
        "active": float(role == "active"),
        "target_replicas": tallies.target,
        "desired_replicas": fleet.desired if fleet else None,
        "ready_replicas": fleet.ready if fleet else None,
        "starting_replicas": fleet.starting if fleet else None,
        "draining_replicas": fleet.draining if fleet else None,
        "spot_replicas": spot,
        "demand_replicas": decision.demand if decision else None,
        "forecast_replicas": decision.forecast if decision else None,
        "forecast_error_replicas": tallies.forecast_error,
        "usd_per_hour": None if paid is None or price is None else paid * price - (saved or 0.0),
        "spot_saved_usd_per_hour": saved,
        "slo_attainment": seen.slo_attainment if seen else None,
        "cold_start_seconds": loop.settings.cold_start.total_s,
    }
