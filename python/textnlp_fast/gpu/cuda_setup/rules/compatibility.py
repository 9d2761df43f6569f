"""Rules about what runs on what: driver and CUDA, GPU and kernels, compiler and PyTorch."""

from __future__ import annotations

import re
from collections.abc import Iterator

from textnlp_fast.gpu.cuda_setup import remedies
from textnlp_fast.gpu.cuda_setup.facts import Facts
from textnlp_fast.gpu.cuda_setup.tables import (
    cuda_range_of,
    driver_of_release,
    minimum_driver,
    newest_release_for,
)
from textnlp_fast.gpu.cuda_setup.verdicts import Verdict, fine, problem, unknown, warning
from textnlp_fast.gpu.cuda_setup.versions import Version

__all__ = [
    "compiler_and_torch",
    "cupy_and_driver",
    "forward_compatibility",
    "jax_and_driver",
    "runtime_wheels_and_driver",
    "toolkit_and_driver",
    "toolkit_and_gpu",
    "torch_and_driver",
    "torch_and_gpu",
    "torch_without_cuda",
    "vllm_and_torch",
]


def toolkit_and_driver(facts: Facts) -> Iterator[Verdict]:
    """Programs that a toolkit builds run on this driver."""
    for toolkit in facts.toolkits:
        if toolkit.version is None or not (toolkit.has_nvcc or toolkit.has_runtime):
            continue
        if not facts.has_gpu and facts.driver_version is None:
            yield fine(
                f"CUDA {toolkit.version.short} is in {toolkit.path}; there is no driver to run what it makes."
            )
            continue
        yield from _run_on_driver(
            facts,
            f"what CUDA {toolkit.version.short} in {toolkit.path} compiles"
            if toolkit.has_nvcc
            else f"what loads CUDA {toolkit.version.short} from {toolkit.path}",
            toolkit.version,
            exact=toolkit.has_nvcc,
            commands=_older_toolkit(facts),
        )


def _older_toolkit(facts: Facts) -> tuple[str, ...]:
    """The newest toolkit for the driver that is there; with none, a newer driver."""
    fitting = newest_release_for(facts.driver_version) if facts.driver_version else None
    return remedies.install_toolkit(facts, fitting) if fitting else remedies.install_driver(facts)


def torch_and_driver(facts: Facts) -> Iterator[Verdict]:
    """The CUDA that PyTorch brings runs on this driver."""
    torch = facts.torch
    if torch is not None and torch.cuda is not None and facts.has_gpu:
        yield from _run_on_driver(
            facts,
            f"PyTorch {torch.version} (CUDA {torch.cuda})",
            torch.cuda,
            commands=(*remedies.torch_for(facts), *_or_driver(facts)),
        )


def cupy_and_driver(facts: Facts) -> Iterator[Verdict]:
    """CuPy's CUDA runs on this driver, and there is only one CuPy."""
    found = {
        name: version
        for name in facts.packages
        if (version := _cupy_version(name)) is not None or name == "cupy"
    }
    if len(found) > 1:
        newest = max(found, key=lambda name: found[name] or Version.of_number(0))
        yield problem(
            "Several builds of CuPy are installed, which overwrite each other's files.",
            evidence=[f"{name} {facts.packages[name].version}" for name in sorted(found)],
            commands=(
                remedies.pip_uninstall(facts, *sorted(found)),
                remedies.pip_install(
                    facts, newest if facts.driver_version is None else remedies.cupy_for(facts)
                ),
            ),
        )
    elif found and facts.has_gpu:
        ((name, version),) = found.items()
        if version is not None:
            yield from _run_on_driver(
                facts,
                name,
                version,
                commands=(
                    remedies.pip_uninstall(facts, name),
                    remedies.pip_install(facts, remedies.cupy_for(facts)),
                ),
            )


def jax_and_driver(facts: Facts) -> Iterator[Verdict]:
    """JAX's plugin for CUDA runs on this driver."""
    for name, package in facts.packages.items():
        match = re.fullmatch(r"jax-cuda(\d{2})-plugin", name)
        if match is None or not facts.has_gpu:
            continue
        fallback = "cuda12" if facts.driver_version and facts.driver_version.major < 580 else "cuda13"
        yield from _run_on_driver(
            facts,
            f"{name} {package.version}",
            Version.of_number(int(match[1]) * 1000),
            commands=(
                remedies.pip_uninstall(facts, name, name.replace("plugin", "pjrt")),
                remedies.pip_install(facts, "--upgrade", f"jax[{fallback}]"),
            ),
        )


def runtime_wheels_and_driver(facts: Facts) -> Iterator[Verdict]:
    """The CUDA runtime that pip installed runs on this driver, where it is not PyTorch's anyway."""
    if not facts.has_gpu or (facts.torch is not None and facts.torch.cuda is not None):
        return
    for name, package in facts.packages.items():
        if re.fullmatch(r"nvidia-cuda-runtime(-cu\d\d)?", name) and package.parsed is not None:
            driver = facts.driver_version
            older = (
                "nvidia-cuda-runtime-cu12"
                if driver is None or driver.major >= 525
                else "nvidia-cuda-runtime-cu11"
            )
            yield from _run_on_driver(
                facts,
                f"{name} {package.version}",
                package.parsed,
                commands=(remedies.pip_uninstall(facts, name), remedies.pip_install(facts, older)),
            )


def vllm_and_torch(facts: Facts) -> Iterator[Verdict]:
    """vLLM has the PyTorch that it was built with, and that one's CUDA."""
    vllm = facts.packages.get("vllm")
    if vllm is None:
        return
    reinstall = (remedies.pip_install(facts, "--force-reinstall", f"vllm=={vllm.version.partition('+')[0]}"),)
    wanted = next((match[1] for line in vllm.requires if (match := _exact("torch", line))), None)
    have = facts.torch.version if facts.torch else None
    if have is None:
        yield problem(
            "vLLM is installed without PyTorch.", evidence=[f"vllm {vllm.version}"], commands=reinstall
        )
    elif wanted is not None and Version.parse(wanted) != Version.parse(have):
        yield problem(
            f"vLLM {vllm.version} was built for PyTorch {wanted}, and {have} is installed: its kernels do not load.",
            evidence=[f"vllm {vllm.version} requires torch=={wanted}", f"torch {have}"],
            commands=reinstall,
        )
    elif (
        facts.torch
        and facts.torch.cuda
        and facts.vllm_cudart is not None
        and facts.vllm_cudart != facts.torch.cuda.major
    ):
        yield problem(
            f"vLLM's kernels ask for CUDA {facts.vllm_cudart}, and PyTorch brings CUDA {facts.torch.cuda}.",
            evidence=[f"vllm/_C.abi3.so needs libcudart.so.{facts.vllm_cudart}", f"torch {have}"],
            commands=reinstall,
        )
    elif facts.torch and facts.torch.cuda:
        yield fine(f"vLLM {vllm.version} has the PyTorch that it was built for, {have}.")


def torch_without_cuda(facts: Facts) -> Iterator[Verdict]:
    """A machine with a GPU has a PyTorch that can use it."""
    torch = facts.torch
    if torch is None or torch.cuda is not None or not facts.has_gpu:
        return
    kind = "AMD GPUs" if torch.hip else "the processor alone"
    yield warning(
        f"PyTorch {torch.version} is built for {kind}; it does not see this GPU.",
        evidence=[f"{torch.location}/version.py: cuda = None"],
        commands=remedies.torch_for(facts),
    )


def torch_and_gpu(facts: Facts) -> Iterator[Verdict]:
    """PyTorch's kernels are compiled for these GPUs, as machine code or as PTX."""
    torch = facts.torch
    if torch is None or torch.cuda is None or not facts.capabilities:
        return
    if not torch.architectures:
        yield unknown(
            f"What PyTorch {torch.version} is compiled for could not be found out.",
            evidence=[f"neither in {torch.location}/lib nor in the table of its releases"],
            commands=(
                f"{remedies.quoted(facts.python)} -c 'import torch; print(torch.cuda.get_arch_list())'",
            ),
        )
        return
    compiled = " ".join(torch.architectures)
    source = "its library" if torch.architectures_from == "library" else "the table of its releases"
    for capability in facts.capabilities:
        shown = f"{capability[0]}.{capability[1]}"
        how = runs_on(capability, torch.architectures)
        evidence = [f"compute capability {shown}", f"compiled for {compiled} (by {source})"]
        if how == "native":
            yield fine(
                f"PyTorch {torch.version} has kernels for compute capability {shown}.", evidence=evidence
            )
        elif how == "ptx":
            needed = driver_of_release(torch.cuda)
            if needed and facts.driver_version and facts.driver_version < needed:
                yield problem(
                    f"PyTorch's kernels for {shown} must be compiled by a driver of {needed} or newer.",
                    evidence=[*evidence, f"driver {facts.driver_version}"],
                    commands=remedies.install_driver(facts),
                )
            else:
                yield warning(
                    f"PyTorch {torch.version} has no kernels for {shown}: the driver compiles them when first used.",
                    evidence=evidence,
                    commands=remedies.torch_for(facts),
                )
        else:
            yield problem(
                f"PyTorch {torch.version} has no kernels for compute capability {shown} "
                "(no kernel image is available for execution on the device).",
                evidence=evidence,
                commands=remedies.torch_for(facts),
            )


def toolkit_and_gpu(facts: Facts) -> Iterator[Verdict]:
    """The compiler knows these GPUs."""
    toolkit = next((one for one in facts.toolkits if one.has_nvcc and one.version), None)
    version = facts.nvcc_version or (toolkit.version if toolkit else None)
    if version is None:
        return
    for capability in facts.capabilities:
        first, last = cuda_range_of(capability)
        shown = f"{capability[0]}.{capability[1]}"
        if last is not None and version.major > last:
            yield problem(
                f"CUDA {version.short} no longer compiles for compute capability {shown}.",
                evidence=[f"nvcc {version}", f"CUDA {last} is the last that does"],
                commands=remedies.install_toolkit(facts, Version.of_number(12090)),
            )
        elif first is not None and (version.major, version.minor) < first:
            needed = Version.of_number(first[0] * 1000 + first[1] * 10)
            yield problem(
                f"CUDA {version.short} does not compile for compute capability {shown} yet; {needed} is the first.",
                evidence=[f"nvcc {version}"],
                commands=remedies.install_toolkit(facts, needed),
            )
        elif first is not None:
            yield fine(f"nvcc {version} compiles for compute capability {shown}.")


def compiler_and_torch(facts: Facts) -> Iterator[Verdict]:
    """Extensions of PyTorch are compiled by the CUDA that PyTorch was."""
    torch = facts.torch
    if torch is None or torch.cuda is None or facts.nvcc_version is None:
        return
    if facts.nvcc_version.major != torch.cuda.major:
        yield warning(
            f"nvcc is of CUDA {facts.nvcc_version.short} and PyTorch of {torch.cuda.short}: "
            "PyTorch refuses to compile extensions.",
            evidence=[f"{facts.nvcc}: release {facts.nvcc_version}", f"torch {torch.version}"],
            commands=remedies.install_toolkit(facts, torch.cuda),
        )
    elif facts.nvcc_version.minor != torch.cuda.minor:
        yield fine(
            f"nvcc {facts.nvcc_version.short} and PyTorch's CUDA {torch.cuda.short} differ in the minor version; "
            "extensions compile, with a warning."
        )


def forward_compatibility(facts: Facts) -> Iterator[Verdict]:
    """A libcuda that is newer than the module: it works on data centre GPUs, and only if it is newer."""
    loaded = [one for one in facts.driver.libraries if one.place == "compat" and one.name == "libcuda"]
    kernel = facts.driver.version
    if not loaded or kernel is None:
        return
    version, path = loaded[0].version, loaded[0].path
    undo = (remedies.without_folders(facts, loaded[0].folder),)
    if version is not None and version < kernel:
        yield problem(
            f"The libcuda for forward compatibility ({version}) is older than the driver ({kernel}), which needs none.",
            evidence=[path],
            commands=undo,
        )
    elif any(gpu.is_geforce for gpu in facts.gpus):
        yield problem(
            "Forward compatibility works on data centre GPUs; on this one CUDA does not start with it (error 804).",
            evidence=[path, *{gpu.name for gpu in facts.gpus if gpu.is_geforce}],
            commands=undo,
        )
    else:
        yield fine(
            f"CUDA comes from the package for forward compatibility, {version} on driver {kernel}.",
            evidence=[path],
        )


def runs_on(capability: tuple[int, int], architectures: tuple[str, ...]) -> str | None:
    """How code for these architectures runs on a GPU: `native`, `ptx` (compiled by the driver), or None.

    Machine code runs on its own major capability with the same or a higher minor one (CUDA programming guide, binary
    compatibility); code for sm_90a and its like on that one alone. PTX is compiled for its capability and all later.
    """
    ptx = False
    for name in architectures:
        match = re.fullmatch(r"(sm|compute)_(\d+)(\d)([a-f]?)", name)
        if match is None:
            continue
        built = (int(match[2]), int(match[3]))
        if match[4] == "a":
            if match[1] == "sm" and built == capability:
                return "native"
        elif match[1] == "sm":
            if built[0] == capability[0] and built[1] <= capability[1]:
                return "native"
        elif not match[4] and built <= capability:
            ptx = True
    return "ptx" if ptx else None


def _run_on_driver(
    facts: Facts, what: str, cuda: Version, *, exact: bool = False, commands: tuple[str, ...]
) -> Iterator[Verdict]:
    """The verdict of driver against CUDA. `exact`: what is made on the fly matters, too (PTX of a compiler)."""
    driver, needed = facts.driver_version, minimum_driver(cuda)
    subject = what[0].upper() + what[1:]
    if driver is None:
        yield unknown(f"Whether {what} runs here is not known: no driver answers.")
        return
    if needed is None:
        if cuda.major < 10:
            yield fine(f"{subject} runs on driver {driver}, which is newer than all of CUDA {cuda.major}.")
            return
        yield unknown(
            f"Which driver {what} needs is not known here: CUDA {cuda.short} is newer than this table.",
            evidence=[f"driver {driver}"],
        )
        return
    speaks = facts.cuda.version if facts.cuda.code == 0 else None
    compat = any(one.place == "compat" for one in facts.driver.libraries)
    if compat and speaks is not None and (speaks.major, speaks.minor) >= (cuda.major, cuda.minor):
        yield fine(f"{subject} runs by forward compatibility: libcuda speaks CUDA {speaks}.")
        return
    evidence = [f"driver {driver}", f"CUDA {cuda.major} needs {needed} or newer"]
    if driver < needed:
        yield problem(
            f"{subject} does not run on driver {driver}: it needs {needed} or newer.",
            evidence=evidence,
            commands=commands,
        )
        return
    full = driver_of_release(cuda)
    if full is not None and driver < full:
        sentence = f"{subject} runs on driver {driver} by minor version compatibility"
        evidence[-1] = f"CUDA {cuda.short} came with {full}"
        if exact:
            yield warning(
                f"{sentence}; what needs PTX compiled by the driver, or features newer than it, fails.",
                evidence=evidence,
                commands=remedies.install_driver(facts),
            )
        else:
            yield fine(f"{sentence}.", evidence=evidence)
        return
    yield fine(f"{subject} runs on driver {driver}.", evidence=evidence)


def _or_driver(facts: Facts) -> tuple[str, ...]:
    """A newer driver, where no PyTorch fits the one that is there."""
    return () if remedies.torch_for(facts) else remedies.install_driver(facts)


def _cupy_version(name: str) -> Version | None:
    match = re.fullmatch(r"cupy-cuda(\d{2,3})(x?)", name)
    if match is None:
        return None
    digits = match[1]
    if match[2] or len(digits) == 2:
        major = int(digits) if int(digits) >= 10 and (match[2] or digits[0] == "1") else int(digits[0])
        return Version.of_number(major * 1000)
    return Version.of_number(int(digits[:2]) * 1000 + int(digits[2]) * 10)


def _exact(name: str, requirement: str) -> re.Match[str] | None:
    """The version that a requirement pins a package to."""
    return re.match(
        rf"{re.escape(name)}\s*\(?==\s*([\w.+]+)\)?\s*(?:;(?!.*extra\s*==).*)?$", requirement.strip()
    )
