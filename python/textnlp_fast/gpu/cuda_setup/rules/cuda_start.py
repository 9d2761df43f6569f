"""The rule that runs CUDA: what cuInit answers, and what that means on this machine."""

from __future__ import annotations

from collections.abc import Iterator

from textnlp_fast.gpu.cuda_setup import remedies
from textnlp_fast.gpu.cuda_setup.facts import Facts
from textnlp_fast.gpu.cuda_setup.tables import CUDA_ERRORS
from textnlp_fast.gpu.cuda_setup.verdicts import Verdict, fine, problem

__all__ = ["cuda_starts"]


def cuda_starts(facts: Facts) -> Iterator[Verdict]:
    """libcuda loads and cuInit succeeds, in a process of its own."""
    cuda, code = facts.cuda, facts.cuda.code
    if cuda.timed_out or cuda.stuck:
        yield problem(
            "CUDA does not start: the driver hangs.",
            evidence=[cuda.message],
            commands=("sudo dmesg | grep -iE 'nvrm|xid'", "sudo reboot"),
        )
    elif cuda.found and code == 0:
        yield fine(
            f"CUDA starts: the driver speaks up to CUDA {cuda.version}.",
            evidence=[path for path in (cuda.path,) if path],
        )
    elif code is not None and facts.has_gpu:
        name = CUDA_ERRORS.get(code, f"CUresult {code}")
        meaning, commands = _meaning(facts, code)
        if meaning:
            yield problem(
                f"CUDA does not start: {meaning}",
                evidence=[f"cuInit answers {code}, {name}", cuda.path or ""],
                commands=commands,
            )
    elif cuda.found is False and facts.driver.version is not None and not facts.container.inside:
        yield problem(
            "The driver is loaded, but the library libcuda.so.1 is not installed.",
            evidence=[cuda.message],
            commands=remedies.install_tools(facts),
        )
    elif cuda.found is None and cuda.message and facts.has_gpu and not facts.smi.timed_out:
        yield problem("Loading libcuda kills the process that does it.", evidence=[cuda.message])


def _meaning(facts: Facts, code: int) -> tuple[str, tuple[str, ...]]:
    hidden = facts.environment.get("CUDA_VISIBLE_DEVICES") is not None
    meanings: dict[int, tuple[str, tuple[str, ...]]] = {
        34: ("libcuda is a stub, not the driver's.", ("unset LD_LIBRARY_PATH",)),
        46: (
            "another process holds the GPU for itself.",
            ("nvidia-smi -q -d COMPUTE", "sudo nvidia-smi -c 0"),
        ),
        100: ("" if hidden else "it sees no GPU.", ("nvidia-smi -L",)),
        802: (
            "the fabric between the GPUs is not up; Fabric Manager brings it up.",
            remedies.install_fabric_manager(facts),
        ),
        803: (
            "libcuda and the module in the kernel do not fit each other.",
            ("sudo ldconfig", "sudo reboot"),
        ),
        804: (
            "a newer libcuda for forward compatibility is loaded, which works on data centre GPUs alone.",
            (remedies.without_folders(facts, *_compat_folders(facts)),),
        ),
        999: (
            "an unknown error; most often the module nvidia_uvm is not loaded, or was loaded before a sleep.",
            ("sudo modprobe -r nvidia_uvm", "sudo modprobe nvidia_uvm"),
        ),
    }
    return meanings.get(
        code, (f"the driver answers with error {code}.", ("sudo dmesg | grep -iE 'nvrm|xid'",))
    )


def _compat_folders(facts: Facts) -> list[str]:
    return sorted({one.folder for one in facts.driver.libraries if one.place == "compat"})
