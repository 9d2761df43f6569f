"""Puts together what the readers find."""

from __future__ import annotations

from dataclasses import fields, replace

from textnlp_fast.gpu.cuda_setup.facts import CudaFacts, Facts, Gpu, NvmlFacts
from textnlp_fast.gpu.cuda_setup.machine import Machine
from textnlp_fast.gpu.cuda_setup.probes.kernel import read_driver
from textnlp_fast.gpu.cuda_setup.probes.loading import ask_cuda, ask_nvml
from textnlp_fast.gpu.cuda_setup.probes.packages import (
    find_packages,
    read_conda,
    read_extras,
    read_pynvml,
    read_torch,
    read_vllm,
)
from textnlp_fast.gpu.cuda_setup.probes.smi import ask_smi
from textnlp_fast.gpu.cuda_setup.probes.system import (
    read_container,
    read_distribution,
    read_runtime,
    read_system,
)
from textnlp_fast.gpu.cuda_setup.probes.toolkits import (
    ask_nvcc,
    find_libraries,
    find_toolkits,
    search_paths,
)

__all__ = ["gather", "merge_gpus"]

_VARIABLES = (
    "CONDA_PREFIX",
    "CUDA_DEVICE_ORDER",
    "CUDA_HOME",
    "CUDA_PATH",
    "CUDA_VISIBLE_DEVICES",
    "LD_LIBRARY_PATH",
    "LD_PRELOAD",
    "NCCL_P2P_DISABLE",
    "NCCL_SHM_DISABLE",
    "NVIDIA_DRIVER_CAPABILITIES",
    "NVIDIA_VISIBLE_DEVICES",
    "VIRTUAL_ENV",
)


def gather(machine: Machine) -> Facts:
    """All facts of a machine. Changes nothing, needs no rights, imports no package that it looks at.

    A driver that hangs is asked once: the questions after it would wait as long.
    """
    distribution = read_distribution(machine)
    toolkits = find_toolkits(machine)
    libraries = find_libraries(machine, toolkits)
    driver = read_driver(machine, distribution, libraries)
    smi, seen_by_smi = ask_smi(machine)
    nvml, seen_by_nvml, cuda = _ask_libraries(machine, hangs=smi.timed_out)
    gpus = merge_gpus(seen_by_nvml, seen_by_smi)
    return Facts(
        distribution=distribution,
        driver=driver,
        smi=smi,
        nvml=nvml,
        cuda=cuda,
        gpus=gpus,
        toolkits=toolkits,
        nvcc=machine.which("nvcc"),
        nvcc_version=ask_nvcc(machine),
        libraries=tuple(one for one in libraries if one.name not in {"libcuda", "libnvidia-ml"}),
        packages=find_packages(machine),
        conda=read_conda(machine),
        conda_prefix=machine.environment.get("CONDA_PREFIX"),
        python=_python(machine),
        torch=read_torch(machine),
        vllm_cudart=read_vllm(machine),
        pynvml=read_pynvml(machine),
        container=read_container(machine),
        runtime=read_runtime(machine),
        system=read_system(machine, driver.gpus_on_bus),
        environment={name: machine.environment[name] for name in _VARIABLES if name in machine.environment},
        search_paths=search_paths(machine),
        homes={
            value: machine.real(value)
            for name in ("CUDA_HOME", "CUDA_PATH")
            if (value := machine.environment.get(name, "")).startswith("/") and machine.is_dir(value)
        },
        extras=read_extras(machine),
    )


def _python(machine: Machine) -> str:
    found = machine.which("python")
    # By their folder: in a virtual environment both are links to a Python elsewhere.
    if found is not None and found.rpartition("/")[0] == machine.python.rpartition("/")[0]:
        return "python"
    return machine.python


def _ask_libraries(machine: Machine, *, hangs: bool) -> tuple[NvmlFacts, tuple[Gpu, ...], CudaFacts]:
    if hangs:
        return NvmlFacts(), (), CudaFacts(found=None, message="not asked")
    nvml, gpus = ask_nvml(machine)
    return nvml, gpus, ask_cuda(machine)


def merge_gpus(first: tuple[Gpu, ...], second: tuple[Gpu, ...]) -> tuple[Gpu, ...]:
    """The GPUs by index: what the first reader does not know of one, the second may."""
    merged = {gpu.index: gpu for gpu in second}
    for gpu in first:
        other = merged.get(gpu.index)
        if other is None or (other.uuid and gpu.uuid and other.uuid != gpu.uuid):
            merged[gpu.index] = gpu
            continue
        empty = Gpu(index=gpu.index)
        known = {
            field.name: getattr(gpu, field.name)
            for field in fields(Gpu)
            if getattr(gpu, field.name) != getattr(empty, field.name)
        }
        merged[gpu.index] = replace(other, **known)
    return tuple(merged[index] for index in sorted(merged))
