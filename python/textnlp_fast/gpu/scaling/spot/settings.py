"""What a user sets of our mix."""

from __future__ import annotations

from dataclasses import dataclass

from textnlp_fast.errors import InvalidInputError

__all__ = ["SpotSettings"]


@dataclass(frozen=True, kw_only=True)
class SpotSettings:
    """Nothing here needs tuning to a market. Raises InvalidInputError for settings that contradict each other."""

    availability: float = 0.999
    """The share of time in which as many replicas serve as the scaling policy wants."""
    cold_start_s: float = 180.0
    """From the order of a replica to its first answer."""
    max_machines: int = 100
    """Spot and on demand together, at any time, those that are being replaced as well."""
    spot: bool = True
    """False: all on demand. The setting `enable_spot_instances` decides, see `acting.py`."""
    max_spot_usd_per_hour: float | None = None
    """Dearer zones are left."""
    budget_usd_per_hour: float | None = None
    """For all machines together, those that are being replaced as well. Goes before availability."""
    min_on_demand: int = 0
    """Machines on demand that are always kept, up to the target."""
    worth: float | None = None
    """What an hour below target costs, in hours of a machine on demand; None: follows from `availability`."""

    def __post_init__(self) -> None:
        for name, least, most in (
            ("availability", 0.0, 0.999999),
            ("cold_start_s", 0.0, 86400.0),
            ("max_spot_usd_per_hour", 0.0, 1e6),
            ("budget_usd_per_hour", 0.0, 1e9),
            ("worth", 0.0, 1e9),
        ):
            value = getattr(self, name)
            if value is None and name not in ("availability", "cold_start_s"):
                continue
            if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
                raise InvalidInputError(f"{name} must be a number from {least:g} to {most:g}, not {value!r}")
        for name, floor in (("max_machines", 1), ("min_on_demand", 0)):
            value = getattr(self, name)
            if type(value) is not int or value < floor:
                raise InvalidInputError(f"{name} must be a whole number of at least {floor}, not {value!r}")
        if self.min_on_demand > self.max_machines:
            raise InvalidInputError(
                f"min_on_demand {self.min_on_demand} is more than max_machines {self.max_machines}",
                hint="Raise max_machines, or lower min_on_demand.",
            )
