"""Rules about environment variables, which make a healthy machine look broken."""

from __future__ import annotations

import re
from collections.abc import Iterator

from textnlp_fast.gpu.cuda_setup import remedies
from textnlp_fast.gpu.cuda_setup.facts import Facts, Toolkit
from textnlp_fast.gpu.cuda_setup.tables import minimum_driver
from textnlp_fast.gpu.cuda_setup.verdicts import Verdict, fine, problem, warning

__all__ = ["cuda_home", "device_order", "library_path", "nvcc_on_path", "toolkit_of", "visible_devices"]


def visible_devices(facts: Facts) -> Iterator[Verdict]:
    """CUDA_VISIBLE_DEVICES names GPUs that are there. CUDA ignores everything behind the first name that is not."""
    value = facts.environment.get("CUDA_VISIBLE_DEVICES")
    if value is None or not facts.has_gpu:
        return
    evidence = [f"CUDA_VISIBLE_DEVICES={value!r}", *(_known(facts))]
    names = [name.strip() for name in value.split(",")]
    if not value.strip() or names[0] == "-1":
        yield problem(
            "CUDA_VISIBLE_DEVICES is set and empty: it hides every GPU."
            if not value.strip()
            else "CUDA_VISIBLE_DEVICES is -1: it hides every GPU.",
            evidence=evidence,
            commands=("unset CUDA_VISIBLE_DEVICES",),
        )
        return
    if not facts.gpus:
        return
    seen: list[int | str] = []
    for place, name in enumerate(names):
        found = _device(facts, name)
        trouble = (
            "names a GPU that is not there" if found is None else "names a GPU twice" if found in seen else ""
        )
        if trouble:
            hidden = len(names) - place
            good = ",".join(names[:place])
            rest = (
                "every GPU is hidden"
                if place == 0 or found is not None
                else f"{hidden} of {len(names)} are ignored"
            )
            yield problem(
                f"CUDA_VISIBLE_DEVICES {trouble} ({name or 'an empty name'}): {rest}.",
                evidence=evidence,
                commands=(
                    remedies.export("CUDA_VISIBLE_DEVICES", good)
                    if good and found is None
                    else "unset CUDA_VISIBLE_DEVICES",
                ),
            )
            return
        seen.append(found if found is not None else name)
    yield fine(f"CUDA_VISIBLE_DEVICES shows {len(names)} of {len(facts.gpus)} GPUs.", evidence=evidence)


def device_order(facts: Facts) -> Iterator[Verdict]:
    """With GPUs of several kinds, CUDA's numbers are not nvidia-smi's unless the order is by the bus."""
    value = facts.environment.get("CUDA_VISIBLE_DEVICES", "")
    kinds = {gpu.name for gpu in facts.gpus}
    by_number = re.search(r"\d", value) and not value.startswith(("GPU-", "MIG-"))
    by_bus = facts.environment.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID"
    if len(kinds) > 1 and by_number and not by_bus:
        yield warning(
            "CUDA counts GPUs of several kinds fastest first, nvidia-smi by the bus: "
            "CUDA_VISIBLE_DEVICES may mean others than you think.",
            evidence=[
                f"CUDA_VISIBLE_DEVICES={value!r}",
                *sorted(kinds),
                "CUDA_DEVICE_ORDER is not PCI_BUS_ID",
            ],
            commands=(remedies.export("CUDA_DEVICE_ORDER", "PCI_BUS_ID"),),
        )


def library_path(facts: Facts) -> Iterator[Verdict]:
    """LD_LIBRARY_PATH has no holes, and no CUDA of another major version than PyTorch's."""
    if not facts.search_paths:
        return
    empty = "" in facts.search_paths
    gone = [entry for entry, real in facts.search_paths.items() if entry.startswith("/") and not real]
    relative = [entry for entry in facts.search_paths if entry and not entry.startswith("/")]
    mended = remedies.without_folders(facts)
    if empty or relative:
        yield warning(
            "LD_LIBRARY_PATH has an empty or relative entry, which means the folder that a program is started in: "
            "whoever can write there chooses its libraries.",
            evidence=[f"LD_LIBRARY_PATH={facts.environment.get('LD_LIBRARY_PATH', '')!r}"],
            commands=(mended,),
        )
    elif gone:
        yield warning("LD_LIBRARY_PATH names folders that are not there.", evidence=gone, commands=(mended,))
    torch = facts.torch
    runtimes = [
        one
        for one in facts.libraries
        if one.name == "libcudart" and one.place == "ld-library-path" and one.version is not None
    ]
    if torch is not None and torch.cuda is not None:
        other = [
            one
            for one in runtimes
            if one.version
            and one.version.major == torch.cuda.major
            and len(one.version.parts) > 1
            and one.version.parts[:2] != torch.cuda.parts[:2]
        ]
        if other:
            yield warning(
                f"LD_LIBRARY_PATH puts another CUDA {torch.cuda.major} before the libraries that PyTorch brings.",
                evidence=[*(one.path for one in other), f"torch {torch.version} (CUDA {torch.cuda})"],
                commands=(remedies.without_folders(facts, *{one.folder for one in other}),),
            )


def cuda_home(facts: Facts) -> Iterator[Verdict]:
    """CUDA_HOME leads to a toolkit, and to the one whose nvcc is on PATH."""
    for name in ("CUDA_HOME", "CUDA_PATH"):
        value = facts.environment.get(name)
        if not value:
            continue
        if value not in facts.homes:
            good = toolkit_of(facts)
            yield problem(
                f"{name} leads nowhere: there is no {value}.",
                evidence=[f"{name}={value}"],
                commands=(remedies.export(name, good.path) if good else f"unset {name}",),
            )
            continue
        toolkit = next((one for one in facts.toolkits if one.path == facts.homes[value]), None)
        if (
            toolkit is not None
            and toolkit.version is not None
            and facts.nvcc_version is not None
            and toolkit.version.short != facts.nvcc_version.short
        ):
            yield warning(
                f"{name} is CUDA {toolkit.version.short}, but the nvcc on PATH is of {facts.nvcc_version.short}.",
                evidence=[f"{name}={value}", f"{facts.nvcc}: release {facts.nvcc_version}"],
                commands=(f'export PATH={remedies.quoted(value + "/bin")}:"$PATH"',),
            )
        elif toolkit is not None:
            yield fine(
                f"{name} is {value}, CUDA {toolkit.version.short if toolkit.version else 'of some version'}."
            )


def nvcc_on_path(facts: Facts) -> Iterator[Verdict]:
    """A toolkit with a compiler is on PATH."""
    toolkit = toolkit_of(facts)
    if facts.nvcc is not None or toolkit is None:
        return
    yield warning(
        f"CUDA's compiler is installed in {toolkit.path}, but not on PATH.",
        evidence=[f"{toolkit.path}/bin/nvcc"],
        commands=(f'export PATH={remedies.quoted(toolkit.path + "/bin")}:"$PATH"',),
    )


def toolkit_of(facts: Facts) -> Toolkit | None:
    """The toolkit to use: nvcc's on PATH; else the one of PyTorch's CUDA; else the newest that the driver runs."""
    whole = {one.version: one for one in facts.toolkits if one.has_nvcc and one.version is not None}
    for wanted in (facts.nvcc_version, facts.torch.cuda if facts.torch else None):
        for version, one in whole.items():
            if wanted is not None and version.short == wanted.short:
                return one
    driver = facts.driver_version
    fitting = [
        version
        for version in whole
        if driver is None or (needed := minimum_driver(version)) is None or needed <= driver
    ]
    return whole[max(fitting or whole)] if whole else None


def _device(facts: Facts, name: str) -> int | str | None:
    """The GPU that a name means: a number, a UUID or the start of one, or a MIG device."""
    if re.fullmatch(r"\d{1,4}", name, re.ASCII):
        return int(name) if int(name) < len(facts.gpus) else None
    if name.startswith("GPU-"):
        found = [gpu.index for gpu in facts.gpus if gpu.uuid and gpu.uuid.startswith(name)]
        return found[0] if len(found) == 1 else None
    if name.startswith("MIG-"):
        uuids = [uuid for gpu in facts.gpus for uuid in gpu.mig_uuids]
        if not uuids:
            return name if any(gpu.mig for gpu in facts.gpus) else None
        found_uuids = [uuid for uuid in uuids if uuid.startswith(name)]
        return found_uuids[0] if len(found_uuids) == 1 else None
    return None


def _known(facts: Facts) -> Iterator[str]:
    for gpu in facts.gpus[:16]:
        yield f"GPU {gpu.index}: {gpu.uuid or 'UUID not known'}"
