"""The environment that fits a machine, as a file for `. FILE` in sh."""

from __future__ import annotations

import os
import shlex
import tempfile
from contextlib import suppress
from pathlib import Path

from textnlp_fast.errors import InvalidInputError
from textnlp_fast.gpu.cuda_setup.facts import Facts
from textnlp_fast.gpu.cuda_setup.rules.environment import toolkit_of

__all__ = ["environment_of", "write_environment"]

_FIRST = "# CUDA's environment, written by `textnlp-fast gpu doctor --write-env`. Use it with `. FILE`."


def environment_of(facts: Facts) -> str:
    """The file's text: CUDA_HOME, its folders once on PATH and LD_LIBRARY_PATH, and hints for NCCL as comments.

    Sourcing it twice changes nothing more than once. Of LD_LIBRARY_PATH entries are left out that are not there, are
    empty, or lead to stubs.
    """
    lines = [_FIRST]
    toolkit = toolkit_of(facts)
    if toolkit is None:
        lines.append("# No CUDA toolkit with a compiler was found: CUDA_HOME and PATH stay as they are.")
    else:
        lines.append(f"export CUDA_HOME={shlex.quote(toolkit.path)}")
        lines.append(_prepend("PATH", f"{toolkit.path}/bin"))
    bad = [entry for entry, real in facts.search_paths.items() if not real or real.endswith("/stubs")]
    if bad:
        kept = [entry for entry in facts.search_paths if entry not in bad]
        lines.append("# Without entries that are not there, are empty or lead to stubs.")
        lines.append(
            f"export LD_LIBRARY_PATH={shlex.quote(':'.join(kept))}" if kept else "unset LD_LIBRARY_PATH"
        )
    # What brings its own CUDA does so without this; a system's libraries before it would be the wrong ones.
    if toolkit is not None and not (facts.torch is not None and facts.torch.cuda is not None):
        lines.append(_prepend("LD_LIBRARY_PATH", f"{toolkit.path}/lib64"))
    if len({gpu.name for gpu in facts.gpus}) > 1:
        lines.append("# GPUs of several kinds: count them as nvidia-smi does.")
        lines.append("export CUDA_DEVICE_ORDER=PCI_BUS_ID")
    lines.extend(_nccl_hints(facts))
    return "\n".join(lines) + "\n"


def write_environment(facts: Facts, path: Path | str) -> bool:
    """Writes the file, whole or not at all; false if it is there already with the same text.

    Raises InvalidInputError where it cannot be written, or something else than such a file is there.
    """
    target = Path(path)
    text = environment_of(facts)
    try:
        if target.is_dir():
            raise InvalidInputError(f"{target} is a folder", hint="Name a file: --write-env cuda.env")
        if target.exists():
            with target.open("rb") as file:
                there = file.read(1 << 20)
            if there == text.encode():
                return False
            if not there.startswith(_FIRST.encode()) and there:
                raise InvalidInputError(
                    f"{target} is there and was not written by this command",
                    hint="Name another file, or move that one away.",
                )
        if not target.parent.is_dir():
            # Made by us it would hide a slip in the path: nobody sources a file that lies elsewhere.
            raise InvalidInputError(
                f"{target} cannot be written: there is no folder {target.parent}",
                hint="Name a file in a folder that is there.",
            )
        _replace(target, text)
    except OSError as error:
        raise InvalidInputError(
            f"{target} cannot be written: {error.strerror or error}", hint="Name a place where you may write."
        ) from error
    return True


def _replace(target: Path, text: str) -> None:
    # A link stays one: what it leads to is replaced.
    real = Path(os.path.realpath(target))
    descriptor, name = tempfile.mkstemp(dir=real.parent, prefix=f".{real.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(real)
    except BaseException:
        with suppress(OSError):
            Path(name).unlink()
        raise


def _prepend(variable: str, folder: str) -> str:
    """Puts a folder first in a list of folders, unless it is in it. In sh, without any program."""
    quoted = shlex.quote(folder)
    return (
        f'case ":${{{variable}:-}}:" in *:{quoted}:*) ;; '
        f'*) export {variable}={quoted}"${{{variable}:+:${variable}}}" ;; esac'
    )


def _nccl_hints(facts: Facts) -> list[str]:
    if len(facts.gpus) < 2:
        return []
    hints = ["# NCCL, for when something between the GPUs is slow or hangs:", "# export NCCL_DEBUG=INFO"]
    if any(kind not in {"OK", "X"} for _, _, kind in facts.smi.p2p):
        hints.append("# Not all GPUs can read each other; if NCCL hangs:")
        hints.append("# export NCCL_P2P_DISABLE=1")
    if (facts.system.shm_bytes or 1 << 40) < 1 << 30:
        hints.append("# /dev/shm is small; enlarge it, or, slower:")
        hints.append("# export NCCL_SHM_DISABLE=1")
    if facts.system.infiniband:
        names = ",".join(name for name in facts.system.infiniband if name.replace("_", "").isalnum())
        hints.append(f"# export NCCL_IB_HCA={names}")
    return hints
