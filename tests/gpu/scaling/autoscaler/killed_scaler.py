"""Runs one period of an autoscaler and kills itself, as `kill -9` does, at a step that the caller names."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[3]))

from gpu.scaling.autoscaler.fleets import FileFleet, RatePolicy, Traffic
from textnlp_fast.gpu.scaling.autoscaler import GPUAutoscalerManager
from textnlp_fast.gpu.scaling.policy import ScalingPolicy
from textnlp_fast.objectstore import ObjectStore, open_store


def main(folder: Path, at: int, rate: float) -> None:
    count = 0

    def step(name: str) -> None:
        nonlocal count
        count += 1
        if count == at:
            os.kill(os.getpid(), signal.SIGKILL)

    write = ObjectStore.compare_and_swap

    def counted(self: ObjectStore, *arguments: Any) -> Any:
        step("before a write")
        answer = write(self, *arguments)
        step("after a write")
        return answer

    ObjectStore.compare_and_swap = counted  # type: ignore[method-assign]
    manager = GPUAutoscalerManager(
        policy=ScalingPolicy(max_instances=20),
        actuator=FileFleet(folder / "fleet.json", step=step),
        observer=Traffic(rate),
        store=open_store(folder / "store"),
        make_policy=RatePolicy,
        lease_s=0.4,
    )
    asyncio.run(manager.runner(manager.prepared("test:fleet")).once())


def kill_at_each_step(folder: Path, rate: float) -> int:
    """A process for each step, forked while there are no threads. Returns how many were killed."""
    for at in range(1, 100):
        place = folder / str(at)
        place.mkdir()
        child = os.fork()
        if child == 0:
            try:
                main(place, at, rate)
            except BaseException:  # noqa: BLE001
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status == 0:
            return at - 1
        if status != -signal.SIGKILL:
            raise SystemExit(f"step {at}: exit code {status}")
    raise SystemExit("it never came to its end")


if __name__ == "__main__":
    sys.stdout.write(str(kill_at_each_step(Path(sys.argv[1]), float(sys.argv[2]))))
