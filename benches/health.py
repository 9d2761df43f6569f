"""GPU health: how fast an XID is a finding, what polling costs, how much noise is judged in a second.

On the mock of the driver's library that the tests use; no GPU is needed. `python benches/health.py [--xids 200]`
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from fakes.healthy_fleet import NoisyMachine
from fakes.nvml.mock import MockNvml
from textnlp_fast.gpu.health.collector import Collector
from textnlp_fast.gpu.health.engine import HealthEngine
from textnlp_fast.gpu.health.facts import Severity


def xids(count: int) -> list[float]:
    """Milliseconds from the driver's report to the finding, each of so many XIDs."""
    with tempfile.TemporaryDirectory() as folder:
        nvml = MockNvml(Path(folder) / "nvml", gpus=8)
        with Collector(library=nvml.library, kernel_log=None, machine="here") as collector:
            collector.sample()
            engine = HealthEngine()
            collector.events(timeout_s=0.5)
            sent: list[float] = []
            codes = [95, 119, 79, 74, 31]

            def report() -> None:
                for number in range(count):
                    time.sleep(0.02)
                    sent.append(time.time())
                    nvml.xid(number % 8, codes[number % 5])

            thread = threading.Thread(target=report)
            thread.start()
            found: list[float] = []
            while len(found) < count:
                events = [one for one in collector.events(timeout_s=5.0) if one.kind == "xid"]
                engine.observe(events, now_s=time.time())
                found += [time.time()] * len(events)
            thread.join()
    return [1000 * (got - was) for was, got in zip(sent, found, strict=True)]


def noise(hours: float) -> tuple[int, int, float]:
    """Readings of eight healthy GPUs, false alarms, seconds of CPU to judge them."""
    engine = HealthEngine()
    readings = alarms = 0
    spent = 0.0
    for now_s, facts in NoisyMachine("m", seed=1, step_s=5.0).polls(hours):
        readings += len(facts)
        begun = time.process_time()
        changes = engine.observe(facts, now_s=now_s)
        spent += time.process_time() - begun
        alarms += sum(one.severity is not Severity.INFO and not one.resolved for one in changes)
    return readings, alarms, spent


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--xids", type=int, default=200)
    parser.add_argument("--hours", type=float, default=10.0)
    arguments = parser.parse_args()
    late = sorted(xids(arguments.xids))
    most = late[int(len(late) * 0.99) - 1]
    print(
        f"XID to finding: median {statistics.median(late):.2f} ms, 99 % within {most:.2f} ms, "
        f"worst {late[-1]:.2f} ms of {len(late)} (limit 100 ms: {'held' if late[-1] < 100 else 'BROKEN'})"
    )
    readings, alarms, spent = noise(arguments.hours)
    print(
        f"noise: {arguments.hours:g} hours of 8 GPUs, {readings} facts, {alarms} false alarms, "
        f"{1e6 * spent / readings:.0f} us of CPU a fact ({readings / spent:.0f} a second)"
    )


if __name__ == "__main__":
    main()
