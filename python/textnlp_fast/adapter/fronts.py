"""What stands before replicas, and who counts them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from textnlp_fast.adapter.words import (
    check_address,
    check_choice,
    check_number,
    check_text,
    check_texts,
    check_whole,
    refuse,
    shown,
)

__all__ = ["Autoscaling", "Gateway", "Scaler"]

Scaler = Literal["none", "external", "prometheus"]


@dataclass(frozen=True, kw_only=True)
class Autoscaling:
    """Who changes the number of replicas within the policy's bounds."""

    by: Scaler = "none"
    """`external`: KEDA, which asks our policy; `prometheus`: KEDA by a query of its own; `none`: nobody."""
    metrics_url: str | None = None
    """A Prometheus that scrapes the replicas."""
    scaler_address: str = "textnlp-fast-scaler.keda.svc.cluster.local:6000"
    """Of `textnlp-fast gpu keda`."""
    waiting_query: str | None = None
    """What waits in front of the replicas, for a fleet that may be at 0."""

    def __post_init__(self) -> None:
        check_choice("autoscaling.by", self.by, Scaler)
        if self.by != "none" and self.metrics_url is None:
            refuse(
                "autoscaling.metrics_url",
                "is missing: nothing says where the fleet's metrics are",
                hint="Write, for example: metrics_url: http://prometheus.monitoring:9090",
            )
        if self.metrics_url is not None:
            check_text("autoscaling.metrics_url", self.metrics_url, most=2048)
        if self.metrics_url is not None and not re.fullmatch(
            r"https?://[A-Za-z0-9.\[\]:_-]+(/[^\s\"'@]*)?", self.metrics_url
        ):
            refuse("autoscaling.metrics_url", f"is no http or https address: {shown(self.metrics_url)}")
        check_address("autoscaling.scaler_address", self.scaler_address)
        if self.waiting_query is not None:
            check_text("autoscaling.waiting_query", self.waiting_query, most=4096)


@dataclass(frozen=True, kw_only=True)
class Gateway:
    """What stands in front of replicas that are plain processes or machines."""

    listen: str = "127.0.0.1:8080"
    replicas: tuple[str, ...] = ()
    """`HOST:PORT` of each; none: those of the fleet, as it is."""
    drain_s: float = 60.0
    """How long requests under way may take on a replica that goes."""
    request_s: float = 600.0
    """How long one request may take."""
    queue_s: float = 30.0
    """How long one may wait for a replica before it is refused."""
    most_per_replica: int | None = None
    """Requests under way at one replica; None: the policy's `capacity.concurrency`, or no bound."""

    def __post_init__(self) -> None:
        check_address("gateway.listen", self.listen)
        check_texts("gateway.replicas", self.replicas)
        for one in self.replicas:
            check_address("gateway.replicas", one)
        if len(set(self.replicas)) < len(self.replicas):
            refuse("gateway.replicas", "names a replica twice")
        check_number("gateway.drain_s", self.drain_s, least=0.0, most=3600.0)
        for name in ("request_s", "queue_s"):
            check_number(f"gateway.{name}", getattr(self, name), above=0.0, most=86400.0)
        if self.most_per_replica is not None:
            check_whole("gateway.most_per_replica", self.most_per_replica, least=1, most=10**6)
