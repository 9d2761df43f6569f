"""From the version that a deployment serves to another: rolling, as a canary or blue-green, and back where it fails."""

from __future__ import annotations

from textnlp_fast.adapter.rollout.agent import DEFAULT_AGENT_PORT, ReplicaAgent
from textnlp_fast.adapter.rollout.controller import Controller, Pace, Pool, ask_back
from textnlp_fast.adapter.rollout.gate import DrainingError, Gate
from textnlp_fast.adapter.rollout.records import RolloutRecord, read_record
from textnlp_fast.adapter.rollout.replicas import Replica
from textnlp_fast.adapter.rollout.restarting import RestartEngine
from textnlp_fast.adapter.rollout.traffic import NoGateway, Traffic

__all__ = [
    "DEFAULT_AGENT_PORT",
    "Controller",
    "DrainingError",
    "Gate",
    "NoGateway",
    "Pace",
    "Pool",
    "Replica",
    "ReplicaAgent",
    "RestartEngine",
    "RolloutRecord",
    "Traffic",
    "ask_back",
    "read_record",
]
