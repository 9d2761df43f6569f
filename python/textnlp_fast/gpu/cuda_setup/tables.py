"""What goes with what, as the makers say it: drivers, CUDA, GPUs, PyTorch. Each table has its source and its date."""

from __future__ import annotations

from typing import Final

from textnlp_fast.gpu.cuda_setup.versions import Version

__all__ = [
    "BUILT_WITH_DRIVER",
    "CUDA_ERRORS",
    "LAST_DRIVER_BEFORE_TURING",
    "MINIMUM_DRIVER",
    "NEWEST_CUDA",
    "SOURCES",
    "TURING",
    "cuda_range_of",
    "driver_of_release",
    "minimum_driver",
    "newest_release_for",
    "torch_architectures",
]

SOURCES: Final = {
    "drivers": "CUDA Toolkit release notes of 13.2 and 13.4, tables of driver versions (docs.nvidia.com, seen 2026-11)",
    "minor": "CUDA Compatibility guide, minor version compatibility (docs.nvidia.com, seen 2026-11)",
    "forward": "CUDA Compatibility guide, forward compatibility (docs.nvidia.com, r590)",
    "architectures": "release notes of CUDA 11.0 to 13.4 and `nvcc --list-gpu-code` of 13.0",
    "torch": "PyTorch's RELEASE.md, CUDA support matrix of releases 2.8 to 2.15, and its build scripts before 2.8",
    "modules": "NVIDIA driver installation guide, kernel modules (docs.nvidia.com, r610)",
    "nccl": "NCCL user guide, troubleshooting (docs.nvidia.com)",
    "toolkit": "NVIDIA Container Toolkit security bulletin, CVE-2025-23266 (July 2025)",
    "cuda_errors": "CUDA driver API reference, CUresult",
    "fabric": "Fabric Manager user guide (docs.nvidia.com)",
}


def _version(text: str) -> Version:
    version = Version.parse(text)
    assert version is not None
    return version


# The oldest driver on Linux that runs programs of a CUDA major release, with minor version compatibility where needed.
MINIMUM_DRIVER: Final = {
    10: _version("410.48"),
    11: _version("450.80.02"),
    12: _version("525.60.13"),
    13: _version("580.65.06"),
}

# The driver that came with a release on Linux x86_64: all of its features work from there on. By its first update.
# From 13.4 on no driver is bundled; the release notes name the branch.
BUILT_WITH_DRIVER: Final = {
    (10, 0): _version("410.48"),
    (10, 1): _version("418.39"),
    (10, 2): _version("440.33"),
    (11, 0): _version("450.51.05"),
    (11, 1): _version("455.23"),
    (11, 2): _version("460.27.03"),
    (11, 3): _version("465.19.01"),
    (11, 4): _version("470.42.01"),
    (11, 5): _version("495.29.05"),
    (11, 6): _version("510.39.01"),
    (11, 7): _version("515.43.04"),
    (11, 8): _version("520.61.05"),
    (12, 0): _version("525.60.13"),
    (12, 1): _version("530.30.02"),
    (12, 2): _version("535.54.03"),
    (12, 3): _version("545.23.06"),
    (12, 4): _version("550.54.14"),
    (12, 5): _version("555.42.02"),
    (12, 6): _version("560.28.03"),
    (12, 8): _version("570.26"),
    (12, 9): _version("575.51.03"),
    (13, 0): _version("580.65.06"),
    (13, 1): _version("590.44.01"),
    (13, 2): _version("595.45.04"),
    (13, 3): _version("610"),
    (13, 4): _version("615"),
}
NEWEST_CUDA: Final = max(BUILT_WITH_DRIVER)

TURING: Final = (7, 5)
# R580 is the last branch that drives Maxwell, Pascal and Volta.
LAST_DRIVER_BEFORE_TURING: Final = 580

# CUDA release that first compiles for a compute capability, and the first major one that no longer does.
_FIRST_CUDA: Final = {
    (5, 0): (6, 5),
    (6, 0): (8, 0),
    (6, 1): (8, 0),
    (7, 0): (9, 0),
    (7, 5): (10, 0),
    (8, 0): (11, 0),
    (8, 6): (11, 1),
    (8, 7): (11, 4),
    (8, 9): (11, 8),
    (9, 0): (11, 8),
    (10, 0): (12, 8),
    (12, 0): (12, 8),
    (10, 3): (12, 9),
    (12, 1): (12, 9),
    (8, 8): (13, 0),
    (11, 0): (13, 0),
    (10, 7): (13, 4),
}
_LAST_CUDA_BEFORE_TURING: Final = 12

# Of CUresult: what cuInit answers when something is wrong with the machine.
CUDA_ERRORS: Final = {
    3: "CUDA_ERROR_NOT_INITIALIZED",
    34: "CUDA_ERROR_STUB_LIBRARY",
    46: "CUDA_ERROR_DEVICE_UNAVAILABLE",
    100: "CUDA_ERROR_NO_DEVICE",
    101: "CUDA_ERROR_INVALID_DEVICE",
    304: "CUDA_ERROR_OPERATING_SYSTEM",
    802: "CUDA_ERROR_SYSTEM_NOT_READY",
    803: "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH",
    804: "CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE",
    999: "CUDA_ERROR_UNKNOWN",
}

# From release, CUDA: what the wheels of PyTorch are compiled for on x86_64.
_OLD = ("5.0", "6.0", "7.0", "7.5", "8.0", "8.6", "9.0")
_VOLTA_TO_BLACKWELL = ("7.0", "7.5", "8.0", "8.6", "9.0", "10.0", "12.0")
_TURING_TO_BLACKWELL = ("7.5", "8.0", "8.6", "9.0", "10.0", "12.0")
_TORCH: Final = (
    ((2, 0), (11, 7), ("3.7", "5.0", "6.0", "7.0", "7.5", "8.0", "8.6")),
    ((2, 0), (11, 8), ("3.7", *_OLD)),
    ((2, 1), (12, 1), _OLD),
    ((2, 4), (12, 4), _OLD),
    ((2, 6), (12, 6), _OLD),
    ((2, 7), (12, 8), _TURING_TO_BLACKWELL),
    ((2, 8), (12, 8), _VOLTA_TO_BLACKWELL),
    ((2, 8), (12, 9), _VOLTA_TO_BLACKWELL),
    ((2, 9), (13, 0), _TURING_TO_BLACKWELL),
    ((2, 11), (12, 8), _TURING_TO_BLACKWELL),
    ((2, 12), (13, 2), _TURING_TO_BLACKWELL),
)


def minimum_driver(cuda: Version) -> Version | None:
    """The oldest driver that runs programs of that CUDA at all; None for a major version that is not known."""
    return MINIMUM_DRIVER.get(cuda.major)


def driver_of_release(cuda: Version) -> Version | None:
    """The driver from which on nothing of that CUDA release is missing.

    A release that is newer than the table needs at least what the newest of the table does.
    """
    release = (cuda.major, cuda.minor)
    if release > NEWEST_CUDA:
        return BUILT_WITH_DRIVER[NEWEST_CUDA]
    earlier = [known for known in BUILT_WITH_DRIVER if known <= release and known[0] == cuda.major]
    return BUILT_WITH_DRIVER[max(earlier)] if earlier else None


def newest_release_for(driver: Version) -> Version | None:
    """The newest CUDA release of which nothing is missing with that driver."""
    releases = [release for release, needed in BUILT_WITH_DRIVER.items() if needed <= driver]
    if not releases:
        return None
    major, minor = max(releases)
    return Version.of_number(major * 1000 + minor * 10)


def cuda_range_of(capability: tuple[int, int]) -> tuple[tuple[int, int] | None, int | None]:
    """The first CUDA release that compiles for a GPU, and the last major one; None: not known, or all later ones."""
    first = _FIRST_CUDA.get(capability)
    return first, _LAST_CUDA_BEFORE_TURING if capability < TURING else None


def torch_architectures(torch: Version, cuda: Version, machine: str) -> tuple[str, ...]:
    """What the official wheel of that release is compiled for; empty where the table does not know it."""
    if machine != "x86_64":
        return ()
    rows = [
        (release, names)
        for release, built_with, names in _TORCH
        if built_with == (cuda.major, cuda.minor) and release <= (torch.major, torch.minor)
    ]
    if not rows:
        return ()
    return tuple("sm_" + name.replace(".", "") for name in max(rows)[1])
