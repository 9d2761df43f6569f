"""Containers, and what starts them."""

from __future__ import annotations

from fakes.cuda_machine.machine import CudaMachine
from fakes.cuda_machine.situations.table import PROBLEM, WARNING, situation

_HOST = '{"runtimes": {"nvidia": {"args": [], "path": "nvidia-container-runtime"}}}'


def _in_container(machine: CudaMachine, *, nodes: bool, models: list[str] | None = None) -> CudaMachine:
    machine.os("ubuntu").pci(models or ["T4"]).module("580.95.05").write("/.dockerenv")
    machine.loads(None, None, [], found=False)
    return machine.nodes(1) if nodes else machine


situation(
    "a container that got no GPU",
    lambda m: _in_container(m, nodes=False),
    wrong={"container-devices": PROBLEM},
    fine=("gpu-present",),
    commands={"container-devices": "docker run --rm --gpus all"},
)
situation(
    "a container that NVIDIA_VISIBLE_DEVICES gives none",
    lambda m: _in_container(m, nodes=False).set(NVIDIA_VISIBLE_DEVICES="void"),
    wrong={"container-devices": PROBLEM},
    says={"container-devices": "'void'"},
)
situation(
    "a pod that got no GPU",
    lambda m: _in_container(m, nodes=False).set(KUBERNETES_SERVICE_HOST="10.0.0.1"),
    wrong={"container-devices": PROBLEM},
    commands={"container-devices": "kubectl run"},
)
situation(
    "a Podman container that got no GPU",
    lambda m: _in_container(m, nodes=False).write("/run/.containerenv"),
    wrong={"container-devices": PROBLEM},
    commands={"container-devices": "podman run --rm --device nvidia.com/gpu=all"},
)
situation(
    "an Apptainer container that got no GPU",
    lambda m: (
        _in_container(m, nodes=False).set(SINGULARITY_CONTAINER="/x.sif"),
        (m.root / ".dockerenv").unlink(),
    ),
    wrong={"container-devices": PROBLEM},
    commands={"container-devices": "apptainer exec --nv"},
)
situation(
    "a container with devices and without libraries",
    lambda m: _in_container(m, nodes=True).set(NVIDIA_DRIVER_CAPABILITIES="graphics"),
    wrong={"container-capabilities": PROBLEM},
    fine=("container-devices", "device-files"),
    commands={"container-capabilities": "NVIDIA_DRIVER_CAPABILITIES=compute,utility"},
)
situation(
    "a container that lost its GPU",
    lambda m: (
        _in_container(m, nodes=True)
        .libraries("580.95.05")
        .child("cuda", {"found": True, "code": 100, "version": 13000})
        .command("nvidia-smi", "-q", status=255, output="Failed to initialize NVML: Unknown Error\n")
    ),
    wrong={"driver-answers": PROBLEM, "cuda-starts": PROBLEM},
    commands={"driver-answers": "nvidia-ctk cdi generate"},
)
situation(
    "a healthy container with little shared memory",
    lambda m: (m.gpus(["T4"]).write("/.dockerenv"), m.space.update({"/dev/shm": 64 << 20})),
    wrong={"shared-memory": WARNING},
    fine=("container-devices",),
    commands={"shared-memory": "--shm-size=16g"},
)
situation(
    "a container with several GPUs and little shared memory",
    lambda m: (
        m.gpus(["A100", "A100"], link="NV12").write("/.dockerenv"),
        m.space.update({"/dev/shm": 64 << 20}),
    ),
    wrong={"shared-memory": PROBLEM},
    says={"shared-memory": "64 MiB"},
)
situation(
    "Docker without the toolkit",
    lambda m: m.gpus(["T4"]).command("docker", "--version"),
    wrong={"container-runtime": WARNING},
    commands={
        "container-runtime": (
            "apt-get install -y nvidia-container-toolkit",
            "nvidia-ctk runtime configure --runtime=docker",
        )
    },
)
situation(
    "Docker without the toolkit, on Rocky",
    lambda m: m.gpus(["T4"], os="rhel9").command("docker", "--version"),
    wrong={"container-runtime": WARNING},
    commands={"container-runtime": "dnf install -y nvidia-container-toolkit"},
)
situation(
    "Docker that does not know the runtime",
    lambda m: (
        m.gpus(["T4"])
        .command("docker", "--version")
        .command("nvidia-ctk", "--version", output="NVIDIA Container Toolkit CLI version 1.18.0\n")
        .write("/etc/docker/daemon.json", '{"log-driver": "journald"}')
    ),
    wrong={"container-runtime": WARNING},
    commands={"container-runtime": "systemctl restart docker"},
)
situation(
    "Docker with the runtime",
    lambda m: (
        m.gpus(["T4"])
        .command("docker", "--version")
        .command("nvidia-ctk", "--version", output="NVIDIA Container Toolkit CLI version 1.18.0\n")
        .write("/etc/docker/daemon.json", _HOST)
    ),
    fine=("container-runtime",),
)
situation(
    "Docker's settings are no JSON",
    lambda m: m.gpus(["T4"]).command("docker", "--version").write("/etc/docker/daemon.json", _HOST[:-1]),
    wrong={"container-runtime": PROBLEM},
    commands={"container-runtime": "dockerd --validate"},
)
situation(
    "Podman without CDI",
    lambda m: (
        m.gpus(["T4"])
        .command("podman", "--version")
        .command("nvidia-ctk", "--version", output="NVIDIA Container Toolkit CLI version 1.18.0\n")
    ),
    wrong={"container-runtime": WARNING},
    commands={"container-runtime": "nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml"},
)
_CDI = """---
cdiVersion: 0.5.0
kind: nvidia.com/gpu
containerEdits:
  mounts:
  - containerPath: /usr/lib/x86_64-linux-gnu/libcuda.so.{0}
    hostPath: /usr/lib/x86_64-linux-gnu/libcuda.so.{0}
"""
situation(
    "CDI of the driver before",
    lambda m: (
        m.gpus(["T4"])
        .command("podman", "--version")
        .command("nvidia-ctk", "--version", output="NVIDIA Container Toolkit CLI version 1.18.0\n")
        .write("/etc/cdi/nvidia.yaml", _CDI.format("550.54.14"))
    ),
    wrong={"cdi": PROBLEM},
    fine=("container-runtime",),
)
situation(
    "CDI of the running driver",
    lambda m: (
        m.gpus(["T4"])
        .command("podman", "--version")
        .command("nvidia-ctk", "--version", output="NVIDIA Container Toolkit CLI version 1.18.0\n")
        .write("/etc/cdi/nvidia.yaml", _CDI.format("580.95.05"))
    ),
    fine=("container-runtime", "cdi"),
)
situation(
    "a Container Toolkit with a hole",
    lambda m: m.gpus(["T4"]).command(
        "nvidia-ctk",
        "--version",
        output="NVIDIA Container Toolkit CLI version 1.17.4\ncommit: 9b69590c7428470a72f2ae05f826412976af1395\n",
    ),
    wrong={"container-toolkit": WARNING},
    says={"container-toolkit": "CVE-2025-23266"},
)
