"""CUDA toolkits, and the shared libraries of CUDA outside of Python's packages."""

from __future__ import annotations

import json
import re

from textnlp_fast.gpu.cuda_setup.facts import Library, Toolkit
from textnlp_fast.gpu.cuda_setup.machine import Machine
from textnlp_fast.gpu.cuda_setup.versions import Version, find_version

__all__ = ["ask_nvcc", "find_libraries", "find_toolkits", "search_paths", "toolkit_version"]

_SYSTEM_FOLDERS = (
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu/nvidia/current",
    "/usr/lib64",
    "/usr/lib64/nvidia",
    "/usr/lib",
    "/usr/local/lib",
    "/usr/local/nvidia/lib",
    "/usr/local/nvidia/lib64",
    "/usr/lib/wsl/lib",
    "/run/opengl-driver/lib",
)
_SONAMES = ("libcuda", "libnvidia-ml", "libcudart", "libcudnn", "libnccl")
_MOST_FOLDERS = 200
_HEADERS = 1 << 18


def find_toolkits(machine: Machine) -> tuple[Toolkit, ...]:
    """Every toolkit in the usual places, in CUDA_HOME, behind nvcc on PATH, and in the active conda environment."""
    places: dict[str, str] = {}
    for name in machine.list("/usr/local", "cuda*"):
        places[f"/usr/local/{name}"] = "system"
    for place in ("/opt/cuda", "/usr/lib/cuda", "/usr/lib/nvidia-cuda-toolkit"):
        places[place] = "system"
    for variable in ("CUDA_HOME", "CUDA_PATH"):
        if (place := machine.environment.get(variable, "")).startswith("/"):
            places.setdefault(place.rstrip("/") or "/", "system")
    nvcc = machine.which("nvcc")
    if nvcc is not None and (real := machine.real(nvcc)).endswith("/bin/nvcc"):
        places.setdefault(real.removesuffix("/bin/nvcc"), "system")
    if prefix := machine.environment.get("CONDA_PREFIX"):
        places[prefix.rstrip("/")] = "conda"
    found: dict[str, Toolkit] = {}
    for place, origin in places.items():
        real = machine.real(place)
        toolkit = _toolkit(machine, real, origin)
        if toolkit is not None and (real not in found or origin == "conda"):
            found[real] = toolkit
    return tuple(found[path] for path in sorted(found))


def _toolkit(machine: Machine, path: str, origin: str) -> Toolkit | None:
    if path in {"/", "/usr", "/usr/local"} or not machine.is_dir(path):
        return None
    has_nvcc = machine.exists(f"{path}/bin/nvcc")
    version = toolkit_version(machine, path)
    has_runtime = any(machine.list(f"{path}/{folder}", "libcudart.so*") for folder in ("lib64", "lib"))
    compat = _versions_of(machine, f"{path}/compat", "libcuda")
    if version is None and not has_nvcc and not compat:
        return None
    return Toolkit(
        path=path,
        version=version,
        has_nvcc=has_nvcc,
        has_runtime=has_runtime,
        origin=origin,
        compat=compat[-1] if compat else None,
    )


def toolkit_version(machine: Machine, path: str) -> Version | None:
    """A toolkit's version: of version.json (since 11.1), version.txt (before), its header, or its folder's name."""
    text = machine.read(f"{path}/version.json")
    if text is not None:
        try:
            version = Version.parse(str(json.loads(text)["cuda"]["version"]))
        except (ValueError, KeyError, TypeError, RecursionError):
            version = None
        if version is not None:
            return version
    text = machine.read(f"{path}/version.txt")
    if text is not None and (version := find_version(text, after="CUDA Version")) is not None:
        return version
    for include in ("include", "targets/x86_64-linux/include", "targets/sbsa-linux/include"):
        header = machine.read(f"{path}/{include}/cuda.h", limit_bytes=_HEADERS)
        match = re.search(r"#define CUDA_VERSION (\d{4,6})\b", header or "", re.ASCII)
        if match:
            return Version.of_number(int(match[1]))
    match = re.search(r"/cuda-(\d{1,3}\.\d{1,3})$", path, re.ASCII)
    return Version.parse(match[1]) if match else None


def ask_nvcc(machine: Machine) -> Version | None:
    """The release that the nvcc on PATH says that it is of."""
    answer = machine.run("nvcc", "--version", timeout_s=20.0, limit_bytes=1 << 16)
    return find_version(answer.output, after="release") if answer.ok else None


def search_paths(machine: Machine) -> dict[str, str]:
    """Entries of LD_LIBRARY_PATH, and which folder each really is. An empty one is the current folder."""
    value = machine.environment.get("LD_LIBRARY_PATH", "")
    if not value:
        return {}
    entries = re.split("[:;]", value)[:_MOST_FOLDERS]
    return {
        entry: machine.real(entry) if entry.startswith("/") and machine.is_dir(entry) else ""
        for entry in entries
    }


def find_libraries(machine: Machine, toolkits: tuple[Toolkit, ...]) -> tuple[Library, ...]:
    """The driver's libraries, the CUDA runtime, cuDNN and NCCL, by their real files; those in Python's packages apart.

    The order is that of the loader: LD_LIBRARY_PATH, then what ld.so.conf names, then the system's folders.
    """
    folders: dict[str, str] = {}
    for real in search_paths(machine).values():
        if real:
            folders.setdefault(real, "ld-library-path")
    for folder in (*_configured(machine), *_SYSTEM_FOLDERS):
        folders.setdefault(machine.real(folder), "system")
    for toolkit in toolkits:
        folders.setdefault(machine.real(f"{toolkit.path}/lib64"), "system")
    found: dict[str, Library] = {}
    for folder, place in folders.items():
        for soname in _SONAMES:
            for path, version in _files(machine, folder, soname):
                if path not in found:
                    found[path] = Library(
                        name=soname, path=path, version=version, folder=folder, place=_place(folder, place)
                    )
    return tuple(found.values())


def _place(folder: str, place: str) -> str:
    if folder.endswith("/stubs") or "/stubs/" in folder:
        return "stubs"
    if folder.endswith("/compat") or "/compat/" in folder:
        return "compat"
    return "wsl" if folder.startswith("/usr/lib/wsl") else place


def _configured(machine: Machine) -> list[str]:
    """Folders that ld.so.conf.d names."""
    found = []
    for name in machine.list("/etc/ld.so.conf.d", "*.conf")[:_MOST_FOLDERS]:
        for line in (machine.read(f"/etc/ld.so.conf.d/{name}", limit_bytes=1 << 16) or "").splitlines():
            if line.strip().startswith("/"):
                found.append(line.strip())
    return found[:_MOST_FOLDERS]


def _files(machine: Machine, folder: str, soname: str) -> list[tuple[str, Version | None]]:
    """The real files of a library in a folder and their versions. Links to the same file are one."""
    found: dict[str, Version | None] = {}
    for name in machine.list(folder, f"{soname}.so*"):
        path = machine.real(f"{folder}/{name}")
        if not machine.exists(path):
            continue  # a link that leads nowhere
        found[path] = Version.parse(path.rpartition("/")[2].partition(".so.")[2])
    if soname == "libcudnn":
        # Its files end in the major version alone; the header beside them has all of it.
        header = _cudnn_header(machine, folder)
        found = {path: header or version for path, version in found.items()}
    return sorted(found.items())


def _cudnn_header(machine: Machine, folder: str) -> Version | None:
    base = folder.rpartition("/")[0]
    for include in (
        f"{base}/include",
        "/usr/include/x86_64-linux-gnu",
        "/usr/include/aarch64-linux-gnu",
        "/usr/include",
    ):
        for name in machine.list(include, "cudnn_version*.h"):
            text = machine.read(f"{include}/{name}", limit_bytes=_HEADERS) or ""
            numbers = [
                re.search(rf"#define CUDNN_{part}\s+(\d{{1,4}})\b", text, re.ASCII)
                for part in ("MAJOR", "MINOR", "PATCHLEVEL")
            ]
            if all(numbers):
                return Version.parse(".".join(match[1] for match in numbers if match))
    return None


def _versions_of(machine: Machine, folder: str, soname: str) -> list[Version]:
    versions = [
        version for _, version in _files(machine, folder, soname) if version and len(version.parts) > 1
    ]
    return sorted(versions)
