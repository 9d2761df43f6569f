"""Rules about the GPU and its driver: is there one, does it run, do its parts fit each other."""

from __future__ import annotations

from collections.abc import Iterator

from textnlp_fast.gpu.cuda_setup import remedies
from textnlp_fast.gpu.cuda_setup.facts import Facts
from textnlp_fast.gpu.cuda_setup.tables import LAST_DRIVER_BEFORE_TURING, TURING
from textnlp_fast.gpu.cuda_setup.verdicts import Verdict, fine, problem, unknown, warning
from textnlp_fast.gpu.cuda_setup.versions import Version

__all__ = [
    "device_files",
    "driver_answers",
    "driver_libraries",
    "driver_loaded",
    "driver_parts",
    "gpu_present",
    "module_flavour",
    "nouveau",
    "old_gpus",
    "secure_boot",
]

_BLACKWELL = (10, 0)


def gpu_present(facts: Facts) -> Iterator[Verdict]:
    """Whether there is any NVIDIA GPU. That there is none is no fault of the machine."""
    if facts.gpus:
        counts: dict[str, int] = {}
        for gpu in facts.gpus:
            memory = f", {gpu.memory_bytes / (1 << 30):.0f} GiB" if gpu.memory_bytes else ""
            capability = (
                f", compute capability {_dotted(gpu.compute_capability)}" if gpu.compute_capability else ""
            )
            kind = f"{gpu.name}{memory}{capability}"
            counts[kind] = counts.get(kind, 0) + 1
        kinds = " and ".join(f"{count} x {kind}" for kind, count in counts.items())
        yield fine(
            f"The driver shows {kinds}.",
            evidence=[f"GPU {gpu.index}: {gpu.uuid}, {gpu.pci_bus_id}" for gpu in facts.gpus if gpu.uuid],
        )
    elif facts.driver.gpus_on_bus:
        yield fine(
            f"{_count(len(facts.driver.gpus_on_bus), 'NVIDIA GPU')} on the bus, which no driver shows.",
            evidence=[f"PCI {one.address}: 10de:{one.device_id:04x}" for one in facts.driver.gpus_on_bus],
        )
    elif facts.driver.device_files or facts.smi.present:
        yield unknown(
            "There are traces of a driver, but no GPU is seen.",
            evidence=[*facts.driver.device_files, facts.smi.message]
            if facts.smi.message
            else [*facts.driver.device_files],
        )
    else:
        yield fine(
            "This machine has no NVIDIA GPU; everything here runs on the processor.",
            evidence=["no device of vendor 10de on the PCI bus", "no nvidia-smi"],
        )


def nouveau(facts: Facts) -> Iterator[Verdict]:
    """The free driver of the kernel holds the GPU, which has no CUDA."""
    if not facts.driver.nouveau:
        return
    commands = (
        "printf 'blacklist nouveau\\noptions nouveau modeset=0\\n' | sudo tee /etc/modprobe.d/blacklist-nouveau.conf",
        remedies.rebuild_boot_image(facts.distribution),
        "sudo reboot",
    )
    held = [one.address for one in facts.driver.gpus_on_bus if one.kernel_driver == "nouveau"]
    if held or facts.driver.version is None:
        yield problem(
            "The kernel's own driver, nouveau, holds the GPU: NVIDIA's cannot take it, and CUDA does not run.",
            evidence=[
                "module nouveau is loaded",
                *(f"PCI {address} is bound to nouveau" for address in held),
            ],
            commands=commands,
        )
    else:
        yield warning(
            "nouveau is loaded beside NVIDIA's driver; after a restart it may be the one that takes the GPU.",
            evidence=["module nouveau is loaded"],
            commands=commands,
        )


def driver_loaded(facts: Facts) -> Iterator[Verdict]:
    """NVIDIA's module is in the kernel, or why not."""
    driver, distribution = facts.driver, facts.distribution
    if driver.version is not None:
        flavour = {True: "open module", False: "closed module", None: "kind of module not known"}
        yield fine(f"The driver is loaded: {driver.version}, {flavour[driver.open_module]}.")
        return
    if distribution.wsl or facts.container.inside or not driver.gpus_on_bus or driver.nouveau:
        return
    evidence = [f"PCI {one.address} has no driver" for one in driver.gpus_on_bus if not one.kernel_driver]
    if driver.other_kernels and not driver.module_path:
        yield problem(
            f"The driver was built for another kernel than the running {distribution.kernel}.",
            evidence=[*evidence, f"nvidia.ko is there for {', '.join(driver.other_kernels[:3])}"],
            commands=(
                *remedies.install_kernel_headers(facts),
                "sudo dkms autoinstall",
                "sudo modprobe nvidia",
            ),
        )
    elif driver.module_path and not (driver.secure_boot and driver.module_signed is not True):
        yield problem(
            "The driver is installed, but the kernel has not loaded it.",
            evidence=[*evidence, f"{driver.module_path} is there"],
            commands=("sudo modprobe nvidia", "sudo dmesg | grep -i nvrm"),
        )
    elif not driver.module_path:
        yield problem(
            "No NVIDIA driver is installed for this GPU.",
            evidence=[*evidence, f"no nvidia.ko below /lib/modules/{distribution.kernel or '?'}"],
            commands=remedies.install_driver(facts),
        )


def secure_boot(facts: Facts) -> Iterator[Verdict]:
    """Secure boot refuses modules whose key the firmware does not know."""
    driver = facts.driver
    if (
        not driver.secure_boot
        or driver.version is not None
        or not driver.module_path
        or facts.container.inside
    ):
        return
    if driver.module_signed:
        yield problem(
            "Secure boot is on and the driver is signed, but with a key that the firmware may not know.",
            evidence=["SecureBoot is 1", f"{driver.module_path} is signed", "the module is not loaded"],
            commands=("sudo mokutil --test-key /var/lib/shim-signed/mok/MOK.der", *remedies.enrol_key(facts)),
        )
    else:
        signed = "is not signed" if driver.module_signed is False else "may not be signed"
        yield problem(
            f"Secure boot is on and the driver {signed}: the kernel refuses it.",
            evidence=["SecureBoot is 1", driver.module_path, "the module is not loaded"],
            commands=(*remedies.enrol_key(facts), "sudo dkms autoinstall --force"),
        )


def driver_answers(facts: Facts) -> Iterator[Verdict]:
    """nvidia-smi works, or says why it does not."""
    smi, message = facts.smi, facts.smi.message
    if smi.ok and facts.gpus:
        yield fine(f"nvidia-smi answers: driver {smi.driver}, CUDA up to {smi.cuda}.")
    elif smi.stuck:
        yield problem(
            "The driver hangs: nvidia-smi waits in the kernel and cannot even be killed.",
            evidence=[message],
            commands=("sudo dmesg | grep -iE 'nvrm|xid'", "sudo reboot"),
        )
    elif smi.timed_out:
        yield problem(
            "nvidia-smi does not answer: the driver hangs, or a GPU takes very long to wake up.",
            evidence=[message],
            commands=("sudo dmesg | grep -iE 'nvrm|xid'", "sudo systemctl enable --now nvidia-persistenced"),
        )
    elif "version mismatch" in message or (
        facts.driver.version is None and smi.present and not facts.driver.pci
    ):
        return  # driver-parts and gpu-present say it
    elif "Unknown Error" in message and facts.container.inside:
        yield problem(
            "This container has lost its GPU: systemd was reloaded and took the rights to the devices away.",
            evidence=[message],
            commands=(
                "sudo nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml",
                "docker run --rm --device nvidia.com/gpu=all ubuntu nvidia-smi",
            ),
        )
    elif "GPU is lost" in message or "fallen off the bus" in message or "device handle" in message:
        yield problem(
            "A GPU is lost: it no longer answers on the bus.",
            evidence=[message],
            commands=("sudo dmesg | grep -iE 'nvrm|xid'", "sudo reboot"),
        )
    elif smi.present and message and facts.driver.version is not None:
        yield problem(
            "The driver is loaded, but nvidia-smi fails.",
            evidence=[message],
            commands=("sudo dmesg | grep -iE 'nvrm|xid'",),
        )
    elif (
        facts.driver.version is not None and not smi.present and not facts.gpus and not facts.container.inside
    ):
        yield warning(
            "The driver is loaded, but its tools (nvidia-smi) are not installed.",
            evidence=["no nvidia-smi on PATH"],
            commands=remedies.install_tools(facts),
        )


def driver_parts(facts: Facts) -> Iterator[Verdict]:
    """The module in the kernel and the libraries of the programs are of one version."""
    kernel = facts.driver.version
    system = [one for one in facts.driver.libraries if one.place == "system" and _full(one.version)]
    others = sorted(
        {one.version for one in system if one.version is not None and kernel and one.version != kernel}
    )
    mismatch = "version mismatch" in facts.smi.message or facts.nvml.code == 18
    same = any(one.version == kernel for one in system)
    if mismatch or (kernel is not None and others and not same):
        yield problem(
            "The driver's libraries are of another version than its module in the kernel: it was updated, "
            "but the old module still runs.",
            evidence=[
                f"module {kernel or 'not known'}",
                *(f"{one.path}" for one in system),
                *([facts.smi.message] if mismatch and facts.smi.message else []),
            ],
            commands=("sudo reboot",),
        )
    elif kernel is not None and same and not others:
        yield fine(f"The module and the libraries of the driver are both {kernel}.")


def driver_libraries(facts: Facts) -> Iterator[Verdict]:
    """One version of libcuda and of libnvidia-ml, and no stub before it."""
    stubs = [one for one in facts.driver.libraries if one.place == "stubs"]
    if stubs and facts.has_gpu:
        yield problem(
            "LD_LIBRARY_PATH leads to CUDA's stubs, which are for linking only: programs load them as the driver.",
            evidence=[one.path for one in stubs],
            commands=(remedies.without_folders(facts, *{one.folder for one in stubs}),),
        )
    versions: dict[Version, list[str]] = {}
    for one in facts.driver.libraries:
        if (
            one.place in {"system", "wsl", "ld-library-path"}
            and one.version is not None
            and _full(one.version)
        ):
            versions.setdefault(one.version, []).append(one.path)
    if facts.distribution.wsl and any(one.place == "system" for one in facts.driver.libraries):
        yield problem(
            "A Linux driver is installed in WSL and hides the one that Windows lends.",
            evidence=[one.path for one in facts.driver.libraries],
            commands=("sudo apt-get remove -y --purge '^nvidia-.*' '^libnvidia-.*'", "sudo ldconfig"),
        )
    elif len(versions) > 1:
        kernel = facts.driver.version
        wrong = [path for version, paths in versions.items() if version != kernel for path in paths]
        yield problem(
            f"There are driver libraries of {len(versions)} versions; which one a program loads is chance.",
            evidence=[path for paths in versions.values() for path in paths],
            commands=remedies.owners_of(
                facts, wrong or [path for paths in versions.values() for path in paths]
            ),
        )


def module_flavour(facts: Facts) -> Iterator[Verdict]:
    """Blackwell needs the open module; what came before Turing needs the closed one."""
    flavour, capabilities = facts.driver.open_module, facts.capabilities
    if flavour is None or not capabilities:
        return
    if flavour is False and capabilities[-1] >= _BLACKWELL:
        yield problem(
            "Blackwell and later GPUs run with the open kernel module only, and the closed one is loaded.",
            evidence=[
                f"compute capability {_dotted(capabilities[-1])}",
                f"driver {facts.driver.version}, closed",
            ],
            commands=remedies.install_driver(facts),
        )
    elif flavour is True and capabilities[0] < TURING:
        yield problem(
            "GPUs before Turing run with the closed kernel module only, and the open one is loaded.",
            evidence=[
                f"compute capability {_dotted(capabilities[0])}",
                f"driver {facts.driver.version}, open",
            ],
            commands=remedies.install_driver(facts),
        )


def old_gpus(facts: Facts) -> Iterator[Verdict]:
    """No driver after R580 drives GPUs from before Turing."""
    driver, capabilities = facts.driver_version, facts.capabilities
    if driver is None or not capabilities or capabilities[0] >= TURING:
        return
    if driver.major > LAST_DRIVER_BEFORE_TURING:
        yield problem(
            f"Driver {driver} no longer drives GPUs from before Turing; R{LAST_DRIVER_BEFORE_TURING} is the last.",
            evidence=[f"compute capability {_dotted(capabilities[0])}"],
            commands=remedies.install_driver(facts),
        )
    else:
        yield warning(
            f"For this GPU R{LAST_DRIVER_BEFORE_TURING} and CUDA 12 are the last: keep the driver at that branch.",
            evidence=[f"compute capability {_dotted(capabilities[0])}"],
            commands=remedies.hold_driver(facts),
        )


def device_files(facts: Facts) -> Iterator[Verdict]:
    """/dev/nvidia* is there and this user may open it."""
    files = facts.driver.device_files
    if facts.driver.version is None or facts.distribution.wsl or (facts.container.inside and not files):
        return
    needed = {"/dev/nvidiactl", "/dev/nvidia-uvm"}
    missing = sorted(needed - files.keys())
    denied = sorted(name for name, allowed in files.items() if not allowed and "nvswitch" not in name)
    if missing:
        yield problem(
            f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing; CUDA cannot reach the driver.",
            evidence=[f"there: {', '.join(files) or 'none of /dev/nvidia*'}"],
            commands=("sudo nvidia-modprobe -u -c=0",),
        )
    elif denied:
        yield problem(
            "This user may not open the GPU's device files.",
            evidence=denied,
            commands=('sudo usermod -aG video,render "$USER"', "newgrp video"),
        )
    else:
        yield fine("The GPU's device files are there, and this user may open them.")


def _full(version: Version | None) -> bool:
    """Whether it is a driver's version (550.54.14), not a library's own (1)."""
    return version is not None and len(version.parts) > 1


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _dotted(capability: tuple[int, int]) -> str:
    return f"{capability[0]}.{capability[1]}"
