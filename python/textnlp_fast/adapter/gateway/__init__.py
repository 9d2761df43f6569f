"""One OpenAI-compatible address in front of many engines: HAProxy, configured, weighted and drained."""

from __future__ import annotations

from textnlp_fast.adapter.gateway.inference_pool import inference_pool_manifests
from textnlp_fast.adapter.gateway.plan import Endpoint, GatewayPlan
from textnlp_fast.adapter.gateway.runtime import Gateway, Slot

__all__ = ["Endpoint", "Gateway", "GatewayPlan", "Slot", "inference_pool_manifests"]
