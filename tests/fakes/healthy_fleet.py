"""What a healthy fleet looks like, with everything in it that a nervous monitor would take for a fault.

A machine with some GPUs, polled every few seconds. Deterministic by its seed. What is normal and happens here:
temperatures that follow the load and wander, bursts of work, clocks held by the software power cap, blips of a hardware
slowdown while the clocks change, a link that is slow while idle and for a moment after, single corrected memory errors,
now and then a replay on PCIe or an error on NVLink, scrapes that fail, fields that are not told, the driver loaded
again, applications that crash, clocks that jitter.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from textnlp_fast.gpu.health.facts import Event, Reading

GIB = 1 << 30


@dataclass
class NoisyGPU:
    """One healthy GPU. `fault`: fields that are forced from now on."""

    machine: str
    index: int
    rng: random.Random
    load: float = 0.0
    until_s: float = 0.0
    temperature_c: float = 45.0
    memory_c: float = 50.0
    corrected: int = 0
    replays: int = 0
    nvlink_errors: int = 0
    idle_s: float = 0.0
    fault: dict[str, Any] = field(default_factory=dict)

    @property
    def gpu(self) -> str:
        return f"GPU-{self.machine}-{self.index}"

    def restart(self) -> None:
        """The driver is loaded again: what it counts begins anew."""
        self.corrected = self.replays = self.nvlink_errors = 0

    def read(self, at_s: float, step_s: float) -> Reading:
        rng = self.rng
        if at_s >= self.until_s:
            self.load = rng.choice([0.0, 0.0, 0.3, 0.7, 0.95, 1.0, 1.0])
            self.until_s = at_s + rng.expovariate(1 / 240.0)
        busy = min(1.0, max(0.0, self.load + rng.gauss(0, 0.06))) if self.load else 0.0
        self.idle_s = 0.0 if busy else self.idle_s + step_s
        target = 38.0 + 44.0 * busy
        self.temperature_c += (target - self.temperature_c) * min(1.0, step_s / 40.0) + rng.gauss(0, 0.5)
        self.temperature_c = min(self.temperature_c, 84.0)
        self.memory_c += (target + 6.0 - self.memory_c) * min(1.0, step_s / 60.0) + rng.gauss(0, 0.5)
        reasons = 0x4 if busy > 0.9 else (0x1 if not busy else rng.choice([0, 0, 0x2]))
        if rng.random() < 0.004:
            reasons |= rng.choice([0x8, 0x8, 0x48, 0x20, 0x10])
        if rng.random() < 4.0 * step_s / 3600:
            self.corrected += rng.choice([1, 1, 1, 2, 40])
        if rng.random() < 6.0 * step_s / 3600:
            self.replays += rng.choice([1, 1, 2, 3])
        if rng.random() < 3.0 * step_s / 3600:
            self.nvlink_errors += rng.randint(1, 50)
        # A link comes up to speed when work comes, and a reading may catch it before.
        slow = self.idle_s > 0 or rng.random() < 0.02
        told = {
            "utilisation_percent": round(100 * busy, 1),
            "memory_used_bytes": int((4 + 70 * busy) * GIB),
            "memory_total_bytes": 80 * GIB,
            "temperature_c": round(self.temperature_c),
            "temperature_margin_c": round(89.0 - self.temperature_c),
            "memory_temperature_c": round(min(self.memory_c, 94.0)),
            "power_w": 60 + 640 * busy,
            "power_limit_w": 700.0,
            "throttle_reasons": reasons,
            "ecc_corrected": self.corrected,
            "ecc_uncorrected": 0,
            "remapped_rows_corrected": 1,
            "remapped_rows_uncorrected": 0,
            "remap_pending": False,
            "remap_failed": False,
            "retired_pages_pending": None,
            "nvlink_links": 18,
            "nvlink_links_up": 18,
            "nvlink_errors": self.nvlink_errors,
            "pcie_replays": self.replays,
            "pcie_width": 16,
            "pcie_width_max": 16,
            "pcie_generation": 1 if slow else 5,
            "pcie_generation_max": 5,
            "recovery_action": 0,
            "fabric_state": "completed",
        }
        if rng.random() < 0.01:  # the driver was busy with something else
            for name in rng.sample(sorted(told), 4):
                told[name] = None
        told |= self.fault
        return Reading(machine=self.machine, gpu=self.gpu, index=self.index, at_s=at_s, **told)


@dataclass
class NoisyMachine:
    """Polls its GPUs. Yields what one poll tells, with the monitor's own time."""

    name: str
    seed: int
    gpus: int = 8
    step_s: float = 5.0
    jitter_s: float = 0.4
    restarts: bool = True

    def __post_init__(self) -> None:
        self.rng = random.Random(f"{self.name}-{self.seed}")
        self.cards = [
            NoisyGPU(self.name, index, random.Random(f"{self.name}-{self.seed}-{index}"))
            for index in range(self.gpus)
        ]

    def polls(
        self, hours: float, start_s: float = 1_800_000_000.0
    ) -> Iterator[tuple[float, list[Reading | Event]]]:
        rng = self.rng
        now_s = start_s
        skew_s = rng.uniform(-20, 20)  # a clock that is not the monitor's
        away_until_s = 0.0
        while now_s < start_s + hours * 3600:
            now_s += self.step_s
            if now_s < away_until_s:
                continue
            if rng.random() < self.step_s / 5400:
                away_until_s = now_s + rng.choice([10.0, 30.0, 100.0, 400.0])  # scrapes fail for a while
                continue
            if self.restarts and rng.random() < self.step_s / 14400:
                for card in self.cards:
                    card.restart()
            at_s = now_s + skew_s + rng.uniform(-self.jitter_s, self.jitter_s)
            facts: list[Reading | Event] = [card.read(at_s, self.step_s) for card in self.cards]
            if (
                rng.random() < self.step_s / 3600
            ):  # somebody presses Ctrl-C: XID 45 and 43, no fault of the GPU
                card = rng.choice(self.cards)
                for code in (43, 45):
                    facts += [
                        Event(
                            machine=self.name, kind="xid", at_s=at_s, gpu=card.gpu, code=code, source=source
                        )
                        for source in ("nvml", "kmsg")
                    ]
            if rng.random() < self.step_s / 7200:
                facts.append(Event(machine=self.name, kind="gpu-count", at_s=at_s, code=self.gpus))
            if rng.random() < 0.02:
                facts.append(
                    replace(facts[0], at_s=at_s - 7.0) if isinstance(facts[0], Reading) else facts[0]
                )
            if rng.random() < 0.01:
                facts.append(facts[0])  # told twice
            rng.shuffle(facts)
            yield now_s, facts
