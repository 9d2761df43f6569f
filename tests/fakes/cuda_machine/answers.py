"""What nvidia-smi prints, in the layout of drivers 535 to 580."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Card", "gpu_details", "gpu_list", "topology"]


@dataclass(frozen=True, kw_only=True)
class Card:
    """What nvidia-smi shows of one GPU."""

    name: str
    uuid: str
    bus: str
    memory_mib: int
    persistence: str
    mig: str
    mig_pending: str
    mig_uuids: tuple[str, ...]
    fabric: tuple[str, str] | None


def gpu_details(driver: str, cuda: str, cards: Sequence[Card]) -> str:
    """The output of `nvidia-smi -q`, cut to the sections that matter and some that must not confuse."""
    parts = [
        "\n==============NVSMI LOG==============\n",
        "Timestamp                                 : Thu May 22 04:10:23 2025",
        f"Driver Version                            : {driver}",
        f"CUDA Version                              : {cuda}\n",
        f"Attached GPUs                             : {len(cards)}",
    ]
    for number, card in enumerate(cards):
        state, status = card.fabric or ("N/A", "N/A")
        parts.append(
            f"""GPU {card.bus}
    Product Name                          : {card.name}
    Product Brand                         : NVIDIA
    Product Architecture                  : Ampere
    Display Mode                          : Enabled
    Display Active                        : Disabled
    Persistence Mode                      : {card.persistence}
    Addressing Mode                       : None
    MIG Mode
        Current                           : {card.mig}
        Pending                           : {card.mig_pending}
    Accounting Mode                       : Disabled
    Accounting Mode Buffer Size           : 4000
    Driver Model
        Current                           : N/A
        Pending                           : N/A
    Serial Number                         : 1654321021062
    GPU UUID                              : {card.uuid}
    Minor Number                          : {number}
    VBIOS Version                         : 94.02.75.00.01
    GPU Virtualization Mode
        Virtualization Mode               : None
        Host VGPU Mode                    : N/A
    PCI
        Bus                               : 0x{card.bus[9:11]}
        Bus Id                            : {card.bus}
        GPU Link Info
            PCIe Generation
                Max                       : 4
                Current                   : 1
    Fabric
        State                             : {state}
        Status                            : {status}
    FB Memory Usage
        Total                             : {card.memory_mib} MiB
        Reserved                          : 524 MiB
        Used                              : 0 MiB
        Free                              : {card.memory_mib - 524} MiB
    BAR1 Memory Usage
        Total                             : 32768 MiB
    Processes                             : None
"""
        )
    return "\n".join(parts)


def gpu_list(cards: Sequence[Card]) -> str:
    """The output of `nvidia-smi -L`."""
    lines = []
    for number, card in enumerate(cards):
        lines.append(f"GPU {number}: {card.name} (UUID: {card.uuid})")
        for place, uuid in enumerate(card.mig_uuids):
            lines.append(f"  MIG 1g.10gb     Device  {place}: (UUID: {uuid})")
    return "\n".join(lines) + "\n"


def topology(count: int, kind: str, others: Mapping[tuple[int, int], str], *, peers: bool = False) -> str:
    """The matrix of `nvidia-smi topo -m`, or of `topo -p2p r` with `peers`: all pairs of one kind, but for some."""
    names = "\t".join(f"GPU{number}" for number in range(count))
    end = "" if peers else "\tNIC0\tCPU Affinity\tNUMA Affinity\tGPU NUMA ID"
    lines = [f" \t{names}\t" if peers else f"\t\x1b[4m{names}{end}\x1b[0m"]
    for row in range(count):
        cells = [
            " X " if row == column else others.get((min(row, column), max(row, column)), kind)
            for column in range(count)
        ]
        lines.append(f" GPU{row}\t" + "\t".join(cells) + ("\t" if peers else "\tPXB\t0-63,128-191\t0\t\tN/A"))
    if not peers:
        lines.append("NIC0\t" + "\t".join(["PXB"] * count) + "\t X \t\t\t\t")
    lines += ["", "Legend:", "", "  X    = Self"]
    lines += (
        ["  NS   = Not supported"] if peers else ["  NV#  = Connection traversing a bonded set of # NVLinks"]
    )
    return "\n".join(lines) + "\n"
