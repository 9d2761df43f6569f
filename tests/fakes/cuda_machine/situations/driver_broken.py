"""Drivers that are there, and broken."""

from __future__ import annotations

from fakes.cuda_machine.machine import CudaMachine
from fakes.cuda_machine.situations.table import PROBLEM, UNKNOWN, WARNING, situation
from textnlp_fast.gpu.cuda_setup.machine import Answer

situation(
    "updated, not restarted: driver and library differ",
    lambda m: (
        m.os("ubuntu")
        .pci(["A10G"])
        .module("535.183.01", open_module=False)
        .nodes(1)
        .libraries("535.247.01")
        .command(
            "nvidia-smi",
            "-q",
            status=18,
            output="Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 535.247\n",
        )
        .loads(None, None, [], code=803)
        .child(
            "cuda",
            {
                "found": True,
                "code": 803,
                "version": 12020,
                "path": "/usr/lib/x86_64-linux-gnu/libcuda.so.535.247.01",
            },
        )
    ),
    wrong={"driver-parts": PROBLEM, "cuda-starts": PROBLEM},
    commands={"driver-parts": "reboot"},
    says={"driver-parts": "module 535.183.01", "cuda-starts": "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH"},
)
situation(
    "the driver hangs",
    lambda m: (
        m.os("ubuntu")
        .pci(["H100"])
        .module("580.95.05")
        .nodes(1)
        .libraries("580.95.05")
        .command("nvidia-smi", "-q", status=None, timed_out=True)
    ),
    wrong={"driver-answers": PROBLEM},
    fine=("driver-parts",),
    commands={"driver-answers": "dmesg"},
    says={"driver-answers": "no answer in 45 s"},
)
situation(
    "the driver hangs in the kernel",
    lambda m: (
        m.os("ubuntu")
        .pci(["H100"])
        .module("580.95.05")
        .nodes(1)
        .libraries("580.95.05")
        .command("nvidia-smi", "-q", status=None, timed_out=True, stuck=True)
    ),
    wrong={"driver-answers": PROBLEM},
    commands={"driver-answers": "reboot"},
    says={"driver-answers": "cannot even be killed"},
)
situation(
    "CUDA hangs, nvidia-smi does not",
    lambda m: m.gpus(["H100"]).child("cuda", Answer(status=None, timed_out=True)),
    wrong={"cuda-starts": PROBLEM},
    fine=("driver-answers",),
)
situation(
    "loading libcuda kills the process",
    lambda m: m.gpus(["H100"]).child("cuda", Answer(status=-11)),
    wrong={"cuda-starts": PROBLEM},
    says={"cuda-starts": "signal 11"},
)
situation(
    "a GPU is lost",
    lambda m: (
        m.os("ubuntu")
        .pci(["H100"])
        .module("580.95.05")
        .nodes(1)
        .libraries("580.95.05")
        .loads(None, None, [], found=False)
        .child("cuda", {"found": True, "code": 101, "version": 13000})
        .command(
            "nvidia-smi",
            "-q",
            status=15,
            output="Unable to determine the device handle for GPU0000:3B:00.0: GPU is lost.  Reboot the system to "
            "recover this GPU\n",
        )
    ),
    wrong={"driver-answers": PROBLEM, "cuda-starts": PROBLEM},
    commands={"driver-answers": "reboot"},
    says={"driver-answers": "lost", "cuda-starts": "CUDA_ERROR_INVALID_DEVICE"},
)
situation(
    "nvidia-smi fails with a driver loaded",
    lambda m: (
        m.os("ubuntu")
        .pci(["H100"])
        .module("580.95.05")
        .nodes(1)
        .libraries("580.95.05")
        .loads(None, None, [], found=False)
        .child("cuda", {"found": True, "code": 3, "version": 13000})
        .command("nvidia-smi", "-q", status=4, output="Failed to initialize NVML: Insufficient Permissions\n")
    ),
    wrong={"driver-answers": PROBLEM, "cuda-starts": PROBLEM},
    says={"driver-answers": "Insufficient Permissions"},
)
situation(
    "the driver without its tools",
    lambda m: (
        m.os("debian")
        .pci(["T4"])
        .module("580.95.05")
        .nodes(1)
        .libraries("580.95.05")
        .loads(None, None, [], found=False)
        .child("cuda", {"found": True, "code": 0, "version": 13000, "device_count": 1})
    ),
    wrong={"driver-answers": WARNING},
    fine=("gpu-present", "cuda-starts"),
    commands={"driver-answers": "apt-get install -y nvidia-smi libcuda1"},
)
situation(
    "the driver without libcuda",
    lambda m: m.gpus(["T4"]).loads("580.95.05", "13.0", ["T4"], found=False),
    wrong={"cuda-starts": PROBLEM},
    commands={"cuda-starts": "nvidia-utils-580 libnvidia-compute-580"},
)
situation(
    "traces of a driver, no GPU",
    lambda m: (
        m.os("ubuntu")
        .loads(None, None, [], found=False)
        .command(
            "nvidia-smi",
            "-q",
            status=9,
            output="NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\n",
        )
    ),
    wrong={"gpu-present": UNKNOWN},
    says={"gpu-present": "couldn't communicate"},
)
situation(
    "two versions of the driver's libraries",
    lambda m: m.gpus(["T4"], "550.54.14", "12.4").libraries("535.104.05", "/usr/lib64"),
    wrong={"driver-libraries": PROBLEM},
    fine=("cuda-starts",),
    commands={"driver-libraries": ("dpkg -S", "/usr/lib64/libcuda.so.535.104.05", "ldconfig")},
)
situation(
    "stubs on LD_LIBRARY_PATH",
    lambda m: (
        m.gpus(["T4"])
        .write("/usr/local/cuda-13.0/lib64/stubs/libcuda.so")
        .set(LD_LIBRARY_PATH="/usr/local/cuda-13.0/lib64/stubs:/usr/lib/x86_64-linux-gnu")
        .child(
            "cuda",
            {
                "found": True,
                "code": 34,
                "version": 13000,
                "path": "/usr/local/cuda-13.0/lib64/stubs/libcuda.so",
            },
        )
    ),
    wrong={"driver-libraries": PROBLEM, "cuda-starts": PROBLEM},
    commands={"driver-libraries": "export LD_LIBRARY_PATH=/usr/lib/x86_64-linux-gnu"},
    says={"cuda-starts": "CUDA_ERROR_STUB_LIBRARY"},
)
situation(
    "Blackwell with the closed module",
    lambda m: m.gpus(["5090"], "570.86.15", "12.8", open_module=False),
    wrong={"module-flavour": PROBLEM},
    commands={"module-flavour": "nvidia-open"},
)
situation(
    "Volta with the open module",
    lambda m: m.gpus(["V100"], "580.95.05", "13.0", open_module=True),
    wrong={"module-flavour": PROBLEM, "old-gpus": WARNING},
    commands={"module-flavour": "cuda-drivers-580", "old-gpus": "nvidia-driver-pinning-580"},
)
situation(
    "Pascal and a driver that dropped it",
    lambda m: m.gpus(["P100"], "590.48.01", "13.1", os="rhel9", open_module=False),
    wrong={"old-gpus": PROBLEM},
    commands={"old-gpus": "nvidia-driver:580-dkms"},
)
situation(
    "Pascal and R580 on Rocky",
    lambda m: m.gpus(["P100"], "580.95.05", "13.0", os="rhel9", open_module=False),
    wrong={"old-gpus": WARNING},
    commands={"old-gpus": "versionlock add '*nvidia*580*'"},
)
situation(
    "no nvidia-uvm",
    lambda m: (
        m.gpus(["T4"]).child("cuda", {"found": True, "code": 999, "version": 13000}),
        (m.root / "dev/nvidia-uvm").unlink(),
    ),
    wrong={"device-files": PROBLEM, "cuda-starts": PROBLEM},
    commands={"device-files": "nvidia-modprobe -u -c=0", "cuda-starts": "modprobe nvidia_uvm"},
)


def _denied(machine: CudaMachine) -> None:
    machine.gpus(["T4"]).child("cuda", {"found": True, "code": 100, "version": 13000})
    machine.denied = frozenset({"nvidia0", "nvidiactl"})


situation(
    "device files of others",
    _denied,
    wrong={"device-files": PROBLEM, "cuda-starts": PROBLEM},
    commands={"device-files": "usermod -aG video,render"},
    says={"device-files": "/dev/nvidia0"},
)
situation(
    "another process holds the GPU for itself",
    lambda m: m.gpus(["T4"]).child("cuda", {"found": True, "code": 46, "version": 13000}),
    wrong={"cuda-starts": PROBLEM},
    commands={"cuda-starts": "nvidia-smi -c 0"},
)
situation(
    "an error that has no name here",
    lambda m: m.gpus(["T4"]).child("cuda", {"found": True, "code": 719, "version": 13000}),
    wrong={"cuda-starts": PROBLEM},
    says={"cuda-starts": "CUresult 719"},
)
situation(
    "WSL",
    lambda m: (
        m.os("ubuntu", kernel="6.6.87.2-microsoft-standard-WSL2")
        .write("/dev/dxg")
        .smi("581.57", "13.0", ["4090"], persistence="Enabled")
        .libraries("581.57", "/usr/lib/wsl/lib")
        .loads("581.57", "13.0", ["4090"], path="/usr/lib/wsl/lib/libcuda.so.1")
    ),
    fine=("driver-answers", "cuda-starts"),
)
situation(
    "WSL with a Linux driver inside",
    lambda m: (
        m.os("ubuntu", kernel="6.6.87.2-microsoft-standard-WSL2")
        .write("/dev/dxg")
        .smi("581.57", "13.0", ["4090"])
        .libraries("581.57", "/usr/lib/wsl/lib")
        .libraries("535.247.01")
        .loads("581.57", "13.0", ["4090"])
    ),
    wrong={"driver-libraries": PROBLEM},
    commands={"driver-libraries": "apt-get remove"},
)
