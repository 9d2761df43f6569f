"""The commands that mend things, for the package manager that the machine has.

Names of packages are those of NVIDIA's own repositories, which are the same on Debian and Ubuntu, and of the Container
Toolkit's. Nothing here runs any of it.
"""

from __future__ import annotations

import shlex

from textnlp_fast.gpu.cuda_setup.facts import Distribution, Facts
from textnlp_fast.gpu.cuda_setup.tables import LAST_DRIVER_BEFORE_TURING, TURING
from textnlp_fast.gpu.cuda_setup.versions import Version

__all__ = [
    "add_repository",
    "cupy_for",
    "enrol_key",
    "export",
    "hold_driver",
    "install_container_toolkit",
    "install_driver",
    "install_fabric_manager",
    "install_forward_compatibility",
    "install_kernel_headers",
    "install_packages",
    "install_toolkit",
    "install_tools",
    "owners_of",
    "pip_install",
    "pip_uninstall",
    "quoted",
    "rebuild_boot_image",
    "torch_for",
    "without_folders",
]

_REPOSITORIES = "https://developer.download.nvidia.com/compute/cuda/repos"
_CONTAINERS = "https://nvidia.github.io/libnvidia-container"
_REBOOT = "sudo reboot"


def _architecture(distribution: Distribution) -> str:
    return "sbsa" if distribution.architecture in {"aarch64", "arm64"} else distribution.architecture


def _repository_name(distribution: Distribution) -> str | None:
    """The folder of NVIDIA's repository for a distribution: debian12, ubuntu2404, rhel9, fedora42, sles15."""
    major = distribution.version.partition(".")[0]
    if distribution.family == "ubuntu":
        # Mint, Pop and others call themselves like Ubuntu and count their own way.
        version = distribution.version.replace(".", "") if distribution.id == "ubuntu" else ""
        return f"ubuntu{version}" if version else None
    if distribution.family == "debian":
        return f"debian{major}" if distribution.id == "debian" and major else None
    if distribution.family == "suse":
        if distribution.id.startswith("opensuse"):
            return "opensuse15" if major == "15" else "suse16"
        return f"sles{major}" if major in {"12", "15"} else "suse16"
    prefix = {"rhel": "rhel", "fedora": "fedora", "amazon": "amzn"}.get(distribution.family)
    return f"{prefix}{major}" if prefix and major else None


def _modular(distribution: Distribution) -> bool:
    """Whether drivers come in dnf's module streams: RHEL before 10, Amazon Linux, Fedora before 41."""
    major = Version.parse(distribution.version)
    number = major.major if major else 0
    return (
        distribution.family == "amazon"
        or (distribution.family == "rhel" and number < 10)
        or (distribution.family == "fedora" and number < 41)
    )


def add_repository(distribution: Distribution) -> tuple[str, ...]:
    """NVIDIA's repository of drivers and CUDA; empty where it has none for this distribution."""
    name = _repository_name(distribution)
    if name is None:
        return ()
    place = f"{_REPOSITORIES}/{name}/{_architecture(distribution)}"
    if distribution.family in {"ubuntu", "debian"}:
        return (
            f"wget {place}/cuda-keyring_1.1-1_all.deb",
            "sudo dpkg -i cuda-keyring_1.1-1_all.deb",
            "sudo apt-get update",
        )
    if distribution.family == "suse":
        return (f"sudo zypper addrepo {place}/cuda-{name}.repo", "sudo zypper --gpg-auto-import-keys refresh")
    major = Version.parse(distribution.version)
    if distribution.family == "fedora" and major and major.major >= 41:
        return (f"sudo dnf config-manager addrepo --from-repofile={place}/cuda-{name}.repo",)
    return (f"sudo dnf config-manager --add-repo {place}/cuda-{name}.repo",)


def install_packages(distribution: Distribution, *names: str) -> tuple[str, ...]:
    """The command that installs packages by these names."""
    joined = " ".join(names)
    tool = {
        "ubuntu": "sudo apt-get install -y",
        "debian": "sudo apt-get install -y",
        "rhel": "sudo dnf install -y",
        "fedora": "sudo dnf install -y",
        "amazon": "sudo dnf install -y",
        "suse": "sudo zypper install -y",
        "arch": "sudo pacman -S --needed",
    }.get(distribution.family)
    return (f"{tool} {joined}",) if tool else ()


def install_driver(facts: Facts) -> tuple[str, ...]:
    """A driver that fits the GPUs: the open module from Turing on, R580's closed one for those before."""
    distribution = facts.distribution
    if distribution.wsl:
        # Windows' driver serves WSL; one for Linux would only hide it. What it lacks comes with its next start.
        return ("wsl.exe --update", "wsl.exe --shutdown")
    old = bool(facts.capabilities) and facts.capabilities[0] < TURING
    if distribution.family == "arch":
        return (*install_packages(distribution, "nvidia-open", "nvidia-utils"), _REBOOT)
    repository = add_repository(distribution)
    if not repository:
        if distribution.family in {"ubuntu", "debian"} and distribution.id != "debian":
            return ("sudo ubuntu-drivers install", _REBOOT)
        return ()
    if _modular(distribution):
        stream = f"{LAST_DRIVER_BEFORE_TURING}-dkms" if old else "open-dkms"
        return (
            *repository,
            "sudo dnf module reset -y nvidia-driver",
            f"sudo dnf module install -y nvidia-driver:{stream}",
            _REBOOT,
        )
    if not old:
        return (*repository, *install_packages(distribution, "nvidia-open"), _REBOOT)
    return (*repository, *_install_old_driver(distribution), _REBOOT)


def _install_old_driver(distribution: Distribution) -> tuple[str, ...]:
    """The closed driver of the last branch that drives GPUs before Turing, held there."""
    branch = LAST_DRIVER_BEFORE_TURING
    if distribution.family in {"ubuntu", "debian"}:
        return install_packages(distribution, f"cuda-drivers-{branch}")
    if distribution.family == "suse":
        return (f"sudo zypper install -y 'cuda-drivers<{branch + 1}'",)
    return (
        "sudo dnf install -y 'dnf-command(versionlock)'",
        f"sudo dnf versionlock add '*nvidia*{branch}*'",
        "sudo dnf install -y cuda-drivers",
    )


def install_fabric_manager(facts: Facts) -> tuple[str, ...]:
    """Fabric Manager of exactly the driver's version, and its service."""
    driver, distribution = facts.driver_version, facts.distribution
    start = ("sudo systemctl enable --now nvidia-fabricmanager",)
    if driver is None:
        return start
    # From R580 on the packages' names carry no branch.
    plain = driver.major >= 580
    if distribution.family in {"ubuntu", "debian"}:
        name = "nvidia-fabricmanager" if plain else f"nvidia-fabricmanager-{driver.major}"
        return (*add_repository(distribution), f"sudo apt-get install -y '{name}={driver}-*'", *start)
    if distribution.family in {"rhel", "fedora", "amazon"}:
        name = "nvidia-fabricmanager" if plain else "nvidia-fabric-manager"
        return (*add_repository(distribution), f"sudo dnf install -y '{name}-{driver}'", *start)
    if distribution.family == "suse":
        name = "nvidia-fabricmanager" if plain else "nvidia-fabric-manager"
        return (*add_repository(distribution), f"sudo zypper install -y '{name}={driver}'", *start)
    return start


def install_toolkit(facts: Facts, cuda: Version) -> tuple[str, ...]:
    """A toolkit of that release: into the active conda environment, or from NVIDIA's repository."""
    if facts.conda_prefix:
        return (f"conda install -y -c nvidia cuda-toolkit={cuda.short}",)
    name = f"cuda-toolkit-{cuda.major}-{cuda.minor}"
    repository = add_repository(facts.distribution)
    return (*repository, *install_packages(facts.distribution, name)) if repository else ()


def install_forward_compatibility(facts: Facts, cuda: Version) -> tuple[str, ...]:
    """The user's half of a newer driver; on data centre GPUs it runs on an older kernel module."""
    repository = add_repository(facts.distribution)
    if not repository:
        return ()
    package = f"cuda-compat-{cuda.major}-{cuda.minor}"
    folder = f"/usr/local/cuda-{cuda.short}/compat"
    return (
        *repository,
        *install_packages(facts.distribution, package),
        f'export LD_LIBRARY_PATH="{folder}${{LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}}"',
    )


def install_container_toolkit(distribution: Distribution) -> tuple[str, ...]:
    """The NVIDIA Container Toolkit from its own repository."""
    keyring = "/usr/share/keyrings/nvidia-container-toolkit-keyring.gpg"
    if distribution.family in {"ubuntu", "debian"}:
        return (
            f"curl -fsSL {_CONTAINERS}/gpgkey | sudo gpg --dearmor -o {keyring}",
            f"curl -fsSL {_CONTAINERS}/stable/deb/nvidia-container-toolkit.list "
            f"| sed 's#deb https://#deb [signed-by={keyring}] https://#g' "
            "| sudo tee /etc/apt/sources.list.d/nvidia-container-toolkit.list",
            "sudo apt-get update",
            "sudo apt-get install -y nvidia-container-toolkit",
        )
    repo = f"{_CONTAINERS}/stable/rpm/nvidia-container-toolkit.repo"
    if distribution.family in {"rhel", "fedora", "amazon"}:
        return (
            f"curl -fsSL {repo} | sudo tee /etc/yum.repos.d/nvidia-container-toolkit.repo",
            "sudo dnf install -y nvidia-container-toolkit",
        )
    if distribution.family == "suse":
        return (
            f"sudo zypper addrepo {repo}",
            "sudo zypper --gpg-auto-import-keys install -y nvidia-container-toolkit",
        )
    return install_packages(distribution, "nvidia-container-toolkit")


def rebuild_boot_image(distribution: Distribution) -> str:
    """The command that writes the kernel's first file system anew."""
    if distribution.family in {"ubuntu", "debian"}:
        return "sudo update-initramfs -u"
    return "sudo mkinitcpio -P" if distribution.family == "arch" else "sudo dracut --force"


def pip_install(facts: Facts, *arguments: str) -> str:
    """pip of the Python that was examined, and not of another one that the name `pip` may stand for."""
    return shlex.join([facts.python, "-m", "pip", "install", *arguments])


def pip_uninstall(facts: Facts, *names: str) -> str:
    """The same for what is to go."""
    return shlex.join([facts.python, "-m", "pip", "uninstall", "-y", *names])


def torch_for(facts: Facts) -> tuple[str, ...]:
    """The newest PyTorch whose CUDA this driver runs and whose kernels these GPUs run; empty if there is none."""
    driver = facts.driver_version
    if driver is None:
        return ()
    lowest, highest = (facts.capabilities or ((8, 0),))[0], (facts.capabilities or ((8, 0),))[-1]
    if driver.major >= 580 and lowest >= TURING:
        package, index = "torch", "cu130"
    elif driver.major >= 525 and lowest >= TURING and highest >= (10, 0):
        package, index = "torch<2.12", "cu128"  # the last releases with wheels for CUDA 12.8
    elif driver.major >= 525 and highest < (10, 0):
        package, index = "torch<2.15", "cu126"
    elif driver.major >= 450 and highest < (10, 0):
        package, index = "torch<2.8", "cu118"
    else:
        return ()
    return (
        pip_install(
            facts, "--force-reinstall", package, "--index-url", f"https://download.pytorch.org/whl/{index}"
        ),
    )


def quoted(*words: str) -> str:
    """Words as a shell reads them back."""
    return shlex.join(words)


def export(name: str, value: str) -> str:
    """The line that sets an environment variable."""
    return f"export {name}={shlex.quote(value)}"


def owners_of(facts: Facts, paths: list[str]) -> tuple[str, ...]:
    """Who owns files that should not be there, and their removal, one by one and asked for."""
    tool = {"debian": "dpkg -S", "ubuntu": "dpkg -S", "arch": "pacman -Qo"}.get(
        facts.distribution.family, "rpm -qf"
    )
    return (
        f"{tool} {quoted(*paths[:4])}",
        f"sudo rm -i {quoted(*paths[:4])}",
        "sudo ldconfig",
    )


def install_tools(facts: Facts) -> tuple[str, ...]:
    """The user's half of the driver: nvidia-smi and libcuda."""
    family, driver = facts.distribution.family, facts.driver.version
    if family == "ubuntu" and driver is not None:
        return (f"sudo apt-get install -y nvidia-utils-{driver.major} libnvidia-compute-{driver.major}",)
    if family == "debian":
        return ("sudo apt-get install -y nvidia-smi libcuda1",)
    if family in {"rhel", "fedora", "amazon"}:
        return ("sudo dnf install -y nvidia-driver-cuda",)
    if family == "suse":
        return ("sudo zypper install -y nvidia-compute-utils-G06",)
    return install_packages(facts.distribution, "nvidia-utils")


def install_kernel_headers(facts: Facts) -> tuple[str, ...]:
    """What the driver needs to be built for the running kernel."""
    family, kernel = facts.distribution.family, facts.distribution.kernel or "$(uname -r)"
    if family in {"debian", "ubuntu"}:
        return (f"sudo apt-get install -y linux-headers-{kernel}",)
    if family in {"rhel", "fedora", "amazon"}:
        return (f"sudo dnf install -y kernel-devel-{kernel}",)
    return ("sudo zypper install -y kernel-default-devel",) if family == "suse" else ()


def enrol_key(facts: Facts) -> tuple[str, ...]:
    """Makes the firmware trust the key that modules are signed with; the next start asks for the password."""
    key = (
        "/var/lib/shim-signed/mok/MOK.der"
        if facts.distribution.family == "ubuntu"
        else "/var/lib/dkms/mok.pub"
    )
    return (f"sudo mokutil --import {key}", "sudo reboot")


def hold_driver(facts: Facts) -> tuple[str, ...]:
    """Keeps the driver at the last branch that drives GPUs before Turing."""
    family = facts.distribution.family
    if family in {"debian", "ubuntu"}:
        return (f"sudo apt-get install -y nvidia-driver-pinning-{LAST_DRIVER_BEFORE_TURING}",)
    if family in {"rhel", "fedora", "amazon"}:
        return (
            "sudo dnf install -y 'dnf-command(versionlock)'",
            f"sudo dnf versionlock add '*nvidia*{LAST_DRIVER_BEFORE_TURING}*'",
        )
    return ("sudo zypper addlock 'nvidia*'",) if family == "suse" else ()


def without_folders(facts: Facts, *folders: str) -> str:
    """The export that keeps LD_LIBRARY_PATH but for some folders, by their real names, and what is none."""
    kept = [entry for entry, real in facts.search_paths.items() if real and real not in folders]
    return export("LD_LIBRARY_PATH", ":".join(kept)) if kept else "unset LD_LIBRARY_PATH"


def cupy_for(facts: Facts) -> str:
    """The package of CuPy whose CUDA this driver and these GPUs run."""
    driver = facts.driver_version
    old = bool(facts.capabilities) and facts.capabilities[0] < TURING
    if driver is not None and driver.major >= 580 and not old:
        return "cupy-cuda13x"
    return "cupy-cuda12x" if driver is None or driver.major >= 525 else "cupy-cuda11x"
