"""Rules about GPUs that work together, and about the system around them."""

from __future__ import annotations

from collections.abc import Iterator

from textnlp_fast.gpu.cuda_setup import remedies
from textnlp_fast.gpu.cuda_setup.facts import Facts
from textnlp_fast.gpu.cuda_setup.verdicts import Verdict, fine, problem, unknown, warning

__all__ = [
    "access_control",
    "fabric_manager",
    "huge_pages",
    "iommu",
    "locked_memory",
    "mig",
    "nccl_switches",
    "peers",
    "persistence",
    "shared_memory",
]

_GIB = 1 << 30
_SMALL_SHM = 1 << 30
_ENOUGH_LOCKED = 1 << 30
_NO_PEERS = {
    "NS": "not supported",
    "CNS": "not supported by the chipset",
    "GNS": "not supported by the GPU",
    "TNS": "not supported by the topology",
    "DR": "disabled by a setting of the driver",
}


def fabric_manager(facts: Facts) -> Iterator[Verdict]:
    """On machines with NVSwitch, Fabric Manager of the driver's version runs and has brought the fabric up."""
    driver = facts.driver
    states = {gpu.fabric_state for gpu in facts.gpus if gpu.fabric_state}
    if not driver.nvswitches and not states:
        return
    down = sorted(state for state in states if state != "Completed")
    version = facts.driver_version
    evidence = [
        f"{driver.nvswitches} NVSwitches",
        *(
            f"GPU {gpu.index}: fabric {gpu.fabric_state}, {gpu.fabric_status or 'no status'}"
            for gpu in facts.gpus
            if gpu.fabric_state
        ),
    ]
    if driver.fabric_manager is not None and version is not None and driver.fabric_manager != version:
        yield problem(
            f"Fabric Manager is {driver.fabric_manager} and the driver {version}; it starts with its own version only.",
            evidence=evidence,
            commands=remedies.install_fabric_manager(facts),
        )
    elif down or (
        driver.nvswitches
        and not states
        and driver.fabric_manager_running is False
        and not facts.container.inside
    ):
        installed = driver.fabric_manager is not None
        yield problem(
            "This machine's GPUs are joined by NVSwitch, and Fabric Manager has not brought the fabric up: "
            "CUDA does not start (error 802).",
            evidence=evidence,
            commands=(
                "sudo systemctl enable --now nvidia-fabricmanager",
                "sudo journalctl -u nvidia-fabricmanager -n 50",
            )
            if installed
            else remedies.install_fabric_manager(facts),
        )
    elif states or driver.fabric_manager_running:
        yield fine("The fabric of NVSwitch is up.", evidence=evidence)
    else:
        yield unknown(
            "There are NVSwitches; whether their fabric is up is not seen from here.", evidence=evidence
        )


def mig(facts: Facts) -> Iterator[Verdict]:
    """MIG's mode is what it is set to, and a GPU in MIG mode is cut into instances."""
    for gpu in facts.gpus:
        where = f"GPU {gpu.index} ({gpu.name})"
        if gpu.mig_pending is not None and gpu.mig is not None and gpu.mig_pending != gpu.mig:
            yield warning(
                f"{where}: MIG is to be {'on' if gpu.mig_pending else 'off'}, which a reset of the GPU brings about.",
                evidence=[f"current {_on(gpu.mig)}, pending {_on(gpu.mig_pending)}"],
                commands=(f"sudo nvidia-smi --gpu-reset -i {gpu.index}",),
            )
        elif gpu.mig and not gpu.mig_uuids and facts.smi.ok:
            yield problem(
                f"{where} is in MIG mode without any instance: CUDA sees no device there.",
                evidence=["nvidia-smi -L lists no MIG device"],
                commands=(
                    f"sudo nvidia-smi mig -i {gpu.index} -lgip",
                    f"sudo nvidia-smi -i {gpu.index} -mig 0",
                ),
            )
        elif gpu.mig:
            yield fine(f"{where} is cut into {len(gpu.mig_uuids)} MIG devices.", evidence=gpu.mig_uuids)
    modes = {gpu.mig for gpu in facts.gpus if gpu.mig is not None}
    if len(modes) == 2:
        yield warning(
            "Some GPUs are in MIG mode and some are not; programs that count GPUs see one MIG device at most.",
            evidence=[
                f"GPU {gpu.index}: MIG {_on(bool(gpu.mig))}" for gpu in facts.gpus if gpu.mig is not None
            ],
        )


def persistence(facts: Facts) -> Iterator[Verdict]:
    """The driver stays awake between programs."""
    asleep = [gpu for gpu in facts.gpus if gpu.persistence is False]
    if facts.container.inside or facts.distribution.wsl or not facts.gpus:
        return
    if asleep:
        yield warning(
            "Persistence mode is off: every first program waits for the driver to wake the GPU up.",
            evidence=[f"GPU {gpu.index}: persistence mode disabled" for gpu in asleep],
            commands=("sudo systemctl enable --now nvidia-persistenced",)
            if facts.driver.persistenced_running is not True
            else ("sudo nvidia-smi -pm 1",),
        )
    elif all(gpu.persistence for gpu in facts.gpus):
        yield fine("Persistence mode is on.")


def peers(facts: Facts) -> Iterator[Verdict]:
    """GPUs can read each other's memory, and by which way."""
    if len(facts.gpus) < 2:
        return
    links, refused = facts.smi.links, [entry for entry in facts.smi.p2p if entry[2] in _NO_PEERS]
    if refused:
        reasons = sorted({_NO_PEERS[reason] for _, _, reason in refused})
        yield warning(
            f"{len(refused)} of {len(facts.smi.p2p)} pairs of GPUs cannot read each other's memory "
            f"({', '.join(reasons)}): NCCL goes through the host.",
            evidence=[f"GPU {one} - GPU {other}: {reason}" for one, other, reason in refused[:8]],
            commands=("nvidia-smi topo -p2p r",),
        )
    if not links:
        if not facts.smi.p2p:
            yield unknown(
                "How the GPUs are joined is not known.",
                evidence=["nvidia-smi topo gave no matrix"],
                commands=("nvidia-smi topo -m",),
            )
        return
    kinds: dict[str, int] = {}
    for _, _, kind in links:
        kinds[kind] = kinds.get(kind, 0) + 1
    shown = ", ".join(f"{count} by {kind}" for kind, count in sorted(kinds.items()))
    nvlink = {kind for kind in kinds if kind.startswith("NV")}
    if nvlink and len(kinds) == 1:
        yield fine(f"All pairs of GPUs are joined by NVLink ({', '.join(sorted(nvlink))}).")
    elif len(nvlink) > 1 and len(nvlink) == len(kinds):
        yield warning(
            "The GPUs are joined by different numbers of NVLinks; links may be down.",
            evidence=[shown],
            commands=("nvidia-smi nvlink --status",),
        )
    elif nvlink:
        yield fine(f"Some pairs of GPUs are joined by NVLink, others by PCIe: {shown}.")
    else:
        yield fine(f"The GPUs are joined by PCIe: {shown}.")


def iommu(facts: Facts) -> Iterator[Verdict]:
    """No IOMMU translates between peers on a machine whose GPUs talk over PCIe."""
    if len(facts.driver.gpus_on_bus) < 2 or _all_nvlink(facts) or facts.system.virtual:
        return
    translating = sorted(kind for kind in facts.system.iommu_types if kind.startswith("DMA"))
    if translating:
        yield warning(
            "The IOMMU translates what the GPUs write: transfers between peers go by the processor, or hang in NCCL.",
            evidence=[f"the GPUs' IOMMU groups are of type {', '.join(translating)}"],
            commands=_kernel_argument(facts, "iommu=pt"),
        )
    elif facts.system.iommu_types:
        yield fine("The IOMMU lets the GPUs' transfers pass as they are.")


def access_control(facts: Facts) -> Iterator[Verdict]:
    """No PCI bridge sends peers' transfers up to the root (ACS)."""
    if len(facts.driver.gpus_on_bus) < 2 or _all_nvlink(facts) or facts.system.virtual:
        return
    redirecting = facts.system.acs_redirects
    if redirecting is None:
        yield unknown(
            "Whether PCI bridges redirect transfers between GPUs (ACS) is shown to root alone.",
            commands=("sudo lspci -vvv | grep -i acsctl",),
        )
    elif redirecting:
        yield warning(
            "PCI bridges redirect transfers between GPUs to the processor (ACS): they are slow, or hang in NCCL.",
            evidence=[f"bridge {address}: request redirection is on" for address in redirecting[:8]],
            commands=tuple(f"sudo setpci -s {address} ECAP_ACS+0x6.w=0000" for address in redirecting[:8]),
        )
    else:
        yield fine("No PCI bridge redirects transfers between GPUs.")


def shared_memory(facts: Facts) -> Iterator[Verdict]:
    """/dev/shm is large enough for NCCL and for data loaders."""
    size = facts.system.shm_bytes
    if not facts.has_gpu or size is None:
        return
    if size >= _SMALL_SHM:
        yield fine(f"/dev/shm has {size / _GIB:.1f} GiB.")
        return
    many = len(facts.gpus) > 1
    commands = (
        ("docker run --rm --gpus all --shm-size=16g ubuntu df -h /dev/shm",)
        if facts.container.inside
        else ("sudo mount -o remount,size=16G /dev/shm",)
    )
    yield (problem if many else warning)(
        f"/dev/shm has {size / (1 << 20):.0f} MiB: "
        + ("NCCL between the GPUs of this machine" if many else "a data loader with several processes")
        + " fails when it is full.",
        evidence=[
            f"{size} bytes",
            *([f"a container ({facts.container.inside})"] if facts.container.inside else []),
        ],
        commands=commands,
    )


def locked_memory(facts: Facts) -> Iterator[Verdict]:
    """Processes may lock the memory that network cards and GPUs read."""
    limit = facts.system.memlock_bytes
    if not facts.has_gpu or not facts.system.infiniband or limit is None or limit >= _ENOUGH_LOCKED:
        return
    yield warning(
        f"A process may lock {limit / (1 << 20):.0f} MiB only: NCCL over InfiniBand fails to register its buffers.",
        evidence=[f"ulimit -l is {limit >> 10}", f"InfiniBand: {', '.join(facts.system.infiniband[:4])}"],
        commands=("docker run --rm --gpus all --ulimit memlock=-1 ubuntu sh -c 'ulimit -l'",)
        if facts.container.inside
        else ("printf '* - memlock unlimited\\n' | sudo tee /etc/security/limits.d/90-memlock.conf",),
    )


def huge_pages(facts: Facts) -> Iterator[Verdict]:
    """Programs may have huge pages for the buffers that they copy from."""
    if facts.has_gpu and facts.system.transparent_huge_pages == "never":
        yield warning(
            "Transparent huge pages are off: filling and pinning large buffers for the GPU is slower.",
            evidence=["/sys/kernel/mm/transparent_hugepage/enabled: [never]"],
            commands=("echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled",),
        )


def nccl_switches(facts: Facts) -> Iterator[Verdict]:
    """No switch of NCCL that somebody set for a test is still on."""
    if len(facts.gpus) < 2:
        return
    for name, what in (
        ("NCCL_P2P_DISABLE", "direct transfers between GPUs"),
        ("NCCL_SHM_DISABLE", "transfers by shared memory"),
    ):
        if facts.environment.get(name, "0") not in {"", "0"}:
            yield warning(
                f"{name} is set: NCCL does without {what}.",
                evidence=[f"{name}={facts.environment[name]}"],
                commands=(f"unset {name}",),
            )


def _all_nvlink(facts: Facts) -> bool:
    return bool(facts.smi.links) and all(kind.startswith("NV") for _, _, kind in facts.smi.links)


def _kernel_argument(facts: Facts, argument: str) -> tuple[str, ...]:
    family = facts.distribution.family
    if family in {"rhel", "fedora", "amazon"}:
        return (f"sudo grubby --update-kernel=ALL --args={argument}", "sudo reboot")
    edit = f"sudo sed -i 's/^GRUB_CMDLINE_LINUX=\"/&{argument} /' /etc/default/grub"
    if family in {"debian", "ubuntu"}:
        return (edit, "sudo update-grub", "sudo reboot")
    return (edit, "sudo grub2-mkconfig -o /boot/grub2/grub.cfg", "sudo reboot")


def _on(mode: bool) -> str:
    return "enabled" if mode else "disabled"
