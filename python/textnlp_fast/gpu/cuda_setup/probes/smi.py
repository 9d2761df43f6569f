"""Reads what nvidia-smi prints: `-q`, `--query-gpu`, `-L` and `topo`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from textnlp_fast.gpu.cuda_setup.facts import Gpu, Smi
from textnlp_fast.gpu.cuda_setup.machine import Answer, Machine
from textnlp_fast.gpu.cuda_setup.versions import Version

__all__ = ["ask_smi", "read_capabilities", "read_details", "read_list", "read_matrix"]

_TIMEOUT_S = 45.0
_MOST_GPUS = 1024
_WSL = "/usr/lib/wsl/lib/nvidia-smi"
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_LINK = re.compile(r"X|NV\d+|PIX|PXB|PHB|NODE|SYS|OK|CNS|GNS|TNS|CTNS|NS|DR|U|N/A")


def ask_smi(machine: Machine) -> tuple[Smi, tuple[Gpu, ...]]:
    """How nvidia-smi is, and the GPUs it shows. After one question without an answer no other is asked."""
    command = "nvidia-smi" if machine.which("nvidia-smi") else _WSL
    if not machine.which("nvidia-smi") and not machine.exists(_WSL):
        return Smi(), ()

    def ask(*arguments: str) -> Answer:
        return machine.run(command, *arguments, timeout_s=_TIMEOUT_S, lookup=False)

    details = ask("-q")
    if not details.ok:
        return (
            Smi(
                present=not details.missing,
                message=_complaint(details),
                timed_out=details.timed_out,
                stuck=details.stuck,
            ),
            (),
        )
    driver, cuda, gpus = read_details(details.output)
    if not gpus:
        return Smi(present=True, ok=True, message=_complaint(details), driver=driver, cuda=cuda), ()
    capabilities = ask("--query-gpu=index,compute_cap", "--format=csv,noheader")
    if capabilities.ok:
        known = read_capabilities(capabilities.output)
        gpus = tuple(replace(gpu, compute_capability=known.get(gpu.index)) for gpu in gpus)
    if any(gpu.mig for gpu in gpus):
        listed = read_list(ask("-L").output)
        gpus = tuple(replace(gpu, mig_uuids=listed.get(gpu.index, ())) for gpu in gpus)
    links: tuple[tuple[int, int, str], ...] = ()
    peers = links
    if len(gpus) > 1:
        links = read_matrix(ask("topo", "-m").output)
        peers = read_matrix(ask("topo", "-p2p", "r").output)
    return Smi(present=True, ok=True, links=links, p2p=peers, driver=driver, cuda=cuda), gpus


def read_details(text: str) -> tuple[Version | None, Version | None, tuple[Gpu, ...]]:
    """The versions of driver and CUDA, and the GPUs in the output of `nvidia-smi -q`.

    Nesting is told by the indentation, four spaces a level, as all versions since 2012 print it.
    """
    versions: dict[str, Version | None] = {"driver": None, "cuda": None}
    gpus: list[dict[str, str]] = []
    section: list[tuple[int, str]] = []
    for line in text.splitlines():
        if not line.strip():
            continue
        depth = len(line) - len(line.lstrip())
        name, colon, value = (part.strip() for part in line.partition(" : "))
        while section and section[-1][0] >= depth:
            section.pop()
        if depth == 0:
            if name.startswith("GPU ") and not colon and len(gpus) < _MOST_GPUS:
                gpus.append({"bus": name.removeprefix("GPU ").strip()})
            elif name in {"Driver Version", "KMD Version"} and versions["driver"] is None:
                versions["driver"] = Version.parse(value)
            # From R610 on the kernel's and the user's half are named apart: "KMD Version", "CUDA UMD Version".
            elif name in {"CUDA Version", "CUDA UMD Version"} and versions["cuda"] is None:
                versions["cuda"] = Version.parse(value)
        elif gpus:
            path = "/".join([*(parent for _, parent in section), name])
            if colon:
                gpus[-1].setdefault(path, value)
            else:
                section.append((depth, name))
    return (
        versions["driver"],
        versions["cuda"],
        tuple(_gpu(index, fields) for index, fields in enumerate(gpus)),
    )


def read_capabilities(text: str) -> dict[int, tuple[int, int]]:
    """Compute capabilities by index, of `--query-gpu=index,compute_cap`; drivers before R510 do not know them."""
    found = {}
    for line in text.splitlines():
        match = re.fullmatch(r"\s*(\d{1,4})\s*,\s*(\d{1,3})\.(\d{1,3})\s*", line, re.ASCII)
        if match:
            found[int(match[1])] = (int(match[2]), int(match[3]))
    return found


def read_list(text: str) -> dict[int, tuple[str, ...]]:
    """The UUIDs of MIG devices by the index of their GPU, of `nvidia-smi -L`."""
    found: dict[int, tuple[str, ...]] = {}
    index: int | None = None
    for line in text.splitlines():
        if match := re.match(r"GPU (\d{1,4}):", line, re.ASCII):
            index = int(match[1])
        elif index is not None and (match := re.match(r"\s+MIG .*\(UUID: (MIG-[^)\s]+)\)", line)):
            found[index] = (*found.get(index, ()), match[1])
    return found


def read_matrix(text: str) -> tuple[tuple[int, int, str], ...]:
    """Pairs of GPUs and what stands between them, of `nvidia-smi topo -m` or `topo -p2p r`."""
    found = []
    columns: list[int | None] = []
    for line in _ANSI.sub("", text).splitlines():
        cells = line.split()
        if len(cells) > _MOST_GPUS:
            continue
        if not columns:
            if len(cells) > 1 and all(re.fullmatch(r"GPU\d{1,4}", cell) for cell in cells[:2]):
                columns = list(_columns(cells))
            continue
        if cells and (match := re.fullmatch(r"GPU(\d{1,4})", cells[0])):
            row = int(match[1])
            for column, cell in zip(columns, cells[1:], strict=False):
                if column is not None and column > row and _LINK.fullmatch(cell):
                    found.append((row, column, cell))
    return tuple(found)


def _columns(cells: list[str]) -> Iterator[int | None]:
    for cell in cells:
        if match := re.fullmatch(r"GPU(\d{1,4})", cell, re.ASCII):
            yield int(match[1])
        elif re.fullmatch(r"(NIC\d+|mlx5_\d+)", cell):
            yield None
        else:
            return  # "CPU Affinity" and what follows are no devices


def _gpu(index: int, fields: dict[str, str]) -> Gpu:
    memory = re.match(r"(\d{1,12}) MiB", fields.get("FB Memory Usage/Total", ""), re.ASCII)
    return Gpu(
        index=index,
        uuid=_known(fields.get("GPU UUID")),
        name=_known(fields.get("Product Name")) or "GPU",
        pci_bus_id=fields["bus"],
        memory_bytes=int(memory[1]) << 20 if memory else None,
        persistence=_enabled(fields.get("Persistence Mode")),
        mig=_enabled(fields.get("MIG Mode/Current")),
        mig_pending=_enabled(fields.get("MIG Mode/Pending")),
        fabric_state=_known(fields.get("Fabric/State")),
        fabric_status=_known(fields.get("Fabric/Status")),
    )


def _known(value: str | None) -> str | None:
    return None if value is None or value in {"N/A", "[N/A]", "[Not Supported]", ""} else value[:200]


def _enabled(value: str | None) -> bool | None:
    return {"Enabled": True, "Disabled": False}.get(value or "")


def _complaint(answer: Answer) -> str:
    if answer.timed_out:
        return f"nvidia-smi gave no answer in {_TIMEOUT_S:.0f} s"
    if answer.truncated:
        return "nvidia-smi printed without end"
    return " ".join(answer.text.split())[:500]
