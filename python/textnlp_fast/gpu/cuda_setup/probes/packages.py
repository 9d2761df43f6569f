"""Python's and conda's packages, read from their files: nothing is imported."""

from __future__ import annotations

import mmap
import re
from importlib import metadata
from pathlib import Path

from textnlp_fast.gpu.cuda_setup.facts import Package, Pynvml, TorchFacts
from textnlp_fast.gpu.cuda_setup.machine import Machine
from textnlp_fast.gpu.cuda_setup.tables import torch_architectures
from textnlp_fast.gpu.cuda_setup.versions import Version

__all__ = [
    "canonical",
    "find_packages",
    "read_conda",
    "read_extras",
    "read_pynvml",
    "read_torch",
    "read_vllm",
]

_MATTERS = re.compile(
    r"(nvidia-.*|torch|torchvision|torchaudio|cupy.*|jax.*|vllm|sglang|pynvml.*|triton|tensorflow|textnlp-fast)"
)
_MOST_PACKAGES = 10_000
_BRING_PYNVML = ("nvidia-ml-py", "pynvml", "nvidia-ml-py3", "nvidia-ml-py2")
_ARCHITECTURES = re.compile(rb"(?:sm|compute)_\d{2,3}[a-f]?(?: (?:sm|compute)_\d{2,3}[a-f]?){2,40}")
_CUDART = re.compile(rb"libcudart\.so\.(\d{2,3})\x00")
# The Python half of PyTorch, where the list is, has some tens of megabytes.
_LIBRARY_LIMIT = 512 << 20
_EXTRAS = ("gpu", "gpu-gcp", "gpu-azure", "aws", "plot", "skypilot")


def canonical(name: str) -> str:
    """A package's name as PyPI compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def find_packages(machine: Machine, matters: re.Pattern[str] = _MATTERS) -> dict[str, Package]:
    """Installed packages that have to do with CUDA, by their canonical names; the first on the path wins."""
    found: dict[str, Package] = {}
    for number, distribution in enumerate(metadata.distributions(path=list(machine.site_paths))):
        if number >= _MOST_PACKAGES:
            break
        try:
            name = canonical(str(distribution.metadata["Name"] or ""))
            if not matters.fullmatch(name) or name in found:
                continue
            found[name] = Package(
                name=name,
                version=str(distribution.version or ""),
                location=str(distribution.locate_file("")),
                requires=tuple(distribution.requires or ())[:500],
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue  # a package whose metadata is broken says nothing
    return found


def read_torch(machine: Machine) -> TorchFacts | None:
    """The first PyTorch on the path: version, CUDA, and what its kernels are compiled for."""
    for folder in machine.site_paths:
        text = _read(Path(folder) / "torch" / "version.py")
        if text is None:
            continue
        version = _assigned(text, "__version__")
        if version is None:
            continue
        cuda = Version.parse(_assigned(text, "cuda") or "")
        names, source = _architectures(Path(folder) / "torch" / "lib" / "libtorch_python.so"), "library"
        if not names and cuda is not None and (parsed := Version.parse(version)) is not None:
            names, source = torch_architectures(parsed, cuda, machine.architecture), "table"
        return TorchFacts(
            version=version,
            cuda=cuda,
            hip=_assigned(text, "hip") is not None,
            location=str(Path(folder) / "torch"),
            architectures=names,
            architectures_from=source if names else "",
        )
    return None


def read_vllm(machine: Machine) -> int | None:
    """The CUDA runtime that vLLM's kernels ask the loader for, by its major version."""
    for folder in machine.site_paths:
        library = Path(folder) / "vllm" / "_C.abi3.so"
        if library.is_file():
            found = _search(library, _CUDART)
            return int(found[1]) if found else None
    return None


def read_pynvml(machine: Machine) -> Pynvml:
    """Which file `import pynvml` would load and whose it is.

    In one folder a package (`pynvml/`) wins over a module (`pynvml.py`), whatever was installed last.
    """
    installed, owners = [], {}
    for distribution in metadata.distributions(path=list(machine.site_paths)):
        try:
            name = canonical(str(distribution.metadata["Name"] or ""))
            if name not in _BRING_PYNVML:
                continue
            installed.append((name, str(distribution.version)))
            for file in distribution.files or ():
                if str(file) in {"pynvml.py", "pynvml/__init__.py"}:
                    owners[str(distribution.locate_file(file))] = (name, str(distribution.version))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
    for folder in machine.site_paths:
        for name in ("pynvml/__init__.py", "pynvml.py"):
            origin = Path(folder) / name
            if origin.is_file():
                owner = owners.get(str(origin))
                return Pynvml(
                    origin=str(origin),
                    owner=owner[0] if owner else None,
                    owner_version=owner[1] if owner else None,
                    installed=tuple(installed),
                )
    return Pynvml(installed=tuple(installed))


def read_conda(machine: Machine) -> dict[str, str]:
    """Packages of the active conda environment by the names of their records: `name-version-build.json`."""
    prefix = machine.environment.get("CONDA_PREFIX", "")
    found = {}
    for name in machine.list(f"{prefix}/conda-meta", "*.json") if prefix.startswith("/") else ():
        parts = name.removesuffix(".json").rsplit("-", 2)
        if len(parts) == 3 and re.match(r"(cuda|cudnn|nccl|pytorch|libtorch|cupy|jaxlib)", parts[0]):
            found[parts[0]] = parts[1]
    return found


def read_extras(machine: Machine) -> dict[str, tuple[str, ...]]:
    """The optional parts of this package that its metadata names, and what each still lacks."""
    own = find_packages(machine, re.compile("textnlp-fast")).get("textnlp-fast")
    wanted: dict[str, list[str]] = {}
    for line in own.requires if own else ():
        requirement, _, marker = line.partition(";")
        match = re.search(r"extra\s*==\s*['\"]([\w.-]+)['\"]", marker)
        name = re.match(r"[\w.-]+", requirement.strip())
        if match and name and canonical(match[1]) in _EXTRAS:
            wanted.setdefault(canonical(match[1]), []).append(canonical(name.group()))
    names = {name for names in wanted.values() for name in names}
    there = find_packages(machine, re.compile("|".join(map(re.escape, sorted(names))) or "$^"))
    return {
        extra: tuple(name for name in wanted[extra] if name not in there)
        for extra in _EXTRAS
        if extra in wanted
    }


def _assigned(text: str, name: str) -> str | None:
    """A string that a generated file assigns to a name; None for None."""
    match = re.search(rf"^{name}\s*(?::[^=\n]*)?=\s*['\"]([^'\"\n]{{0,100}})['\"]", text, re.MULTILINE)
    return match[1] if match else None


def _architectures(library: Path) -> tuple[str, ...]:
    """The list that `torch.cuda.get_arch_list()` gives: its build writes it into libtorch_python.so as one string."""
    found = _search(library, _ARCHITECTURES)
    return tuple(found[0].decode("ascii").split()) if found else ()


def _search(library: Path, pattern: re.Pattern[bytes]) -> tuple[bytes, ...] | None:
    """The first match in a file and its groups; read through a map, so that pages come and go."""
    try:
        with library.open("rb") as file:
            size = min(file.seek(0, 2), _LIBRARY_LIMIT)
            if not size:
                return None
            with mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) as data:
                match = pattern.search(data)
                # Taken out of the map before it is closed.
                return (bytes(match.group()), *map(bytes, match.groups())) if match else None
    except (OSError, ValueError):
        return None


def _read(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return file.read(1 << 16).decode("utf-8", "replace")
    except OSError:
        return None
