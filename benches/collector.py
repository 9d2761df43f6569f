"""What reading eight GPUs costs the processor: the collector, nvidia-ml-py asking the same, and a process a sample.

On the mock of the driver, so the driver's own time is not in it: what is compared is the asking. CPU seconds of this
process and its children, not wall time. Run: python benches/collector.py
"""

from __future__ import annotations

import ctypes
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from fakes.nvml.mock import MockNvml
from textnlp_fast.gpu.health.collector import Collector

GPUS = 8


def cpu_s() -> float:
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    )


def cost(run: Callable[[], None], times: int) -> float:
    """CPU seconds of one run: the best of three."""
    best = float("inf")
    for _ in range(3):
        before = cpu_s()
        for _ in range(times):
            run()
        best = min(best, (cpu_s() - before) / times)
    return best


def show(name: str, seconds: float, calls: float | None = None) -> None:
    more = "" if calls is None else f"  {calls:.0f} calls"
    print(f"{name:58} {seconds * 1e6:10.0f} us  {seconds * 100:7.3f} % of a core at 1 Hz{more}")


def nvidia_ml_py(nvml: MockNvml) -> Callable[[], None]:
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "gpu" / "health"))
    import pynvml  # noqa: PLC0415
    from test_collector_oracle import read  # noqa: PLC0415

    pynvml.nvmlLib = ctypes.CDLL(str(nvml.library))
    pynvml.nvmlInit()

    def run() -> None:
        for gpu in range(GPUS):
            read(pynvml, gpu)

    return run


def main() -> None:
    nvml = MockNvml(Path(tempfile.mkdtemp()), gpus=GPUS)
    functions = list(nvml._functions)

    def calls() -> int:
        return sum(nvml.called(name) for name in functions)

    print(f"{GPUS} GPUs with 18 links each, load average {os.getloadavg()[0]:.1f}")
    with Collector(library=nvml.library, kernel_log=None, period_s=0) as collector:
        collector.sample()
        before = calls()
        collector.sample()
        show(
            "collector: everything, with readings made in Python",
            cost(lambda: _ignore(collector.sample()), 200),
            calls() - before,
        )
        show(
            "collector: the last round's readings, made in Python",
            cost(lambda: _ignore(collector.readings()), 200),
        )
    with Collector(library=nvml.library, kernel_log=None, period_s=0.02) as collector:
        time.sleep(0.2)
        rounds, before, made = collector.state().rounds, cpu_s(), calls()
        time.sleep(4)
        done = collector.state().rounds - rounds
        show(
            "collector by itself: a round (slow facts every 10 s)",
            (cpu_s() - before) / done,
            (calls() - made) / done,
        )
    with Collector(library=nvml.library, kernel_log=None, period_s=1) as collector:
        time.sleep(1)
        before, began = cpu_s(), time.monotonic()
        time.sleep(10)
        share = (cpu_s() - before) / (time.monotonic() - began)
        print(f"{'collector by itself at 1 Hz, events too, 10 s':58} {share * 100:24.3f} % of a core")
    before = calls()
    run = nvidia_ml_py(nvml)
    run()
    show("nvidia-ml-py: the same facts", cost(run, 10), calls() - before)
    program = (
        "import ctypes,sys; lib=ctypes.CDLL(sys.argv[1]); lib.nvmlInit_v2(); n=ctypes.c_uint(); "
        "lib.nvmlDeviceGetCount_v2(ctypes.byref(n)); lib.nvmlShutdown()"
    )
    command = [sys.executable, "-S", "-c", program, str(nvml.library)]
    show(
        "a process a sample that only counts the GPUs (as nvidia-smi)",
        cost(lambda: _ignore(subprocess.run(command, check=True)), 5),
    )


def _ignore(_: object) -> None:
    """A value that only had to be made."""


if __name__ == "__main__":
    main()
