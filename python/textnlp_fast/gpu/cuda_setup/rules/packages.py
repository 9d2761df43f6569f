"""Rules about Python's packages: libraries of CUDA that come twice or in a wrong version, pynvml, our extras."""

from __future__ import annotations

import re
from collections.abc import Iterator

from textnlp_fast.gpu.cuda_setup import remedies
from textnlp_fast.gpu.cuda_setup.facts import Facts, Library, Package
from textnlp_fast.gpu.cuda_setup.verdicts import Verdict, fine, problem, warning
from textnlp_fast.gpu.cuda_setup.versions import Version

__all__ = ["clashing_wheels", "cudnn_outside", "extras", "nccl_outside", "pynvml", "torch_pins"]

# These wheels of both CUDA majors put a file of the same name into the same folder.
_SAME_FILES = ("cudnn", "nccl", "nvshmem")
_OLD_PYNVML = 12


def clashing_wheels(facts: Facts) -> Iterator[Verdict]:
    """One library for two majors of CUDA: the wheels overwrite each other's files, and removing one breaks both."""
    for library in _SAME_FILES:
        found = [name for major in (11, 12, 13) if (name := f"nvidia-{library}-cu{major}") in facts.packages]
        if len(found) < 2:
            continue
        wanted = _by_torch(facts, found)
        packages = [facts.packages[name] for name in found]
        yield problem(
            f"{' and '.join(found)} are both installed and write the same files; which one is there is chance.",
            evidence=[f"{one.name} {one.version} in {one.location}" for one in packages],
            commands=(
                remedies.pip_uninstall(facts, *found),
                remedies.pip_install(facts, f"{wanted.name}=={wanted.version}"),
            ),
        )


def torch_pins(facts: Facts) -> Iterator[Verdict]:
    """The wheels of CUDA that PyTorch asks for are there in those versions."""
    torch = facts.packages.get("torch")
    if torch is None or facts.torch is None or facts.torch.cuda is None:
        return
    wrong, missing, counted = [], [], 0
    for line in torch.requires:
        match = re.match(r"(nvidia-[\w-]+)\s*\(?==\s*([\w.]+)", line)
        if match is None or re.search(r"extra\s*==", line):
            continue
        counted += 1
        have = facts.packages.get(match[1].lower().replace("_", "-"))
        if have is None:
            missing.append((match[1], match[2]))
        elif Version.parse(have.version) != Version.parse(match[2]):
            wrong.append((match[1], match[2], have.version))
    if wrong or missing:
        names = [*(f"{name}=={version}" for name, version, _ in wrong), *(f"{n}=={v}" for n, v in missing)]
        yield (problem if missing else warning)(
            f"PyTorch {facts.torch.version} was built with other versions of {_count(len(names), 'CUDA library')} "
            "than are installed.",
            evidence=[
                *(f"{name}: {have} is installed, {wanted} wanted" for name, wanted, have in wrong),
                *(f"{name}: not installed, {wanted} wanted" for name, wanted in missing),
            ],
            commands=(remedies.pip_install(facts, *names),),
        )
    elif counted:
        yield fine(f"The {counted} CUDA libraries that PyTorch asks for are there, in its versions.")


def cudnn_outside(facts: Facts) -> Iterator[Verdict]:
    """No other cuDNN comes before the one that Python's packages bring."""
    yield from _outside(facts, "libcudnn", "cuDNN", "nvidia-cudnn")


def nccl_outside(facts: Facts) -> Iterator[Verdict]:
    """No other NCCL comes before the one that Python's packages bring."""
    yield from _outside(facts, "libnccl", "NCCL", "nvidia-nccl")


def pynvml(facts: Facts) -> Iterator[Verdict]:
    """`import pynvml` gives NVIDIA's current bindings, and not an old package of the same name."""
    seen = facts.pynvml
    versions = dict(seen.installed)
    wrong = [name for name in ("pynvml", "nvidia-ml-py3", "nvidia-ml-py2") if name in versions]
    evidence = [
        *(f"{name} {version}" for name, version in seen.installed),
        seen.origin or "no pynvml to import",
    ]
    mend = (
        remedies.pip_uninstall(facts, *[*wrong, "nvidia-ml-py"]),
        remedies.pip_install(facts, "nvidia-ml-py"),
    )
    current = versions.get("nvidia-ml-py")
    if seen.origin is None:
        if seen.installed:
            yield warning(
                "A package for pynvml is installed, but there is none to import.",
                evidence=evidence,
                commands=mend,
            )
        return
    old = (
        seen.owner in wrong
        and (Version.parse(seen.owner_version or "0") or Version.of_number(0)).major < _OLD_PYNVML
    )
    # Left behind by a package, or put there by hand: a folder that no installed package owns, before one that does.
    orphan = seen.owner is None and seen.origin.endswith("/__init__.py") and current is not None
    if old or orphan:
        hidden = f" and hides nvidia-ml-py {current}" if current else ""
        whose = (
            f"{seen.owner} {seen.owner_version}"
            if seen.owner
            else f"the folder {seen.origin.removesuffix('/__init__.py')}"
        )
        commands = (
            mend if wrong else (f"rm -r {remedies.quoted(seen.origin.removesuffix('/__init__.py'))}", *mend)
        )
        yield problem(
            f"`import pynvml` loads {whose}, which is old{hidden}: newer readings are missing without a word.",
            evidence=evidence,
            commands=commands,
        )
    elif wrong:
        yield warning(
            f"The package {wrong[0]} {versions[wrong[0]]} is deprecated; nvidia-ml-py brings pynvml now.",
            evidence=evidence,
            commands=mend,
        )
    else:
        yield fine(
            f"`import pynvml` loads nvidia-ml-py {current or ''}".rstrip() + ".", evidence=[seen.origin]
        )


def extras(facts: Facts) -> Iterator[Verdict]:
    """Which optional parts of this package are installed, and how to add the others."""
    if not facts.extras:
        return
    whole = [name for name, missing in facts.extras.items() if not missing]
    lacking = {name: missing for name, missing in facts.extras.items() if missing}
    evidence = [
        *(f"{name}: installed" for name in whole),
        *(f"{name}: lacks {', '.join(missing)}" for name, missing in lacking.items()),
    ]
    said = f"{', '.join(whole)} installed" if whole else "none installed"
    if lacking:
        said += f"; not: {', '.join(lacking)}"
    verdict = fine(f"Optional parts of textnlp-fast: {said}.", evidence=evidence)
    yield Verdict(
        level=verdict.level,
        summary=verdict.summary,
        evidence=verdict.evidence,
        commands=tuple(remedies.pip_install(facts, f"textnlp-fast[{name}]") for name in lacking),
    )


def _outside(facts: Facts, soname: str, title: str, wheel: str) -> Iterator[Verdict]:
    wheels = [package for name, package in facts.packages.items() if re.fullmatch(rf"{wheel}-cu\d\d", name)]
    found = [one for one in facts.libraries if one.name == soname]
    if not wheels or not found:
        if found and not wheels:
            yield fine(
                f"{title} {_versions(found)} is installed in the system.",
                evidence=[one.path for one in found],
            )
        return
    have = wheels[0]
    first = [one for one in found if one.place == "ld-library-path"]
    different = [one for one in first if not _same(one, have)]
    if different:
        other = different[0].version
        worse = (
            other is None
            or have.parsed is None
            or (other.major, other.minor) != (have.parsed.major, have.parsed.minor)
        )
        yield (problem if worse else warning)(
            f"LD_LIBRARY_PATH puts {title} {other or 'of some version'} before {have.version}, "
            "which Python's packages were built with.",
            evidence=[*(one.path for one in different), f"{have.name} {have.version} in {have.location}"],
            commands=(remedies.without_folders(facts, *{one.folder for one in different}),),
        )
    else:
        yield fine(
            f"{title}: Python's packages load their own {have.version}, not the system's {_versions(found)}.",
            evidence=[one.path for one in found],
        )


def _same(library: Library, package: Package) -> bool:
    """Whether a library's version begins like the package's: file names carry less of it (9, 9.10.2, 2.27.3)."""
    if library.version is None or package.parsed is None:
        return False
    length = min(len(library.version.parts), len(package.parsed.parts))
    return library.version.parts[:length] == package.parsed.parts[:length]


def _versions(libraries: list[Library]) -> str:
    return ", ".join(sorted({str(one.version) for one in libraries if one.version})) or "of some version"


def _by_torch(facts: Facts, names: list[str]) -> Package:
    """The package of the CUDA that PyTorch uses; else the newest."""
    if facts.torch is not None and facts.torch.cuda is not None:
        for name in names:
            if name.endswith(f"-cu{facts.torch.cuda.major}"):
                return facts.packages[name]
    return facts.packages[names[-1]]


def _count(number: int, what: str) -> str:
    return f"{number} {what if number == 1 else what[:-1] + 'ies'}"
