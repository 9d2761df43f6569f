"""Just inside and just outside of what the rules look for: drivers, environment, containers, systems."""

from __future__ import annotations

from fakes.cuda_machine.machine import CudaMachine
from fakes.cuda_machine.situations.table import PROBLEM, UNKNOWN, WARNING, situation
from textnlp_fast.gpu.cuda_setup.machine import Answer

_CTK = "NVIDIA Container Toolkit CLI version {}\n"


def _no_gpu(machine: CudaMachine) -> CudaMachine:
    return machine.os("ubuntu").loads(None, None, [], found=False)


def _small_shm(machine: CudaMachine, size: int) -> CudaMachine:
    machine.space["/dev/shm"] = size
    return machine


def _locked(machine: CudaMachine, limit: int | None, *, cards: bool = True) -> CudaMachine:
    machine.memlock = limit
    return machine.folder("/sys/class/infiniband/mlx5_0") if cards else machine


# --- driver -------------------------------------------------------------------------------------------------------

situation(
    "tools without a driver",
    lambda m: (
        m.os("ubuntu")
        .pci(["T4"], bound=None)
        .loads(None, None, [], found=False)
        .command(
            "nvidia-smi", "-q", status=9, output="NVIDIA-SMI has failed because it couldn't communicate.\n"
        )
    ),
    wrong={"driver-loaded": PROBLEM},
)
situation(
    "the library says that it does not fit",
    lambda m: m.gpus(["T4"]).child("nvml", {"found": True, "code": 18}),
    wrong={"driver-parts": PROBLEM},
)
situation(
    "libraries of another version, and nobody said so yet",
    lambda m: (
        m.os("ubuntu")
        .pci(["T4"])
        .module("550.54.14")
        .nodes(1)
        .libraries("550.90.07")
        .loads(None, None, [], found=False)
        .child("cuda", {"found": True, "code": 0, "version": 12040, "device_count": 1})
    ),
    wrong={"driver-parts": PROBLEM, "driver-answers": WARNING},
)
situation(
    "a library without a version in its name",
    lambda m: m.gpus(["T4"]).write("/usr/lib64/libcuda.so.1"),
    fine=("driver-parts",),
)
situation(
    "a GPU that fell off the bus",
    lambda m: (
        m.os("ubuntu")
        .pci(["T4"])
        .module("580.95.05")
        .nodes(1)
        .libraries("580.95.05")
        .loads(None, None, [], found=False)
        .child("cuda", {"found": True, "code": 0, "version": 13000, "device_count": 0})
        .command("nvidia-smi", "-q", status=15, output="GPU at PCI:0000:10:00 has fallen off the bus.\n")
    ),
    wrong={"driver-answers": PROBLEM},
    says={"driver-answers": "lost"},
)
situation(
    "a GPU without a handle",
    lambda m: (
        m.os("ubuntu")
        .pci(["T4"])
        .module("580.95.05")
        .nodes(1)
        .libraries("580.95.05")
        .loads(None, None, [], found=False)
        .child("cuda", {"found": True, "code": 0, "version": 13000, "device_count": 0})
        .command(
            "nvidia-smi",
            "-q",
            status=255,
            output="Unable to determine the device handle for GPU 0000:10: Unknown Error\n",
        )
    ),
    wrong={"driver-answers": PROBLEM},
    says={"driver-answers": "lost"},
)
situation(
    "CUDA hangs in the kernel",
    lambda m: m.gpus(["T4"]).child("cuda", Answer(status=None, timed_out=True, stuck=True)),
    wrong={"cuda-starts": PROBLEM},
)
situation(
    "stubs without a GPU",
    lambda m: (
        _no_gpu(m)
        .write("/usr/local/cuda-13.0/lib64/stubs/libcuda.so")
        .set(LD_LIBRARY_PATH="/usr/local/cuda-13.0/lib64/stubs")
        .child("cuda", {"found": True, "code": 34, "version": 13000})
    ),
)
situation(
    "secure boot and a driver that runs",
    lambda m: (
        m.gpus(["T4"])
        .write("/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c", b"\x06\0\0\0\x01")
        .write("/lib/modules/6.8.0-87-generic/updates/dkms/nvidia.ko", b"\x7fELF")
    ),
    fine=("driver-loaded",),
)
situation(
    "secure boot and no driver at all",
    lambda m: (
        m.os("ubuntu")
        .pci(["T4"], bound=None)
        .write("/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c", b"\x06\0\0\0\x01")
        .loads(None, None, [], found=False)
    ),
    wrong={"driver-loaded": PROBLEM},
)
situation(
    "no nvidiactl and no nvidia-uvm",
    lambda m: (
        m.gpus(["T4"]),
        (m.root / "dev/nvidia-uvm").unlink(),
        (m.root / "dev/nvidiactl").unlink(),
    ),
    wrong={"device-files": PROBLEM},
    says={"device-files": "/dev/nvidia-uvm and /dev/nvidiactl are missing"},
)

# --- environment --------------------------------------------------------------------------------------------------

situation(
    "CUDA_VISIBLE_DEVICES one past the last",
    lambda m: m.gpus(["T4"]).set(CUDA_VISIBLE_DEVICES="1"),
    wrong={"visible-devices": PROBLEM},
    commands={"visible-devices": "unset CUDA_VISIBLE_DEVICES"},
)
situation(
    "CUDA_VISIBLE_DEVICES with an empty name",
    lambda m: m.gpus(["T4"]).set(CUDA_VISIBLE_DEVICES="0,"),
    wrong={"visible-devices": PROBLEM},
    says={"visible-devices": "an empty name"},
)
situation(
    "CUDA_VISIBLE_DEVICES by a UUID that begins like two",
    lambda m: m.gpus(["T4", "T4"], link="NV2").set(CUDA_VISIBLE_DEVICES="GPU-0000000"),
    wrong={"visible-devices": PROBLEM},
)
situation(
    "CUDA_VISIBLE_DEVICES by a MIG device that is gone",
    lambda m: m.gpus(["A100"], mig=[("Enabled", "Enabled", 2)]).set(CUDA_VISIBLE_DEVICES="MIG-deadbeef"),
    wrong={"visible-devices": PROBLEM},
)
situation(
    "CUDA_VISIBLE_DEVICES by a MIG device where there is no MIG",
    lambda m: m.gpus(["A100"]).set(CUDA_VISIBLE_DEVICES="MIG-deadbeef"),
    wrong={"visible-devices": PROBLEM},
)
situation(
    "CUDA_VISIBLE_DEVICES without a GPU",
    lambda m: _no_gpu(m).set(CUDA_VISIBLE_DEVICES=""),
    fine=("gpu-present",),
)
situation(
    "UUIDs of GPUs of several kinds",
    lambda m: m.gpus(["T4", "4090"], link="NV2").set(CUDA_VISIBLE_DEVICES="GPU-00000001"),
    fine=("visible-devices",),
)
situation(
    "LD_LIBRARY_PATH with the same runtime as PyTorch's",
    lambda m: (
        m.gpus(["A100"])
        .torch("2.8.0+cu128", "12.8")
        .write("/opt/cuda128/libcudart.so.12.8.90")
        .set(LD_LIBRARY_PATH="/opt/cuda128")
    ),
)
situation(
    "LD_LIBRARY_PATH with a runtime of another major than PyTorch's",
    lambda m: (
        m.gpus(["A100"])
        .torch("2.8.0+cu128", "12.8")
        .write("/opt/cuda13/libcudart.so.13.0.96")
        .write("/opt/cuda12/libcudart.so.12")
        .set(LD_LIBRARY_PATH="/opt/cuda13:/opt/cuda12")
    ),
)
situation(
    "a wrong runtime on LD_LIBRARY_PATH beside a right folder",
    lambda m: (
        m.gpus(["A100"])
        .torch("2.8.0+cu128", "12.8")
        .write("/opt/cuda121/libcudart.so.12.1.105")
        .set(LD_LIBRARY_PATH="/opt/cuda121:/usr/lib/x86_64-linux-gnu")
    ),
    wrong={"library-path": WARNING},
    commands={"library-path": "export LD_LIBRARY_PATH=/usr/lib/x86_64-linux-gnu"},
)
situation(
    "a relative entry on LD_LIBRARY_PATH",
    lambda m: m.gpus(["A100"]).set(LD_LIBRARY_PATH="lib:/usr/lib/x86_64-linux-gnu"),
    wrong={"library-path": WARNING},
    commands={"library-path": "export LD_LIBRARY_PATH=/usr/lib/x86_64-linux-gnu"},
)

situation(
    "stubs by a link on LD_LIBRARY_PATH",
    lambda m: (
        m.gpus(["T4"])
        .toolkit("13.0.2")
        .nvcc("13.0")
        .link("/usr/local/cuda", "cuda-13.0")
        .write("/usr/local/cuda-13.0/lib64/stubs/libcuda.so")
        .set(LD_LIBRARY_PATH="/usr/local/cuda/lib64/stubs/:/usr/lib/x86_64-linux-gnu")
    ),
    wrong={"driver-libraries": PROBLEM},
    commands={"driver-libraries": "export LD_LIBRARY_PATH=/usr/lib/x86_64-linux-gnu"},
)
situation(
    "cuDNN by a link in a folder on LD_LIBRARY_PATH",
    lambda m: (
        m.gpus(["A100"])
        .package("nvidia-cudnn-cu12", "9.10.2.21")
        .write("/opt/cudnn-8/libcudnn.so.8.9.7")
        .link("/opt/lib/libcudnn.so.8", "../cudnn-8/libcudnn.so.8.9.7")
        .set(LD_LIBRARY_PATH="/opt/lib")
    ),
    wrong={"cudnn": PROBLEM},
    commands={"cudnn": "unset LD_LIBRARY_PATH"},
)
situation(
    "CUDA_HOME by a link of another name",
    lambda m: (
        m.gpus(["T4"])
        .toolkit("12.4.1")
        .nvcc("12.4")
        .link("/opt/nvidia", "../usr/local/cuda-12.4")
        .set(CUDA_HOME="/opt/nvidia/")
    ),
    fine=("cuda-home",),
)

# --- containers ---------------------------------------------------------------------------------------------------

situation(
    "a container on a host without a GPU", lambda m: _no_gpu(m).write("/.dockerenv"), fine=("gpu-present",)
)
situation(
    "a container that sees the host's driver alone",
    lambda m: _no_gpu(m).module("580.95.05").write("/.dockerenv"),
    wrong={"container-devices": PROBLEM},
    fine=("driver-loaded",),
)
situation(
    "a container that sees the host's bus alone",
    lambda m: _no_gpu(m).pci(["T4"]).write("/.dockerenv"),
    wrong={"container-devices": PROBLEM},
)
situation(
    "a container with two GPUs and an old toolkit in it",
    lambda m: (
        m.gpus(["A100", "A100"], link="NV12", persistence="Disabled")
        .write("/.dockerenv")
        .command("nvidia-ctk", "--version", output=_CTK.format("1.17.4"))
        .command("docker", "--version")
        .write("/etc/cdi/nvidia.yaml", "kind: nvidia.com/gpu\nhostPath: /usr/lib/libcuda.so.550.54.14\n")
    ),
    fine=("container-devices",),
    says={"container-devices": "2 GPUs"},
)
situation(
    "a container with devices, and nobody said of which capabilities",
    lambda m: _no_gpu(m).pci(["T4"]).module("580.95.05").nodes(1).write("/.dockerenv"),
    wrong={"container-capabilities": PROBLEM},
    says={"container-capabilities": "is not set"},
)
situation(
    "the first Container Toolkit without the hole",
    lambda m: m.gpus(["T4"]).command("nvidia-ctk", "--version", output=_CTK.format("1.17.8")),
)
situation("Docker on a machine without a GPU", lambda m: _no_gpu(m).command("docker", "--version"))
situation(
    "Docker by CDI alone",
    lambda m: (
        m.gpus(["T4"])
        .command("docker", "--version")
        .command("nvidia-ctk", "--version", output=_CTK.format("1.18.0"))
        .write("/var/run/cdi/nvidia.yaml", "kind: nvidia.com/gpu\nhostPath: /usr/lib/libcuda.so.580.95.05\n")
    ),
    fine=("container-runtime", "cdi"),
    says={"container-runtime": "by CDI"},
)
situation(
    "Docker with the runtime, and Podman without CDI",
    lambda m: (
        m.gpus(["T4"])
        .command("docker", "--version")
        .command("podman", "--version")
        .command("nvidia-ctk", "--version", output=_CTK.format("1.18.0"))
        .write("/etc/docker/daemon.json", '{"default-runtime": "nvidia", "runtimes": {"nvidia": {}}}')
    ),
    fine=("container-runtime",),
    says={"container-runtime": "by default"},
)

# --- together, and the system -------------------------------------------------------------------------------------

situation("a GiB of shared memory", lambda m: _small_shm(m.gpus(["T4"]), 1 << 30), fine=("shared-memory",))
situation("little shared memory without a GPU", lambda m: _small_shm(_no_gpu(m), 64 << 20))
situation(
    "little shared memory outside of a container",
    lambda m: _small_shm(m.gpus(["T4"]), (1 << 30) - 1),
    wrong={"shared-memory": WARNING},
    commands={"shared-memory": "mount -o remount,size=16G /dev/shm"},
)
situation(
    "little memory to lock, without InfiniBand", lambda m: _locked(m.gpus(["T4"]), 8 << 20, cards=False)
)
situation("enough memory to lock", lambda m: _locked(m.gpus(["T4"]), 1 << 30))
situation("any memory to lock", lambda m: _locked(m.gpus(["T4"]), None))
situation("little memory to lock, without a GPU", lambda m: _locked(_no_gpu(m), 8 << 20))
situation(
    "no huge pages, and no GPU",
    lambda m: _no_gpu(m).write("/sys/kernel/mm/transparent_hugepage/enabled", "always madvise [never]\n"),
)


def _translating(machine: CudaMachine) -> CudaMachine:
    for number in range(2):
        machine.write(f"/sys/bus/pci/devices/0000:{0x10 + number:02x}:00.0/iommu_group/type", "DMA\n")
    return machine


situation(
    "an IOMMU on a machine whose GPUs talk by NVLink",
    lambda m: _translating(m.gpus(["A100", "A100"], link="NV12")),
    fine=("peers",),
)
situation(
    "an IOMMU in a virtual machine",
    lambda m: _translating(m.gpus(["T4", "T4"])).write("/proc/cpuinfo", "flags\t\t: fpu hypervisor\n"),
    fine=("peers",),
)
situation(
    "WSL without persistence",
    lambda m: (
        m.os("ubuntu", kernel="6.6.87.2-microsoft-standard-WSL2")
        .smi("581.57", "13.0", ["4090"], persistence="Disabled")
        .libraries("581.57", "/usr/lib/wsl/lib")
        .loads("581.57", "13.0", ["4090"])
    ),
    fine=("driver-answers",),
)
situation(
    "persistence mode is off beside its daemon",
    lambda m: m.gpus(["T4"], persistence="Disabled").write("/proc/55/comm", "nvidia-persiste\n"),
    wrong={"persistence": WARNING},
    commands={"persistence": "nvidia-smi -pm 1"},
)
situation(
    "NVSwitch with a driver that shows no fabric, and no Fabric Manager",
    lambda m: m.gpus(["A100"] * 2, "470.57.02", "11.4", link="NV12").pci([], switches=6),
    wrong={"fabric-manager": PROBLEM},
    commands={"fabric-manager": "'nvidia-fabricmanager-470=470.57.02-*'"},
)
situation(
    "NVSwitch with a driver that shows no fabric, and Fabric Manager",
    lambda m: (
        m.gpus(["A100"] * 2, "470.57.02", "11.4", link="NV12")
        .pci([], switches=6)
        .write("/proc/9/comm", "nv-fabricmanage\n")
    ),
    fine=("fabric-manager",),
)
situation(
    "a fabric by the link alone, without switches on this bus",
    lambda m: m.gpus(["B200"] * 2, link="NV18", fabric=("In Progress", "N/A")),
    wrong={"fabric-manager": PROBLEM},
)
situation(
    "NVLinks of two kinds and PCIe",
    lambda m: m.gpus(["A100"] * 4, link="SYS", links={(0, 1): "NV12", (2, 3): "NV4"}),
    wrong={"acs": UNKNOWN},
    fine=("peers",),
)
situation(
    "MIG on a GPU, and nvidia-smi that does not answer",
    lambda m: m.gpus(["A100"]).command("nvidia-smi", "-q", status=255, output="odd\n")
    .child("nvml", {"found": True, "code": 0, "driver": "580.95.05", "cuda": 13000,
                    "gpus": [{"index": 0, "name": "A", "mig": True, "mig_pending": True}]}),
    wrong={"driver-answers": PROBLEM},
    fine=("mig",),
)  # fmt: skip
situation(
    "MIG is to be off after a reset",
    lambda m: m.gpus(["A100"], mig=[("Enabled", "Disabled", 1)]),
    wrong={"mig": WARNING},
    says={"mig": "to be off"},
)
