"""The kernel's side: devices on the bus, modules, device files, and the services that belong to the driver."""

from __future__ import annotations

import re

from textnlp_fast.gpu.cuda_setup.facts import Distribution, Driver, Library, PciDevice
from textnlp_fast.gpu.cuda_setup.machine import Machine
from textnlp_fast.gpu.cuda_setup.versions import Version, find_version

__all__ = ["read_driver", "read_module_version"]

_NVIDIA = 0x10DE
_MODULES = ("nvidia", "nvidia_uvm", "nvidia_drm", "nvidia_modeset", "nvidia_peermem", "nouveau", "nova_core")
_SIGNATURE = b"~Module signature appended~\n"
_SECURE_BOOT = "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
# Where the packages of the driver, DKMS and distributions put nvidia.ko.
_MODULE_PLACES = (
    "updates/dkms",
    "updates",
    "extra",
    "extra/nvidia",
    "weak-updates/nvidia",
    "kernel/drivers/video",
    "kernel/drivers/video/nvidia",
    "extramodules",
    "misc",
    "kernel/nvidia-*",
)


def read_driver(machine: Machine, distribution: Distribution, libraries: tuple[Library, ...]) -> Driver:
    """All that files say of the driver; no command but Fabric Manager's version is run."""
    version, is_open = read_module_version(machine.read("/proc/driver/nvidia/version") or "")
    loaded = frozenset(name for name in _MODULES if machine.is_dir(f"/sys/module/{name}"))
    pci = _devices(machine)
    module = _module_of(machine, distribution.kernel)
    others = () if module or not distribution.kernel else _other_kernels(machine, distribution.kernel)
    switches = sum(device.is_nvswitch for device in pci)
    return Driver(
        pci=pci,
        version=version or Version.parse(machine.read("/sys/module/nvidia/version") or ""),
        open_module=is_open,
        loaded_modules=loaded,
        nouveau="nouveau" in loaded or any(device.kernel_driver == "nouveau" for device in pci),
        module_path=module,
        module_signed=_signed(machine, module) if module else None,
        other_kernels=others,
        secure_boot=_secure_boot(machine),
        libraries=tuple(one for one in libraries if one.name in {"libcuda", "libnvidia-ml"}),
        device_files=_device_files(machine),
        nvswitches=max(switches, len(machine.list("/proc/driver/nvidia-nvswitch/devices"))),
        fabric_manager=_fabric_manager(machine),
        fabric_manager_running=_running(machine, "nv-fabricmanager"),
        persistenced_running=_running(machine, "nvidia-persistenced"),
    )


def read_module_version(text: str) -> tuple[Version | None, bool | None]:
    """Of /proc/driver/nvidia/version: the version, and whether it is the open module.

    The line is `NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.14  Thu ...`, or of the open one
    `NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build  (...)`.
    """
    line = next((line for line in text.splitlines() if line.startswith("NVRM version:")), None)
    if line is None:
        return None, None
    return find_version(line, after="Kernel Module"), "Open Kernel Module" in line


def _devices(machine: Machine) -> tuple[PciDevice, ...]:
    found = []
    for address in machine.list("/sys/bus/pci/devices"):
        place = f"/sys/bus/pci/devices/{address}"
        if _hexadecimal(machine.read(f"{place}/vendor")) != _NVIDIA:
            continue
        driver = None
        if machine.exists(f"{place}/driver"):
            driver = machine.real(f"{place}/driver").rpartition("/")[2]
        found.append(
            PciDevice(
                address=address,
                device_id=_hexadecimal(machine.read(f"{place}/device")) or 0,
                class_code=_hexadecimal(machine.read(f"{place}/class")) or 0,
                kernel_driver=driver,
            )
        )
    return tuple(found)


def _hexadecimal(text: str | None) -> int | None:
    match = re.fullmatch(r"0x([0-9a-fA-F]{1,8})\s*", text or "")
    return int(match[1], 16) if match else None


def _module_of(machine: Machine, kernel: str | None) -> str | None:
    if kernel is None or "/" in kernel:
        return None
    base = f"/lib/modules/{kernel}"
    for place in _MODULE_PLACES:
        folders = [place]
        if "*" in place:
            head, _, tail = place.rpartition("/")
            folders = [f"{head}/{name}" for name in machine.list(f"{base}/{head}", tail)]
        for folder in folders:
            for name in machine.list(f"{base}/{folder}", "nvidia.ko*"):
                return f"{base}/{folder}/{name}"
    return None


def _other_kernels(machine: Machine, kernel: str) -> tuple[str, ...]:
    names = [name for name in machine.list("/lib/modules") if name != kernel][:50]
    return tuple(name for name in names if _module_of(machine, name))


def _signed(machine: Machine, module: str) -> bool | None:
    """Whether a module ends with a signature; None where it is compressed."""
    if not module.endswith(".ko"):
        return None
    return machine.read_bytes(module, limit_bytes=len(_SIGNATURE), at=-len(_SIGNATURE)) == _SIGNATURE


def _secure_boot(machine: Machine) -> bool | None:
    # Four bytes of attributes, then the value.
    data = machine.read_bytes(_SECURE_BOOT, limit_bytes=5)
    return data[4] == 1 if data is not None and len(data) == 5 else None


def _device_files(machine: Machine) -> dict[str, bool]:
    names = [
        name
        for pattern in ("nvidia[0-9]*", "nvidiactl", "nvidia-uvm", "nvidia-nvswitch*", "dxg")
        for name in machine.list("/dev", pattern)
    ]
    return {f"/dev/{name}": machine.may_open(machine.path(f"/dev/{name}")) for name in names}


def _fabric_manager(machine: Machine) -> Version | None:
    answer = machine.run("nv-fabricmanager", "--version", timeout_s=10.0, limit_bytes=1 << 16)
    return find_version(answer.text) if answer.ok else None


def _running(machine: Machine, name: str) -> bool | None:
    """Whether a process of that name runs; None where processes cannot be seen, as in a container."""
    processes = machine.list("/proc", "[0-9]*")
    if "1" not in processes:
        return None
    # The kernel keeps 15 letters of a name.
    return any((machine.read(f"/proc/{number}/comm") or "").strip() == name[:15] for number in processes)
