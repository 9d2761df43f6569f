"""GPUs together, and the system around them."""

from __future__ import annotations

from fakes.cuda_machine.machine import CudaMachine
from fakes.cuda_machine.situations.table import PROBLEM, UNKNOWN, WARNING, situation

_EIGHT = ["H100"] * 8


def _hgx(
    machine: CudaMachine, *, state: str, status: str, manager: str | None = "580.95.05", running: bool = True
) -> CudaMachine:
    machine.gpus(_EIGHT, link="NV18", fabric=(state, status)).pci([], switches=4)
    if manager:
        machine.command("nv-fabricmanager", "--version", output=f"Fabric Manager version is : {manager}\n")
    return machine.write("/proc/777/comm", "nv-fabricmanage\n") if running else machine


situation(
    "eight H100s with their fabric",
    lambda m: _hgx(m, state="Completed", status="Success"),
    fine=("fabric-manager", "peers", "persistence"),
    says={"peers": "NV18", "gpu-present": "8 x NVIDIA H100"},
)
situation(
    "Fabric Manager is not installed",
    lambda m: _hgx(m, state="In Progress", status="N/A", manager=None, running=False).child(
        "cuda", {"found": True, "code": 802, "version": 13000}
    ),
    wrong={"fabric-manager": PROBLEM, "cuda-starts": PROBLEM},
    commands={
        "fabric-manager": (
            "'nvidia-fabricmanager=580.95.05-*'",
            "systemctl enable --now nvidia-fabricmanager",
        ),
        "cuda-starts": "nvidia-fabricmanager",
    },
)
situation(
    "Fabric Manager does not run",
    lambda m: _hgx(m, state="Not Started", status="N/A", running=False),
    wrong={"fabric-manager": PROBLEM},
    commands={"fabric-manager": "journalctl -u nvidia-fabricmanager"},
)
situation(
    "Fabric Manager of another version",
    lambda m: _hgx(m, state="In Progress", status="N/A", manager="580.82.07"),
    wrong={"fabric-manager": PROBLEM},
    says={"fabric-manager": "580.82.07"},
)
situation(
    "NVSwitches in a container that shows nothing of them",
    lambda m: m.gpus(_EIGHT, link="NV18").pci([], switches=4).write("/.dockerenv"),
    wrong={"fabric-manager": UNKNOWN},
)
situation(
    "NVLinks are down",
    lambda m: m.gpus(["A100"] * 4, link="NV12", links={(0, 1): "NV10"}),
    wrong={"peers": WARNING},
    commands={"peers": "nvidia-smi nvlink --status"},
)
situation(
    "NVLink for some pairs",
    lambda m: m.gpus(["A100"] * 4, link="SYS", links={(0, 1): "NV12", (2, 3): "NV12"}),
    wrong={"acs": UNKNOWN},
    fine=("peers",),
)
situation(
    "GeForce cards that may not read each other",
    lambda m: m.gpus(["4090", "4090"], link="PHB", peer="CNS").set(NCCL_P2P_DISABLE="1"),
    wrong={"peers": WARNING, "nccl-switches": WARNING, "acs": UNKNOWN},
    commands={"nccl-switches": "unset NCCL_P2P_DISABLE"},
    fine=("peers",),
)
situation(
    "nvidia-smi that knows no topology",
    lambda m: (
        m.gpus(["T4", "T4"])
        .command("nvidia-smi", "topo", "-m", status=255)
        .command("nvidia-smi", "topo", "-p2p", "r", status=255)
    ),
    wrong={"peers": UNKNOWN, "acs": UNKNOWN},
)


def _grouped(machine: CudaMachine, kind: str) -> CudaMachine:
    for number in range(2):
        machine.write(f"/sys/bus/pci/devices/0000:{0x10 + number:02x}:00.0/iommu_group/type", f"{kind}\n")
    return machine


situation(
    "an IOMMU that translates",
    lambda m: _grouped(m.gpus(["A10G", "A10G"], link="NODE"), "DMA-FQ"),
    wrong={"iommu": WARNING, "acs": UNKNOWN},
    commands={"iommu": ("iommu=pt", "update-grub")},
)
situation(
    "an IOMMU that translates, on Rocky",
    lambda m: _grouped(m.gpus(["A10G", "A10G"], link="NODE", os="rhel9"), "DMA"),
    wrong={"iommu": WARNING, "acs": UNKNOWN},
    commands={"iommu": "grubby --update-kernel=ALL --args=iommu=pt"},
)
situation(
    "an IOMMU that lets pass",
    lambda m: _grouped(m.gpus(["A10G", "A10G"], link="NODE"), "identity"),
    wrong={"acs": UNKNOWN},
    fine=("iommu",),
)


def _bridge(machine: CudaMachine, control: int) -> CudaMachine:
    config = bytearray(4096)
    # Advanced error reporting at 0x100, behind it access control at 0x148.
    config[0x100:0x104] = (0x0001 | 1 << 16 | 0x148 << 20).to_bytes(4, "little")
    config[0x148:0x14C] = (0x000D | 1 << 16).to_bytes(4, "little")
    config[0x14E:0x150] = control.to_bytes(2, "little")
    place = "/sys/bus/pci/devices/0000:0f:01.0"
    return (
        machine.write(f"{place}/class", "0x060400\n")
        .write(f"{place}/vendor", "0x8086\n")
        .write(f"{place}/config", bytes(config))
    )


situation(
    "bridges that redirect",
    lambda m: _bridge(m.gpus(["A10G", "A10G"], link="PXB"), 0x1D),
    wrong={"acs": WARNING},
    commands={"acs": "setpci -s 0000:0f:01.0 ECAP_ACS+0x6.w=0000"},
)
situation(
    "bridges that do not",
    lambda m: _bridge(m.gpus(["A10G", "A10G"], link="PXB"), 0x00),
    fine=("acs", "peers"),
)
situation(
    "persistence mode is off",
    lambda m: m.gpus(["T4"], persistence="Disabled"),
    wrong={"persistence": WARNING},
    commands={"persistence": "systemctl enable --now nvidia-persistenced"},
)
situation(
    "MIG is to be on after a reset",
    lambda m: m.gpus(["A100"], mig=[("Disabled", "Enabled", 0)]),
    wrong={"mig": WARNING},
    commands={"mig": "nvidia-smi --gpu-reset -i 0"},
)
situation(
    "MIG without instances",
    lambda m: m.gpus(["A100"], mig=[("Enabled", "Enabled", 0)]),
    wrong={"mig": PROBLEM},
    commands={"mig": "nvidia-smi -i 0 -mig 0"},
)
situation(
    "MIG on some",
    lambda m: m.gpus(
        ["A100", "A100"], link="NV12", mig=[("Enabled", "Enabled", 7), ("Disabled", "Disabled", 0)]
    ),
    wrong={"mig": WARNING},
    fine=("mig",),
)


def _little_lock(machine: CudaMachine) -> None:
    machine.gpus(["A100", "A100"], link="NV12").folder("/sys/class/infiniband/mlx5_0")
    machine.memlock = 8 << 20


situation(
    "little memory to lock, with InfiniBand",
    _little_lock,
    wrong={"locked-memory": WARNING},
    commands={"locked-memory": "/etc/security/limits.d/90-memlock.conf"},
)
situation(
    "no huge pages",
    lambda m: m.gpus(["T4"]).write("/sys/kernel/mm/transparent_hugepage/enabled", "always madvise [never]\n"),
    wrong={"huge-pages": WARNING},
    commands={"huge-pages": "transparent_hugepage/enabled"},
)
