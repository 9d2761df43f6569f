"""The distribution, limits and settings of the system, and what starts containers."""

from __future__ import annotations

import json
import re
import shlex

from textnlp_fast.gpu.cuda_setup.facts import Container, ContainerRuntime, Distribution, PciDevice, System
from textnlp_fast.gpu.cuda_setup.machine import Machine
from textnlp_fast.gpu.cuda_setup.versions import Version, find_version

__all__ = ["read_container", "read_distribution", "read_runtime", "read_system", "redirects"]

_FAMILIES = {
    "ubuntu": "ubuntu",
    "debian": "debian",
    "rhel": "rhel",
    "centos": "rhel",
    "rocky": "rhel",
    "almalinux": "rhel",
    "ol": "rhel",
    "fedora": "fedora",
    "amzn": "amazon",
    "sles": "suse",
    "suse": "suse",
    "opensuse": "suse",
    "opensuse-leap": "suse",
    "opensuse-tumbleweed": "suse",
    "arch": "arch",
}
_ACS_CAPABILITY = 0x000D
_CONFIG_BYTES = 4096


def read_distribution(machine: Machine) -> Distribution:
    """Of /etc/os-release and the kernel's own words."""
    text = machine.read("/etc/os-release") or machine.read("/usr/lib/os-release") or ""
    fields = {}
    for line in text.splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            try:
                fields[name.strip()] = "".join(shlex.split(value)[:1])
            except ValueError:  # an unclosed quote
                fields[name.strip()] = value.strip("\"'")
    words = [fields.get("ID", ""), *fields.get("ID_LIKE", "").split()]
    kernel = (machine.read("/proc/sys/kernel/osrelease") or "").strip() or None
    said = f"{kernel} {machine.read('/proc/version') or ''}".lower()
    return Distribution(
        name=fields.get("PRETTY_NAME") or "an unknown Linux",
        id=fields.get("ID", ""),
        family=next((_FAMILIES[word] for word in words if word in _FAMILIES), "other"),
        version=fields.get("VERSION_ID", ""),
        kernel=kernel,
        architecture=machine.architecture,
        wsl="microsoft" in said,
    )


def read_container(machine: Machine) -> Container:
    """Whether this is a container, by the marks that engines leave."""
    if machine.environment.get("KUBERNETES_SERVICE_HOST"):
        return Container(inside="kubernetes")
    if machine.exists("/run/.containerenv"):
        return Container(inside="podman")
    if machine.exists("/.dockerenv"):
        return Container(inside="docker")
    if machine.environment.get("SINGULARITY_CONTAINER") or machine.exists("/.singularity.d"):
        return Container(inside="apptainer")
    groups = machine.read("/proc/1/cgroup") or ""
    match = re.search(r"kubepods|docker|containerd|libpod|lxc", groups)
    return Container(inside=match.group() if match else None)


def read_runtime(machine: Machine) -> ContainerRuntime:
    """Docker's and Podman's ways to GPUs: the toolkit, daemon.json, and CDI specifications."""
    error, runtimes, default = None, {}, ""
    text = machine.read("/etc/docker/daemon.json")
    if text is not None and text.strip():
        try:
            document = json.loads(text)
            if not isinstance(document, dict):
                raise ValueError("not an object")
            given = document.get("runtimes", {})
            runtimes = given if isinstance(given, dict) else {}
            default = str(document.get("default-runtime", ""))
        except (ValueError, RecursionError) as problem:
            error = str(problem)[:200]
    specs, drivers = _cdi(machine)
    answer = machine.run("nvidia-ctk", "--version", timeout_s=10.0, limit_bytes=1 << 16)
    return ContainerRuntime(
        docker=machine.which("docker") is not None or machine.which("dockerd") is not None,
        podman=machine.which("podman") is not None,
        toolkit=find_version(answer.text) if answer.ok else None,
        toolkit_present=any(
            machine.which(name) for name in ("nvidia-ctk", "nvidia-container-runtime", "nvidia-container-cli")
        ),
        daemon_json_error=error,
        docker_has_nvidia="nvidia" in runtimes,
        docker_default_nvidia=default == "nvidia",
        cdi_specs=specs,
        cdi_driver=drivers,
    )


def _cdi(machine: Machine) -> tuple[tuple[str, ...], tuple[Version, ...]]:
    specs, drivers = [], set()
    for folder in ("/etc/cdi", "/var/run/cdi"):
        for name in [*machine.list(folder, "*.yaml"), *machine.list(folder, "*.json")][:50]:
            text = machine.read(f"{folder}/{name}", limit_bytes=4 << 20) or ""
            if "nvidia.com/" not in text:
                continue
            specs.append(f"{folder}/{name}")
            for match in re.finditer(r"lib(?:cuda|nvidia-ml)\.so\.(\d{3,4}(?:\.\d{1,4}){1,3})\b", text):
                version = Version.parse(match[1])
                if version is not None:
                    drivers.add(version)
    return tuple(specs), tuple(sorted(drivers))


def read_system(machine: Machine, gpus: tuple[PciDevice, ...]) -> System:
    """Shared memory, limits, huge pages, and what may stand between peers on the bus."""
    pages = re.search(r"\[(\w+)\]", machine.read("/sys/kernel/mm/transparent_hugepage/enabled") or "")
    types = set()
    for device in gpus:
        kind = machine.read(f"/sys/bus/pci/devices/{device.address}/iommu_group/type")
        if kind and kind.strip():
            types.add(kind.strip()[:20])
    flags = re.search(
        r"^flags\s*:(.*)$", machine.read("/proc/cpuinfo", limit_bytes=1 << 16) or "", re.MULTILINE
    )
    return System(
        shm_bytes=machine.size_of("/dev/shm"),
        memlock_bytes=machine.lockable_bytes(),
        transparent_huge_pages=pages[1] if pages else None,
        iommu_types=frozenset(types),
        acs_redirects=_redirecting_bridges(machine),
        virtual=flags is not None and "hypervisor" in flags[1].split(),
        infiniband=tuple(machine.list("/sys/class/infiniband")),
    )


def _redirecting_bridges(machine: Machine) -> tuple[str, ...] | None:
    found, seen = [], False
    for address in machine.list("/sys/bus/pci/devices"):
        place = f"/sys/bus/pci/devices/{address}"
        if (machine.read(f"{place}/class") or "")[:6] != "0x0604":
            continue
        config = machine.read_bytes(f"{place}/config", limit_bytes=_CONFIG_BYTES) or b""
        # Others than root get the first 64 bytes, which say nothing of it.
        if len(config) > 0x100:
            seen = True
            if redirects(config):
                found.append(address)
    return tuple(found) if seen else None


def redirects(config: bytes) -> bool:
    """Whether a bridge's configuration space turns on the redirection of peer-to-peer requests (PCIe ACS, bit 2).

    Extended capabilities are a list from 0x100: 16 bits of number, 4 of version, 12 of where the next one is.
    """
    place, steps = 0x100, 0
    while 0x100 <= place <= len(config) - 8 and steps < 128:
        header = int.from_bytes(config[place : place + 4], "little")
        if header & 0xFFFF == _ACS_CAPABILITY:
            return bool(config[place + 6] & 0x04)
        place, steps = header >> 20, steps + 1
    return False
