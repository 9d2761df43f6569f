"""Situations that machines with GPUs get into, and what is to be said of each: one file a theme."""

from fakes.cuda_machine.situations import (
    containers,
    driver,
    driver_broken,
    environment,
    limits,
    limits_machines,
    packages,
    system,
    toolkits,
)
from fakes.cuda_machine.situations.table import SITUATIONS, Situation

# Each file adds its own when it is imported.
__all__ = [
    "SITUATIONS",
    "Situation",
    "containers",
    "driver",
    "driver_broken",
    "environment",
    "limits",
    "limits_machines",
    "packages",
    "system",
    "toolkits",
]
