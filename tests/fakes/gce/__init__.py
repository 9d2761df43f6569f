"""Compute Engine on loopback: instances, bulk orders and operations, as far as a provider of GPU machines uses them.

Each request and each answer is held against Google's discovery document (`compute.v1`) while the fake runs.
"""

from fakes.gce.server import GceFake

__all__ = ["GceFake"]
