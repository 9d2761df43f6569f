"""The rules: pure functions from facts to verdicts, in the order in which a reader wants them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from textnlp_fast.gpu.cuda_setup.facts import Facts
from textnlp_fast.gpu.cuda_setup.rules import (
    compatibility,
    containers,
    cuda_start,
    driver,
    environment,
    many_gpus,
    packages,
)
from textnlp_fast.gpu.cuda_setup.tables import SOURCES
from textnlp_fast.gpu.cuda_setup.verdicts import Verdict

__all__ = ["RULES", "Rule"]


@dataclass(frozen=True)
class Rule:
    """A rule by its name, with the group it is shown in and the document that it is made from."""

    name: str
    group: str
    judge: Callable[[Facts], Iterable[Verdict]]
    source: str = ""


_DRIVER, _CUDA, _PYTHON = "GPU and driver", "CUDA", "Python packages"
_ENVIRONMENT, _CONTAINERS, _MANY, _SYSTEM = "Environment", "Containers", "GPUs together", "System"

RULES: tuple[Rule, ...] = (
    Rule("gpu-present", _DRIVER, driver.gpu_present),
    Rule("nouveau", _DRIVER, driver.nouveau, SOURCES["modules"]),
    Rule("driver-loaded", _DRIVER, driver.driver_loaded),
    Rule("secure-boot", _DRIVER, driver.secure_boot, SOURCES["modules"]),
    Rule("driver-answers", _DRIVER, driver.driver_answers),
    Rule("driver-parts", _DRIVER, driver.driver_parts),
    Rule("driver-libraries", _DRIVER, driver.driver_libraries),
    Rule("module-flavour", _DRIVER, driver.module_flavour, SOURCES["modules"]),
    Rule("old-gpus", _DRIVER, driver.old_gpus, SOURCES["modules"]),
    Rule("device-files", _DRIVER, driver.device_files),
    Rule("cuda-starts", _DRIVER, cuda_start.cuda_starts, SOURCES["cuda_errors"]),
    Rule("toolkit-driver", _CUDA, compatibility.toolkit_and_driver, SOURCES["drivers"]),
    Rule("toolkit-gpu", _CUDA, compatibility.toolkit_and_gpu, SOURCES["architectures"]),
    Rule("forward-compatibility", _CUDA, compatibility.forward_compatibility, SOURCES["forward"]),
    Rule("torch-driver", _PYTHON, compatibility.torch_and_driver, SOURCES["minor"]),
    Rule("torch-gpu", _PYTHON, compatibility.torch_and_gpu, SOURCES["torch"]),
    Rule("torch-without-cuda", _PYTHON, compatibility.torch_without_cuda),
    Rule("torch-compiler", _PYTHON, compatibility.compiler_and_torch),
    Rule("torch-pins", _PYTHON, packages.torch_pins),
    Rule("cupy", _PYTHON, compatibility.cupy_and_driver, SOURCES["minor"]),
    Rule("jax", _PYTHON, compatibility.jax_and_driver, SOURCES["minor"]),
    Rule("runtime-wheels", _PYTHON, compatibility.runtime_wheels_and_driver, SOURCES["minor"]),
    Rule("vllm", _PYTHON, compatibility.vllm_and_torch),
    Rule("clashing-wheels", _PYTHON, packages.clashing_wheels),
    Rule("cudnn", _PYTHON, packages.cudnn_outside),
    Rule("nccl", _PYTHON, packages.nccl_outside),
    Rule("pynvml", _PYTHON, packages.pynvml),
    Rule("extras", _PYTHON, packages.extras),
    Rule("visible-devices", _ENVIRONMENT, environment.visible_devices),
    Rule("device-order", _ENVIRONMENT, environment.device_order),
    Rule("library-path", _ENVIRONMENT, environment.library_path),
    Rule("cuda-home", _ENVIRONMENT, environment.cuda_home),
    Rule("nvcc-on-path", _ENVIRONMENT, environment.nvcc_on_path),
    Rule("container-devices", _CONTAINERS, containers.container_devices),
    Rule("container-capabilities", _CONTAINERS, containers.container_capabilities),
    Rule("container-runtime", _CONTAINERS, containers.container_runtime),
    Rule("cdi", _CONTAINERS, containers.cdi_specs),
    Rule("container-toolkit", _CONTAINERS, containers.toolkit_version, SOURCES["toolkit"]),
    Rule("fabric-manager", _MANY, many_gpus.fabric_manager, SOURCES["fabric"]),
    Rule("mig", _MANY, many_gpus.mig),
    Rule("peers", _MANY, many_gpus.peers),
    Rule("iommu", _MANY, many_gpus.iommu, SOURCES["nccl"]),
    Rule("acs", _MANY, many_gpus.access_control, SOURCES["nccl"]),
    Rule("nccl-switches", _MANY, many_gpus.nccl_switches, SOURCES["nccl"]),
    Rule("persistence", _SYSTEM, many_gpus.persistence),
    Rule("shared-memory", _SYSTEM, many_gpus.shared_memory, SOURCES["nccl"]),
    Rule("locked-memory", _SYSTEM, many_gpus.locked_memory, SOURCES["nccl"]),
    Rule("huge-pages", _SYSTEM, many_gpus.huge_pages),
)
