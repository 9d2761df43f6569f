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
    """The same calls through NVIDIA's binding: fields of a GPU's links in one batch, handles kept."""
    import pynvml as n  # noqa: PLC0415

    n.nvmlLib = ctypes.CDLL(str(nvml.library))
    n.nvmlInit()
    handles = [n.nvmlDeviceGetHandleByIndex(gpu) for gpu in range(GPUS)]
    kinds = (
        n.NVML_FI_DEV_NVLINK_ERROR_DL_REPLAY,
        n.NVML_FI_DEV_NVLINK_ERROR_DL_CRC,
        n.NVML_FI_DEV_NVLINK_ERROR_DL_RECOVERY,
        n.NVML_FI_DEV_NVLINK_COUNT_LINK_RECOVERY_EVENTS,
    )
    slow_fields = [n.NVML_FI_DEV_NVLINK_LINK_COUNT, n.NVML_FI_DEV_GET_GPU_RECOVERY_ACTION]
    link_fields = [(kind, link) for link in range(18) for kind in kinds]

    def run() -> None:
        n.nvmlDeviceGetCount()
        for handle in handles:
            n.nvmlDeviceGetUtilizationRates(handle)
            n.nvmlDeviceGetMemoryInfo(handle, version=n.nvmlMemory_v2)
            n.nvmlDeviceGetTemperatureV(handle, n.NVML_TEMPERATURE_GPU)
            n.nvmlDeviceGetMarginTemperature(handle)
            n.nvmlDeviceGetFieldValues(handle, [n.NVML_FI_DEV_MEMORY_TEMP])
            n.nvmlDeviceGetPowerUsage(handle)
            n.nvmlDeviceGetClockInfo(handle, n.NVML_CLOCK_SM)
            n.nvmlDeviceGetClockInfo(handle, n.NVML_CLOCK_MEM)
            n.nvmlDeviceGetCurrentClocksEventReasons(handle)
            n.nvmlDeviceGetEnforcedPowerLimit(handle)
            n.nvmlDeviceGetTotalEccErrors(handle, 0, n.NVML_VOLATILE_ECC)
            n.nvmlDeviceGetTotalEccErrors(handle, 1, n.NVML_VOLATILE_ECC)
            n.nvmlDeviceGetRemappedRows(handle)
            n.nvmlDeviceGetPcieReplayCounter(handle)
            n.nvmlDeviceGetCurrPcieLinkWidth(handle)
            n.nvmlDeviceGetMaxPcieLinkWidth(handle)
            n.nvmlDeviceGetCurrPcieLinkGeneration(handle)
            n.nvmlDeviceGetMaxPcieLinkGeneration(handle)
            n.nvmlDeviceGetGpuFabricInfoV(handle, ctypes.byref(n.c_nvmlGpuFabricInfo_v3_t()))
            n.nvmlDeviceGetFieldValues(handle, slow_fields)
            for link in range(18):
                n.nvmlDeviceGetNvLinkState(handle, link)
            n.nvmlDeviceGetFieldValues(handle, link_fields)

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
        made = calls() - before
        show(
            "collector: everything, with readings made in Python",
            cost(lambda: _ignore(collector.sample()), 200),
            made,
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
    run = nvidia_ml_py(nvml)
    before = calls()
    run()
    made = calls() - before
    show("nvidia-ml-py: the same calls", cost(run, 50), made)
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
