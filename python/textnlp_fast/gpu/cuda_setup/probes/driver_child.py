"""Loads the driver's libraries and asks them, in a process that may hang or die of it. Run as a file, by itself.

Prints one line of JSON. Imports nothing but the standard library; no context is made on any GPU.
"""

from __future__ import annotations

import ctypes
import json
import sys
from pathlib import Path
from typing import Any

NVML_NOT_FOUND = 12


def mapped(name: str) -> str | None:
    """The file of a library that is loaded."""
    with Path("/proc/self/maps").open(encoding="utf-8", errors="replace") as maps:
        for line in maps:
            path = line.rstrip("\n").partition("/")
            if path[1] and name in path[2].rpartition("/")[2]:
                return "/" + path[2]
    return None


def load(name: str) -> tuple[Any, str]:
    try:
        return ctypes.CDLL(name), ""
    except OSError as error:
        return None, str(error)


def cuda() -> dict[str, Any]:
    """libcuda: its version, what cuInit answers, and the devices that are visible to it."""
    library, message = load("libcuda.so.1")
    if library is None:
        return {"found": False, "message": message}
    found: dict[str, Any] = {"found": True, "path": mapped("libcuda.so")}
    number = ctypes.c_int(0)
    if library.cuDriverGetVersion(ctypes.byref(number)) == 0:
        found["version"] = number.value
    found["code"] = library.cuInit(0)
    if found["code"] == 0 and library.cuDeviceGetCount(ctypes.byref(number)) == 0:
        found["device_count"] = number.value
    return found


def text_of(function: Any, *arguments: Any) -> str | None:
    buffer = ctypes.create_string_buffer(256)
    if function(*arguments, buffer, ctypes.c_uint(len(buffer))) != 0:
        return None
    return buffer.value.decode("utf-8", "replace")


class PciInfo(ctypes.Structure):
    """nvmlPciInfo_t."""

    _fields_ = [
        ("bus_id_legacy", ctypes.c_char * 16),
        ("domain", ctypes.c_uint),
        ("bus", ctypes.c_uint),
        ("device", ctypes.c_uint),
        ("pci_device_id", ctypes.c_uint),
        ("pci_subsystem_id", ctypes.c_uint),
        ("bus_id", ctypes.c_char * 32),
    ]


class Memory(ctypes.Structure):
    """nvmlMemory_t."""

    _fields_ = [("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong)]


def gpu(library: Any, index: int) -> dict[str, Any]:
    handle = ctypes.c_void_p()
    code = library.nvmlDeviceGetHandleByIndex_v2(ctypes.c_uint(index), ctypes.byref(handle))
    if code != 0:
        return {"index": index, "code": code}
    found: dict[str, Any] = {
        "index": index,
        "code": 0,
        "uuid": text_of(library.nvmlDeviceGetUUID, handle),
        "name": text_of(library.nvmlDeviceGetName, handle),
    }
    major, minor = ctypes.c_int(), ctypes.c_int()
    if library.nvmlDeviceGetCudaComputeCapability(handle, ctypes.byref(major), ctypes.byref(minor)) == 0:
        found["compute_capability"] = [major.value, minor.value]
    pci, memory, mode, pending = PciInfo(), Memory(), ctypes.c_uint(), ctypes.c_uint()
    if library.nvmlDeviceGetPciInfo_v3(handle, ctypes.byref(pci)) == 0:
        found["pci_bus_id"] = pci.bus_id.decode("ascii", "replace")
    if library.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory)) == 0:
        found["memory_bytes"] = memory.total
    if library.nvmlDeviceGetPersistenceMode(handle, ctypes.byref(mode)) == 0:
        found["persistence"] = bool(mode.value)
    if library.nvmlDeviceGetMigMode(handle, ctypes.byref(mode), ctypes.byref(pending)) == 0:
        found["mig"], found["mig_pending"] = bool(mode.value), bool(pending.value)
    return found


def nvml() -> dict[str, Any]:
    """libnvidia-ml: the driver's version and the GPUs, whatever CUDA_VISIBLE_DEVICES hides."""
    library, message = load("libnvidia-ml.so.1")
    if library is None:
        return {"found": False, "code": NVML_NOT_FOUND, "message": message}
    found: dict[str, Any] = {"found": True, "path": mapped("libnvidia-ml.so"), "code": library.nvmlInit_v2()}
    if found["code"] != 0:
        return found
    try:
        found["driver"] = text_of(library.nvmlSystemGetDriverVersion)
        number = ctypes.c_int(0)
        if library.nvmlSystemGetCudaDriverVersion_v2(ctypes.byref(number)) == 0:
            found["cuda"] = number.value
        count = ctypes.c_uint(0)
        if library.nvmlDeviceGetCount_v2(ctypes.byref(count)) == 0:
            found["gpus"] = [gpu(library, index) for index in range(min(count.value, 64))]
    finally:
        library.nvmlShutdown()
    return found


if __name__ == "__main__":
    try:
        answer = {"cuda": cuda, "nvml": nvml}[sys.argv[1]]()
    except AttributeError as error:
        # A library without a function that every driver since 2016 has: a stub, or no driver's at all.
        answer = {"found": True, "message": f"not a driver's library: {error}"}
    sys.stdout.write(json.dumps(answer) + "\n")
