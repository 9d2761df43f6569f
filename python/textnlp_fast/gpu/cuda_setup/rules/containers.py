"""Rules about containers: this one, and those that are started here."""

from __future__ import annotations

from collections.abc import Iterator

from textnlp_fast.gpu.cuda_setup import remedies
from textnlp_fast.gpu.cuda_setup.facts import Facts
from textnlp_fast.gpu.cuda_setup.verdicts import Verdict, fine, problem, warning
from textnlp_fast.gpu.cuda_setup.versions import Version

__all__ = ["cdi_specs", "container_capabilities", "container_devices", "container_runtime", "toolkit_version"]

# The first version without CVE-2025-23266, by which a container takes over the machine.
_SAFE_TOOLKIT = Version((1, 17, 8), "1.17.8")
_ALL_GPUS = "docker run --rm --gpus all ubuntu nvidia-smi"


def container_devices(facts: Facts) -> Iterator[Verdict]:
    """This container was given the GPU that its host has."""
    if facts.container.inside is None or facts.distribution.wsl:
        return
    nodes = [name for name in facts.driver.device_files if name.removeprefix("/dev/nvidia").isdigit()]
    if nodes:
        yield fine(
            f"This container ({facts.container.inside}) was given {len(nodes)} GPU{'s' * (len(nodes) > 1)}.",
            evidence=nodes,
        )
        return
    # /proc and /sys show the host's driver and devices, whatever a container was given.
    if facts.driver.version is None and not facts.driver.gpus_on_bus:
        return
    hidden = facts.environment.get("NVIDIA_VISIBLE_DEVICES")
    why = (
        f"NVIDIA_VISIBLE_DEVICES is {hidden!r}, which gives none"
        if hidden in {"", "void", "none"}
        else "it was started without one"
    )
    commands: tuple[str, ...] = (_ALL_GPUS,)
    if facts.container.inside == "kubernetes":
        commands = (
            "kubectl run gpu-test --rm -it --restart=Never --image=ubuntu --overrides='"
            '{"spec":{"containers":[{"name":"gpu-test","image":"ubuntu","command":["nvidia-smi"],'
            '"resources":{"limits":{"nvidia.com/gpu":1}}}]}}\'',
        )
    elif facts.container.inside == "podman":
        commands = ("podman run --rm --device nvidia.com/gpu=all ubuntu nvidia-smi",)
    elif facts.container.inside == "apptainer":
        commands = ("apptainer exec --nv docker://ubuntu nvidia-smi",)
    yield problem(
        f"The host has a GPU, but this container ({facts.container.inside}) does not see it: {why}.",
        evidence=[
            f"the host's driver is {facts.driver.version}" if facts.driver.version else "a GPU is on the bus",
            "no /dev/nvidia0",
        ],
        commands=commands,
    )


def container_capabilities(facts: Facts) -> Iterator[Verdict]:
    """The container got the parts of the driver that CUDA needs, not its devices alone."""
    if facts.container.inside is None or not facts.driver.device_files:
        return
    given = facts.environment.get("NVIDIA_DRIVER_CAPABILITIES")
    lacks = given is not None and not {"all", "compute"} & {word.strip() for word in given.split(",")}
    if facts.cuda.found is False and (lacks or given is None):
        yield problem(
            "This container has the GPU's devices, but not the driver's libraries: libcuda.so.1 is missing.",
            evidence=[
                facts.cuda.message,
                f"NVIDIA_DRIVER_CAPABILITIES={given!r}"
                if given is not None
                else "NVIDIA_DRIVER_CAPABILITIES is not set",
            ],
            commands=(
                "docker run --rm --gpus all -e NVIDIA_DRIVER_CAPABILITIES=compute,utility ubuntu nvidia-smi",
            ),
        )


def container_runtime(facts: Facts) -> Iterator[Verdict]:
    """Docker and Podman can give a GPU to what they start."""
    runtime = facts.runtime
    if facts.container.inside or not (runtime.docker or runtime.podman):
        return
    if runtime.daemon_json_error is not None:
        yield problem(
            "/etc/docker/daemon.json is not JSON; Docker does not start with it.",
            evidence=[runtime.daemon_json_error],
            commands=("sudo dockerd --validate --config-file=/etc/docker/daemon.json",),
        )
        return
    if not facts.has_gpu:
        return
    configure = (
        "sudo nvidia-ctk runtime configure --runtime=docker",
        "sudo systemctl restart docker",
        _ALL_GPUS,
    )
    generate = ("sudo nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml",)
    install = remedies.install_container_toolkit(facts.distribution)
    if not runtime.toolkit_present:
        yield warning(
            f"{'Docker' if runtime.docker else 'Podman'} is installed, but not the NVIDIA Container Toolkit: "
            "containers get no GPU.",
            evidence=["no nvidia-ctk on PATH"],
            commands=(*install, *(configure if runtime.docker else generate)),
        )
    elif runtime.docker and not runtime.docker_has_nvidia and not runtime.cdi_specs:
        yield warning(
            "Docker does not know the runtime `nvidia`, and there is no CDI specification: containers get no GPU.",
            evidence=[
                "no runtime nvidia in /etc/docker/daemon.json",
                "no specification in /etc/cdi or /var/run/cdi",
            ],
            commands=configure,
        )
    elif runtime.podman and not runtime.docker and not runtime.cdi_specs:
        yield warning(
            "Podman finds GPUs by a CDI specification, and there is none.",
            evidence=["nothing of nvidia.com in /etc/cdi or /var/run/cdi"],
            commands=generate,
        )
    else:
        way = "the runtime nvidia" if runtime.docker_has_nvidia else "CDI"
        default = ", by default" if runtime.docker_default_nvidia else ""
        yield fine(f"Containers get GPUs by {way}{default} (toolkit {runtime.toolkit or 'of some version'}).")


def cdi_specs(facts: Facts) -> Iterator[Verdict]:
    """CDI specifications name the files of the driver that is there, not of the one before."""
    kernel, runtime = facts.driver.version, facts.runtime
    if not runtime.cdi_driver or kernel is None or facts.container.inside:
        return
    stale = [version for version in runtime.cdi_driver if version != kernel]
    if stale:
        yield problem(
            f"The CDI specification is of driver {stale[0]}, and {kernel} runs: containers do not start.",
            evidence=runtime.cdi_specs,
            commands=("sudo nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml", "nvidia-ctk cdi list"),
        )
    else:
        yield fine(f"The CDI specification is of the running driver, {kernel}.", evidence=runtime.cdi_specs)


def toolkit_version(facts: Facts) -> Iterator[Verdict]:
    """The Container Toolkit is not one by which containers take over the machine."""
    version = facts.runtime.toolkit
    if version is None or facts.container.inside or version >= _SAFE_TOOLKIT:
        return
    yield warning(
        f"NVIDIA Container Toolkit {version} lets a hostile image take over the machine (CVE-2025-23266); "
        f"{_SAFE_TOOLKIT} is the first that does not.",
        evidence=[f"nvidia-ctk {version}"],
        commands=remedies.install_container_toolkit(facts.distribution),
    )
