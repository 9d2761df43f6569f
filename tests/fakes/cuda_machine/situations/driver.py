"""GPUs and their driver: there, loaded, whole, hanging."""

from __future__ import annotations

from fakes.cuda_machine.situations.table import PROBLEM, WARNING, situation

situation(
    "no GPU at all",
    lambda m: m.os("debian").loads(None, None, [], found=False),
    fine=("gpu-present",),
    says={"gpu-present": "no NVIDIA GPU"},
)
situation(
    "no GPU, a toolkit to compile with",
    lambda m: m.os("debian").loads(None, None, [], found=False).toolkit("13.0.1").nvcc("13.0"),
    fine=("gpu-present", "toolkit-driver"),
    says={"toolkit-driver": "no driver to run"},
)
situation(
    "one healthy T4",
    lambda m: m.gpus(["T4"], "550.54.14", "12.4"),
    fine=(
        "gpu-present",
        "driver-loaded",
        "driver-answers",
        "driver-parts",
        "device-files",
        "cuda-starts",
        "persistence",
        "shared-memory",
    ),
    says={
        "gpu-present": "1 x Tesla T4, 15 GiB, compute capability 7.5",
        "driver-answers": "550.54.14",
        "cuda-starts": "CUDA 12.4",
    },
)
situation(
    "GPU on the bus, no driver, Ubuntu",
    lambda m: m.os("ubuntu").pci(["A10G"], bound=None).loads(None, None, [], found=False),
    wrong={"driver-loaded": PROBLEM},
    fine=("gpu-present",),
    commands={
        "driver-loaded": (
            "ubuntu2404/x86_64/cuda-keyring_1.1-1_all.deb",
            "apt-get install -y nvidia-open",
            "reboot",
        )
    },
)
situation(
    "GPU on the bus, no driver, Rocky 9",
    lambda m: m.os("rhel9").pci(["A10G"], bound=None).loads(None, None, [], found=False),
    wrong={"driver-loaded": PROBLEM},
    commands={
        "driver-loaded": ("rhel9/x86_64/cuda-rhel9.repo", "dnf module install -y nvidia-driver:open-dkms")
    },
)
situation(
    "GPU on the bus, no driver, Fedora",
    lambda m: m.os("fedora").pci(["A10G"], bound=None).loads(None, None, [], found=False),
    wrong={"driver-loaded": PROBLEM},
    commands={
        "driver-loaded": ("config-manager addrepo --from-repofile=", "fedora42", "dnf install -y nvidia-open")
    },
)
situation(
    "GPU on the bus, no driver, SUSE",
    lambda m: m.os("sles").pci(["A10G"], bound=None).loads(None, None, [], found=False),
    wrong={"driver-loaded": PROBLEM},
    commands={
        "driver-loaded": ("zypper addrepo", "sles15/x86_64/cuda-sles15.repo", "zypper install -y nvidia-open")
    },
)
situation(
    "GPU on the bus, no driver, Arch",
    lambda m: m.os("arch").pci(["A10G"], bound=None).loads(None, None, [], found=False),
    wrong={"driver-loaded": PROBLEM},
    commands={"driver-loaded": "pacman -S --needed nvidia-open nvidia-utils"},
)
situation(
    "nouveau holds the GPU",
    lambda m: (
        m.os("debian")
        .pci(["T4"], bound="nouveau")
        .folder("/sys/module/nouveau")
        .loads(None, None, [], found=False)
    ),
    wrong={"nouveau": PROBLEM},
    commands={"nouveau": ("blacklist nouveau", "update-initramfs -u", "reboot")},
    says={"nouveau": "0000:10:00.0 is bound to nouveau"},
)
situation(
    "nouveau holds the GPU, Rocky",
    lambda m: (
        m.os("rhel9")
        .pci(["T4"], bound="nouveau")
        .folder("/sys/module/nouveau")
        .loads(None, None, [], found=False)
    ),
    wrong={"nouveau": PROBLEM},
    commands={"nouveau": "dracut --force"},
)
situation(
    "nouveau beside the driver",
    lambda m: m.gpus(["T4"]).folder("/sys/module/nouveau"),
    wrong={"nouveau": WARNING},
)
situation(
    "the kernel was updated and the driver was not built for it",
    lambda m: (
        m.os("ubuntu")
        .pci(["T4"], bound=None)
        .write("/lib/modules/6.8.0-85-generic/updates/dkms/nvidia.ko.zst")
        .folder("/lib/modules/6.8.0-87-generic")
        .loads(None, None, [], found=False)
        .libraries("550.54.14")
    ),
    wrong={"driver-loaded": PROBLEM},
    commands={"driver-loaded": ("linux-headers-6.8.0-87-generic", "dkms autoinstall")},
    says={"driver-loaded": "6.8.0-85-generic"},
)
situation(
    "the driver is installed and not loaded",
    lambda m: (
        m.os("ubuntu")
        .pci(["T4"], bound=None)
        .write("/lib/modules/6.8.0-87-generic/kernel/nvidia-550/nvidia.ko")
        .loads(None, None, [], found=False)
    ),
    wrong={"driver-loaded": PROBLEM},
    commands={"driver-loaded": "modprobe nvidia"},
)
_SECURE = "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
situation(
    "secure boot refuses an unsigned module",
    lambda m: (
        m.os("ubuntu")
        .pci(["T4"], bound=None)
        .write(_SECURE, b"\x06\x00\x00\x00\x01")
        .write("/lib/modules/6.8.0-87-generic/updates/dkms/nvidia.ko", b"\x7fELF" + b"\0" * 100)
        .loads(None, None, [], found=False)
    ),
    wrong={"secure-boot": PROBLEM},
    commands={
        "secure-boot": ("mokutil --import /var/lib/shim-signed/mok/MOK.der", "dkms autoinstall --force")
    },
    says={"secure-boot": "is not signed"},
)
situation(
    "secure boot and a signed module that is not loaded",
    lambda m: (
        m.os("ubuntu")
        .pci(["T4"], bound=None)
        .write(_SECURE, b"\x06\x00\x00\x00\x01")
        .write(
            "/lib/modules/6.8.0-87-generic/updates/dkms/nvidia.ko", b"\x7fELF~Module signature appended~\n"
        )
        .loads(None, None, [], found=False)
    ),
    wrong=(("driver-loaded", PROBLEM), ("secure-boot", PROBLEM)),
    commands={"secure-boot": "mokutil --test-key"},
)
situation(
    "secure boot is off",
    lambda m: m.gpus(["T4"]).write(_SECURE, b"\x06\x00\x00\x00\x00"),
    fine=("driver-loaded",),
)
