"""A machine as a folder: files of /proc, /sys, /etc and /usr, commands with canned answers, and Python's packages."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fakes.cuda_machine.answers import Card, gpu_details, gpu_list, topology
from textnlp_fast.gpu.cuda_setup.machine import Answer, Machine
from textnlp_fast.gpu.cuda_setup.probes.loading import CHILD

__all__ = ["GPUS", "CudaMachine", "Model"]

_OS = {
    "debian": 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nNAME="Debian GNU/Linux"\nVERSION_ID="12"\nID=debian\n',
    "ubuntu": 'PRETTY_NAME="Ubuntu 24.04.3 LTS"\nNAME="Ubuntu"\nVERSION_ID="24.04"\nID=ubuntu\nID_LIKE=debian\n',
    "rhel9": 'NAME="Rocky Linux"\nVERSION="9.7 (Blue Onyx)"\nID="rocky"\nID_LIKE="rhel centos fedora"\n'
    'VERSION_ID="9.7"\nPRETTY_NAME="Rocky Linux 9.7 (Blue Onyx)"\n',
    "rhel10": 'NAME="Red Hat Enterprise Linux"\nID="rhel"\nVERSION_ID="10.1"\n'
    'PRETTY_NAME="Red Hat Enterprise Linux 10.1"\n',
    "fedora": 'NAME="Fedora Linux"\nID=fedora\nVERSION_ID=42\nPRETTY_NAME="Fedora Linux 42"\n',
    "amazon": 'NAME="Amazon Linux"\nID="amzn"\nID_LIKE="fedora"\nVERSION_ID="2023"\n'
    'PRETTY_NAME="Amazon Linux 2023.9"\n',
    "sles": 'NAME="SLES"\nID="sles"\nID_LIKE="suse"\nVERSION_ID="15.6"\nPRETTY_NAME="SLES 15 SP6"\n',
    "leap": 'NAME="openSUSE Leap"\nID="opensuse-leap"\nID_LIKE="suse opensuse"\nVERSION_ID="15.6"\n'
    'PRETTY_NAME="openSUSE Leap 15.6"\n',
    "arch": 'NAME="Arch Linux"\nID=arch\nPRETTY_NAME="Arch Linux"\n',
    "mint": 'NAME="Linux Mint"\nID=linuxmint\nID_LIKE="ubuntu debian"\nVERSION_ID="22"\nPRETTY_NAME="Linux Mint 22"\n',
}


@dataclass(frozen=True)
class Model:
    """A kind of GPU."""

    name: str
    device_id: int
    capability: tuple[int, int]
    memory_mib: int


GPUS = {
    "P100": Model("Tesla P100-PCIE-16GB", 0x15F8, (6, 0), 16384),
    "V100": Model("Tesla V100-SXM2-16GB", 0x1DB1, (7, 0), 16384),
    "T4": Model("Tesla T4", 0x1EB8, (7, 5), 15360),
    "A10G": Model("NVIDIA A10G", 0x2237, (8, 6), 23028),
    "A100": Model("NVIDIA A100-SXM4-80GB", 0x20B2, (8, 0), 81920),
    "4090": Model("NVIDIA GeForce RTX 4090", 0x2684, (8, 9), 24564),
    "H100": Model("NVIDIA H100 80GB HBM3", 0x2330, (9, 0), 81559),
    "B200": Model("NVIDIA B200", 0x2901, (10, 0), 183359),
    "5090": Model("NVIDIA GeForce RTX 5090", 0x2B85, (12, 0), 32607),
    "GB10": Model("NVIDIA GB10", 0x2E12, (12, 1), 122572),
}


@dataclass
class CudaMachine:
    """Built call by call; `machine()` is what the probes look at."""

    root: Path
    site: Path
    environment: dict[str, str] = field(default_factory=lambda: {"PATH": "/usr/local/bin:/usr/bin:/bin"})
    answers: dict[tuple[str, ...], Answer] = field(default_factory=dict)
    asked: list[tuple[str, ...]] = field(default_factory=list)
    space: dict[str, int] = field(default_factory=lambda: {"/dev/shm": 64 << 30})
    memlock: int | None = None
    denied: frozenset[str] = frozenset()
    architecture: str = "x86_64"

    # --- files and commands

    def write(self, path: str, text: str | bytes = "") -> CudaMachine:
        target = self.root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(text if isinstance(text, bytes) else text.encode())
        return self

    def folder(self, path: str) -> CudaMachine:
        (self.root / path.lstrip("/")).mkdir(parents=True, exist_ok=True)
        return self

    def link(self, path: str, target: str) -> CudaMachine:
        """A link to a name beside it."""
        place = self.root / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(target)
        return self

    def command(
        self, *arguments: str, output: str = "", status: int | None = 0, errors: str = "", **how: Any
    ) -> CudaMachine:
        if not arguments[0].startswith("/"):
            self.write(f"/usr/bin/{arguments[0]}", "#!/bin/sh\n")
        self.answers[arguments] = Answer(status=status, output=output, errors=errors, **how)
        return self

    def set(self, **variables: str) -> CudaMachine:
        self.environment.update(variables)
        return self

    # --- the parts of a machine

    def os(self, name: str = "ubuntu", kernel: str = "6.8.0-87-generic") -> CudaMachine:
        self.write("/etc/os-release", _OS[name])
        self.write("/proc/sys/kernel/osrelease", f"{kernel}\n")
        self.write("/proc/1/comm", "systemd\n")
        self.write("/proc/cpuinfo", "processor\t: 0\nflags\t\t: fpu vme sse2 avx2\n")
        return self.write("/sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n")

    def pci(self, models: Sequence[str], *, bound: str | None = "nvidia", switches: int = 0) -> CudaMachine:
        for number, name in enumerate(models):
            place = f"/sys/bus/pci/devices/0000:{0x10 + number:02x}:00.0"
            self.write(f"{place}/vendor", "0x10de\n").write(f"{place}/class", "0x030200\n")
            self.write(f"{place}/device", f"{GPUS[name].device_id:#06x}\n")
            if bound:
                self.folder(f"/sys/bus/pci/drivers/{bound}")
                self.link(f"{place}/driver", f"../../drivers/{bound}")
        for number in range(switches):
            place = f"/sys/bus/pci/devices/0000:{0x80 + number:02x}:00.0"
            self.write(f"{place}/vendor", "0x10de\n").write(f"{place}/class", "0x068000\n")
            self.write(f"{place}/device", "0x22a3\n")
        # A device of somebody else.
        self.write("/sys/bus/pci/devices/0000:00:00.0/vendor", "0x8086\n")
        return self.write("/sys/bus/pci/devices/0000:00:00.0/class", "0x060000\n")

    def module(self, version: str, *, open_module: bool = True) -> CudaMachine:
        line = (
            f"NVRM version: NVIDIA UNIX Open Kernel Module for {self.architecture}  {version}  Release Build"
            "  (dvs-builder@U22-I3-B17-02-5)  Tue Sep 23 09:55:41 UTC 2025"
            if open_module
            else f"NVRM version: NVIDIA UNIX {self.architecture} Kernel Module  {version}  Thu Jul 11 02:04:29 UTC 2024"
        )
        self.write(
            "/proc/driver/nvidia/version",
            f"{line}\nGCC version:  gcc version 11.4.0 (Ubuntu 11.4.0-1ubuntu1~22.04.2) \n",
        )
        for name in ("nvidia", "nvidia_uvm"):
            self.folder(f"/sys/module/{name}")
        return self

    def nodes(self, count: int) -> CudaMachine:
        for name in ("nvidiactl", "nvidia-uvm", *(f"nvidia{number}" for number in range(count))):
            self.write(f"/dev/{name}")
        return self

    def libraries(self, version: str, folder: str = "/usr/lib/x86_64-linux-gnu") -> CudaMachine:
        for name in ("libcuda", "libnvidia-ml"):
            self.write(f"{folder}/{name}.so.{version}", "\x7fELF")
            self.link(f"{folder}/{name}.so.1", f"{name}.so.{version}")
        return self

    def loads(
        self,
        driver: str | None,
        cuda: str | None,
        models: Sequence[str],
        *,
        code: int = 0,
        found: bool = True,
        visible: int | None = None,
        path: str = "/usr/lib/x86_64-linux-gnu/libcuda.so.1",
    ) -> CudaMachine:
        """What the two libraries answer to the process that loads them."""
        number = None
        if cuda:
            major, minor = cuda.split(".")
            number = int(major) * 1000 + int(minor) * 10
        answer: dict[str, Any] = {"found": found}
        if found:
            answer |= {"path": path, "version": number, "code": code}
            answer |= {"device_count": len(models) if visible is None else visible} if code == 0 else {}
        else:
            answer["message"] = "libcuda.so.1: cannot open shared object file: No such file or directory"
        self.child("cuda", answer)
        gpus = [
            {
                "index": index,
                "code": 0,
                "uuid": self.uuid(index),
                "name": GPUS[name].name,
                "compute_capability": list(GPUS[name].capability),
                "memory_bytes": GPUS[name].memory_mib << 20,
            }
            for index, name in enumerate(models)
        ]
        nvml = {"found": True, "code": 0, "driver": driver, "cuda": number, "gpus": gpus}
        return self.child("nvml", nvml if driver else {"found": False, "code": 12})

    def child(self, what: str, answer: Mapping[str, Any] | Answer) -> CudaMachine:
        key = ("/usr/bin/python3", "-I", "-S", CHILD, what)
        self.answers[key] = (
            answer if isinstance(answer, Answer) else Answer(status=0, output=json.dumps(answer) + "\n")
        )
        return self

    @staticmethod
    def uuid(index: int) -> str:
        return f"GPU-{index:08x}-bb8e-20fe-e0b4-{index:012x}"

    def smi(
        self,
        driver: str,
        cuda: str,
        models: Sequence[str],
        *,
        persistence: str = "Enabled",
        mig: Sequence[tuple[str, str, int]] = (),
        fabric: tuple[str, str] | None = None,
        link: str = "PIX",
        links: Mapping[tuple[int, int], str] | None = None,
        peer: str = "OK",
        peers: Mapping[tuple[int, int], str] | None = None,
    ) -> CudaMachine:
        """nvidia-smi with all its answers. `mig` is (current, pending, instances) by GPU."""
        cards = []
        for index, name in enumerate(models):
            current, pending, instances = mig[index] if mig else ("N/A", "N/A", 0)
            cards.append(
                Card(
                    name=GPUS[name].name,
                    uuid=self.uuid(index),
                    bus=f"00000000:{0x10 + index:02X}:00.0",
                    memory_mib=GPUS[name].memory_mib,
                    persistence=persistence,
                    mig=current,
                    mig_pending=pending,
                    mig_uuids=tuple(f"MIG-{index:08x}-0000-5000-8000-{n:012x}" for n in range(instances)),
                    fabric=fabric,
                )
            )
        self.command("nvidia-smi", "-q", output=gpu_details(driver, cuda, cards))
        rows = "".join(
            f"{index}, {GPUS[name].capability[0]}.{GPUS[name].capability[1]}\n"
            for index, name in enumerate(models)
        )
        self.command("nvidia-smi", "--query-gpu=index,compute_cap", "--format=csv,noheader", output=rows)
        self.command("nvidia-smi", "-L", output=gpu_list(cards))
        count = len(models)
        self.command("nvidia-smi", "topo", "-m", output=topology(count, link, links or {}))
        return self.command(
            "nvidia-smi", "topo", "-p2p", "r", output=topology(count, peer, peers or {}, peers=True)
        )

    def gpus(
        self,
        models: Sequence[str],
        driver: str = "580.95.05",
        cuda: str = "13.0",
        *,
        os: str = "ubuntu",
        open_module: bool = True,
        **smi: Any,
    ) -> CudaMachine:
        """A machine on which all is well: these GPUs, this driver."""
        self.os(os).pci(models).module(driver, open_module=open_module).nodes(len(models)).libraries(driver)
        return self.smi(driver, cuda, models, **smi).loads(driver, cuda, models)

    # --- CUDA and Python

    def toolkit(self, version: str, path: str | None = None, *, nvcc: bool = True) -> CudaMachine:
        short = ".".join(version.split(".")[:2])
        path = path or f"/usr/local/cuda-{short}"
        self.write(f"{path}/version.json", json.dumps({"cuda": {"name": "CUDA SDK", "version": version}}))
        self.folder(f"{path}/lib64")
        return self.write(f"{path}/bin/nvcc", "#!/bin/sh\n") if nvcc else self

    def nvcc(self, release: str) -> CudaMachine:
        """nvcc on PATH, as from a distribution's package."""
        return self.command(
            "nvcc",
            "--version",
            output="nvcc: NVIDIA (R) Cuda compiler driver\nCopyright (c) 2005-2025 NVIDIA Corporation\n"
            "Built on Wed_Aug_20_01:58:59_PM_PDT_2025\n"
            f"Cuda compilation tools, release {release}, V{release}.88\n"
            f"Build cuda_{release}.r{release}/compiler.36424714_0\n",
        )

    def package(
        self,
        name: str,
        version: str,
        *,
        requires: Sequence[str] = (),
        files: Mapping[str, str | bytes] | None = None,
    ) -> CudaMachine:
        info = self.site / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True)
        lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
        lines += [f"Requires-Dist: {line}" for line in requires]
        (info / "METADATA").write_text("\n".join(lines) + "\n")
        for path, text in (files or {}).items():
            target = self.site / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(text if isinstance(text, bytes) else text.encode())
        (info / "RECORD").write_text("".join(f"{path},,\n" for path in files or {}))
        return self

    def torch(
        self,
        version: str,
        cuda: str | None,
        *,
        architectures: str = "",
        requires: Sequence[str] = (),
        hip: str | None = None,
    ) -> CudaMachine:
        text = (
            "from typing import Optional\n\n__all__ = ['__version__', 'debug', 'cuda', 'git_version', 'hip']\n"
            f"__version__ = '{version}'\ndebug = False\n"
            f"cuda: Optional[str] = {cuda!r}\ngit_version = 'e4ee3be4063b7c430974252fdf7db42273388d86'\n"
            f"hip: Optional[str] = {hip!r}\n"
        )
        files: dict[str, str | bytes] = {"torch/version.py": text}
        if architectures:
            library = b"\x7fELF" + b"\0" * 5000 + b"sm_1\0" + architectures.encode() + b"\0" + b"x" * 5000
            files["torch/lib/libtorch_python.so"] = library
        return self.package("torch", version, requires=requires, files=files)

    def machine(self) -> Machine:
        def run(arguments: Sequence[str], **_: Any) -> Answer:
            self.asked.append(tuple(arguments))
            return self.answers.get(tuple(arguments), Answer(status=127, errors="not known here"))

        return Machine(
            root=self.root,
            environment=self.environment,
            runner=run,
            python="/usr/bin/python3",
            site_paths=(str(self.site),),
            space=self.space,
            memlock_bytes=self.memlock,
            architecture=self.architecture,
            may_open=lambda path: path.name not in self.denied,
        )
