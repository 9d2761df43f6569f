"""Steers a mock of the NVIDIA driver's library, for this process and for children.

>>> mock = MockNvml(folder, gpus=8)
>>> mock[3].temperature = 96
>>> mock[3].fail("nvmlDeviceGetPowerUsage", NVML_ERROR_UNKNOWN)
>>> mock.xid(3, 79)

`mock.library` is the path to give to a collector; a child process finds it with `TEXTNLP_FAST_NVML`, nvidia-ml-py with
`LD_LIBRARY_PATH=mock.folder`. Needs g++ and the package nvidia-nvml-dev, whose header the mock is compiled against.
"""

from __future__ import annotations

import ctypes
import hashlib
import mmap
import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Any

import pytest

SOURCE = Path(__file__).with_name("mock_nvml.cpp")
CACHE = Path(__file__).parents[3] / "build" / "mock-nvml"

NVML_ERROR_NOT_SUPPORTED = 3
NVML_ERROR_NO_PERMISSION = 4
NVML_ERROR_DRIVER_NOT_LOADED = 9
NVML_ERROR_GPU_IS_LOST = 15
NVML_ERROR_RESET_REQUIRED = 16
NVML_ERROR_LIB_RM_VERSION_MISMATCH = 18
NVML_ERROR_UNKNOWN = 999
XID_EVENT = 8
NO_INSTANCE = 0xFFFFFFFF


def header_folder() -> Path | None:
    """Where NVIDIA's nvml.h is: of the package nvidia-nvml-dev, or of a CUDA toolkit."""
    try:
        for file in files("nvidia-nvml-dev") or ():
            if file.name == "nvml.h":
                return Path(str(file.locate())).parent
    except PackageNotFoundError:
        pass
    for folder in (*Path("/usr/local").glob("cuda*/include"), Path("/usr/include")):
        if (folder / "nvml.h").exists():
            return folder
    return None


def build(without: Sequence[str] = ()) -> Path:
    """The library with all symbols but these, compiled once. Skips the test where the means are missing."""
    header = header_folder()
    if header is None or shutil.which("g++") is None:
        pytest.skip("the mock of NVML needs g++ and the package nvidia-nvml-dev")
    CACHE.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256(SOURCE.read_bytes() + (header / "nvml.h").read_bytes()).hexdigest()[:16]
    compiled = CACHE / f"{digest}.o"
    if not compiled.exists():
        command = ["g++", "-std=c++20", "-O1", "-Wno-deprecated-declarations", "-fPIC", f"-I{header}"]
        _run([*command, "-c", str(SOURCE), "-o"], compiled)
    hidden = hashlib.sha256("\n".join(sorted(without)).encode()).hexdigest()[:8]
    library = CACHE / f"{digest}-{hidden}.so"
    if not library.exists():
        symbols = subprocess.run(
            ["nm", "--defined-only", "-g", "--format=posix", compiled],
            check=True,
            capture_output=True,
            text=True,
        ).stdout.split("\n")
        names = {line.split()[0] for line in symbols if line} - set(without)
        shown = ";".join(sorted(name for name in names if name.startswith(("nvml", "mock_"))))
        script = library.with_suffix(f".{os.getpid()}.map")
        script.write_text(f"{{ global: {shown}; local: *; }};")
        _run(["g++", "-shared", str(compiled), f"-Wl,--version-script={script}", "-o"], library)
        script.unlink()
    return library


def _run(command: list[str], out: Path) -> None:
    """Runs a compiler into a file of this process's own, then names it: others may build the same."""
    mine = out.with_suffix(f".{os.getpid()}{out.suffix}")
    subprocess.run([*command, str(mine)], check=True)
    mine.replace(out)


class _Fields:
    """A struct of the mock's state as attributes."""

    def __init__(self, memory: mmap.mmap, base: int, layout: dict[str, tuple[int, str, int]]) -> None:
        object.__setattr__(self, "_memory", memory)
        object.__setattr__(self, "_base", base)
        object.__setattr__(self, "_layout", layout)

    def __getattr__(self, name: str) -> Any:
        try:
            offset, kind, count = self._layout[name]
        except KeyError:
            raise AttributeError(name) from None
        place = self._base + offset
        if kind == "s":
            return bytes(self._memory[place : place + count]).split(b"\0", 1)[0]
        type_ = ctypes.c_double if kind == "d" else ctypes.c_int64
        if count > 1:
            return (type_ * count).from_buffer(self._memory, place)
        return type_.from_buffer(self._memory, place).value

    def __setattr__(self, name: str, value: Any) -> None:
        offset, kind, count = self._layout[name]
        place = self._base + offset
        if kind == "s":
            text = value.encode() if isinstance(value, str) else bytes(value)
            self._memory[place : place + count] = text[:count].ljust(count, b"\0")
        elif count > 1:
            array = self.__getattr__(name)
            for index in range(count):
                array[index] = value[index] if index < len(value) else 0
        else:
            # Numbers are stored as the 64 bits that they are: -1 stands for all ones.
            signed = value if kind == "d" or value < 1 << 63 else value - (1 << 64)
            type_ = ctypes.c_double if kind == "d" else ctypes.c_int64
            type_.from_buffer(self._memory, place).value = signed


class _Faults(_Fields):
    """What can be told to fail, wait or hang: the whole library, or one GPU."""

    _functions: dict[str, int]

    def fail(self, function: str, code: int) -> None:
        """Makes a function answer with a code; 0 makes it well again."""
        self.returns[self._functions[function]] = code

    def delay(self, function: str, seconds: float) -> None:
        self.delay_us[self._functions[function]] = int(seconds * 1e6)

    def hang(self, function: str) -> None:
        """The function does not return until told to."""
        self._hang(function, 1)

    def answer(self, function: str) -> None:
        self._hang(function, 0)

    def _hang(self, function: str, value: int) -> None:
        self.__getattr__("hang")[self._functions[function]] = value


class Gpu(_Faults):
    """One GPU; attributes are those of the mock's `Gpu`."""

    def __init__(
        self,
        memory: mmap.mmap,
        base: int,
        layout: dict[str, tuple[int, str, int]],
        functions: dict[str, int],
        fields: dict[str, int],
    ) -> None:
        super().__init__(memory, base, layout)
        object.__setattr__(self, "_functions", functions)
        object.__setattr__(self, "_fields", fields)

    def fail_field(self, field: str, code: int) -> None:
        """Makes one field value answer with a code: `fail_field("MEMORY_TEMP", 3)`."""
        self.field_returns[self._fields[field]] = code

    def type_field(self, field: str, value_type: int) -> None:
        """Makes a field value come as another type; below 0, as its own."""
        self.field_types[self._fields[field]] = value_type


class MockNvml(_Faults):
    """A library in `folder` with so many GPUs, in the state of an H100 at rest."""

    def __init__(self, folder: Path, *, gpus: int = 8, without: Sequence[str] = ()) -> None:
        self_ = object.__setattr__
        self_(self, "folder", folder)
        self_(self, "library", folder / "libnvidia-ml.so.1")
        folder.mkdir(parents=True, exist_ok=True)
        # A file of its own: the loader takes two names of one file for one library, with one state.
        shutil.copyfile(build(without), self.library)
        loaded = ctypes.CDLL(str(self.library))
        self_(self, "loaded", loaded)
        loaded.mock_layout.restype = ctypes.c_char_p
        loaded.mock_push_event.argtypes = [ctypes.c_int64] * 5
        layouts: dict[str, dict[str, tuple[int, str, int]]] = {
            "state": {},
            "gpu": {},
            "function": {},
            "field": {},
        }
        for line in loaded.mock_layout().decode().splitlines():
            name, offset, kind, count = line.split()
            part, field = name.split(".", 1)
            layouts[part][field] = (int(offset), kind, int(count))
        numbers = {
            part: {name: offset for name, (offset, _, _) in layouts[part].items()}
            for part in ("function", "field")
        }
        with (folder / "mock-nvml-state").open("r+b") as file:
            memory = mmap.mmap(file.fileno(), layouts["state"]["size"][0])
        super().__init__(memory, 0, layouts["state"])
        self_(self, "_functions", numbers["function"])
        first, _, most = layouts["gpu"]["first"]
        size = layouts["gpu"]["size"][0]
        self_(
            self,
            "gpus",
            [
                Gpu(memory, first + index * size, layouts["gpu"], numbers["function"], numbers["field"])
                for index in range(most)
            ],
        )
        self.fabric_version = 3
        self.pci_bus_id = 1
        self.driver_version = "580.65.06"
        self.library_version = "13.580.65.06"
        for index, gpu in enumerate(self.gpus):
            reset(gpu, index)
            gpu.present = 1 if index < gpus else 0
        self.ready = 1

    def __getitem__(self, index: int) -> Gpu:
        return self.gpus[index]

    def xid(
        self, gpu: int, code: int, *, gpu_instance: int = NO_INSTANCE, compute_instance: int = NO_INSTANCE
    ) -> None:
        """The driver reports an XID, as nvmlEventSetWait tells of it."""
        self.loaded.mock_push_event(gpu, XID_EVENT, code, gpu_instance, compute_instance)

    def pci(self, gpu: int) -> str:
        """A GPU's address as the kernel's log writes it: 0000:3b:00."""
        one = self.gpus[gpu]
        return f"{one.domain:04x}:{one.bus:02x}:{one.device:02x}"

    def called(self, function: str) -> int:
        """How often a function was called so far, in all processes."""
        return int(self.calls[self._functions[function]])


def reset(gpu: Gpu, index: int) -> None:
    """Puts a GPU into the state of an H100 at rest."""
    gpu.lost = 0
    gpu.domain, gpu.bus, gpu.device = 0, 0x10 + 16 * index, 0
    gpu.name = "NVIDIA H100 80GB HBM3"
    gpu.uuid = f"GPU-{index:08x}-aaaa-bbbb-cccc-{index:012x}"
    gpu.utilization = 0
    gpu.memory_total, gpu.memory_used, gpu.memory_reserved = 85520809984, 1 << 30, 600 << 20
    gpu.temperature, gpu.margin, gpu.memory_temperature = 34, 53, 41
    gpu.threshold_slowdown, gpu.threshold_gpu_max = 89, 87
    gpu.power_mw, gpu.enforced_limit_mw, gpu.management_limit_mw = 71_200, 700_000, 700_000
    gpu.sm_clock, gpu.memory_clock, gpu.reasons = 345, 2619, 1
    gpu.ecc_corrected = gpu.ecc_uncorrected = 0
    gpu.rows_corrected = gpu.rows_uncorrected = gpu.rows_pending = gpu.rows_failed = 0
    gpu.retired_pending = gpu.pcie_replays = 0
    gpu.pcie_width = gpu.pcie_width_max = 16
    gpu.pcie_generation = gpu.pcie_generation_max = 5
    gpu.fabric_state, gpu.fabric_status, gpu.fabric_health = 3, 0, 1
    gpu.links, gpu.recovery_action = 18, 0
    gpu.link_active = [1] * 18
    for name in ("link_replays", "link_recoveries", "link_crc", "link_crc_data", "link_recovery_events"):
        setattr(gpu, name, [])
    for name in ("returns", "delay_us", "hang", "field_returns"):
        setattr(gpu, name, [])
    gpu.field_types = [-1] * 64
    # As Hopper does: pages are not retired one by one, and recoveries go by their older name.
    gpu.fail("nvmlDeviceGetRetiredPagesPendingStatus", NVML_ERROR_NOT_SUPPORTED)
    gpu.fail_field("NVLINK_COUNT_LINK_RECOVERY_EVENTS", NVML_ERROR_NOT_SUPPORTED)


def kmsg(text: str, *, priority: int = 4, sequence: int = 1, time_us: int | None = None) -> bytes:
    """A line as /dev/kmsg gives it, of now unless told when."""
    moment = time.monotonic_ns() // 1000 if time_us is None else time_us
    return f"{priority},{sequence},{moment},-;{text}\n".encode()
