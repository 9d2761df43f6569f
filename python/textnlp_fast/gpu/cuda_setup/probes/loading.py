"""Asks libcuda and libnvidia-ml, each in a child process with a time limit: a driver that hangs keeps only that."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from textnlp_fast.gpu.cuda_setup.facts import CudaFacts, Gpu, NvmlFacts
from textnlp_fast.gpu.cuda_setup.machine import Answer, Machine
from textnlp_fast.gpu.cuda_setup.versions import Version

__all__ = ["CHILD", "ask_cuda", "ask_nvml"]

CHILD = str(Path(__file__).with_name("driver_child.py"))
# Eight GPUs without persistence need some seconds each to be woken up.
_TIMEOUT_S = 45.0


def ask_cuda(machine: Machine) -> CudaFacts:
    """Which libcuda programs load here, and what it answers."""
    answer = _ask(machine, "cuda")
    document = _document(answer)
    if document is None:
        return CudaFacts(
            found=None, timed_out=answer.timed_out, stuck=answer.stuck, message=_death_of(answer)
        )
    number = _integer(document, "version")
    return CudaFacts(
        found=document.get("found") is True,
        path=_text(document, "path"),
        version=Version.of_number(number) if number else None,
        code=_integer(document, "code"),
        device_count=_integer(document, "device_count"),
        message=_text(document, "message") or "",
    )


def ask_nvml(machine: Machine) -> tuple[NvmlFacts, tuple[Gpu, ...]]:
    """What the management library says, and the GPUs that it shows."""
    document = _document(_ask(machine, "nvml"))
    if document is None:
        return NvmlFacts(), ()
    number = _integer(document, "cuda")
    facts = NvmlFacts(
        found=document.get("found") is True,
        path=_text(document, "path"),
        code=_integer(document, "code"),
        driver=Version.parse(_text(document, "driver") or ""),
        cuda=Version.of_number(number) if number else None,
    )
    entries = document.get("gpus")
    gpus = (_gpu(entry) for entry in entries if isinstance(entry, dict)) if isinstance(entries, list) else ()
    return facts, tuple(gpus)


def _ask(machine: Machine, what: str) -> Answer:
    # -I -S: nothing of the user's Python runs in there; LD_LIBRARY_PATH and CUDA's variables still act.
    return machine.run(machine.python, "-I", "-S", CHILD, what, timeout_s=_TIMEOUT_S, lookup=False)


def _gpu(entry: dict[str, Any]) -> Gpu:
    capability = entry.get("compute_capability")
    return Gpu(
        index=_integer(entry, "index") or 0,
        uuid=_text(entry, "uuid"),
        name=_text(entry, "name") or "GPU",
        pci_bus_id=_text(entry, "pci_bus_id"),
        compute_capability=(
            (int(capability[0]), int(capability[1]))
            if isinstance(capability, list) and len(capability) == 2
            else None
        ),
        memory_bytes=_integer(entry, "memory_bytes"),
        persistence=_flag(entry, "persistence"),
        mig=_flag(entry, "mig"),
        mig_pending=_flag(entry, "mig_pending"),
    )


def _document(answer: Answer) -> dict[str, Any] | None:
    """The last line that is JSON: a library that prints to stdout does not spoil it."""
    if not answer.ok:
        return None
    for line in reversed(answer.output.splitlines()):
        try:
            document = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(document, dict):
            return document
    return None


def _death_of(answer: Answer) -> str:
    if answer.missing:
        return ""  # there is no Python to ask with
    if answer.timed_out:
        return f"no answer in {_TIMEOUT_S:.0f} s"
    if answer.status is not None and answer.status < 0:
        return f"the process that loaded it died of signal {-answer.status}"
    return answer.errors.strip().splitlines()[-1][:300] if answer.errors.strip() else "no answer"


def _text(document: dict[str, Any], key: str) -> str | None:
    value = document.get(key)
    return value[:1000] if isinstance(value, str) else None


def _integer(document: dict[str, Any], key: str) -> int | None:
    value = document.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _flag(document: dict[str, Any], key: str) -> bool | None:
    value = document.get(key)
    return value if isinstance(value, bool) else None
