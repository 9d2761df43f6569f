"""Ctrl-C while modules are loaded: one line and code 130, whichever module it hits."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from faults.children import heed_interrupts

# Stands in for a module that is loaded just when the interrupt comes; the loader would swallow some errors.
INTERRUPTED = """
import os, signal
try:
    os.kill(os.getpid(), signal.SIGINT)
    for _ in range(1000): pass
except BaseException:
    raise ImportError("an interrupt came out as another error")
"""

ENTRY = "import sys; from textnlp_fast.cli import main; sys.exit(main())"


def run(stubs: Path, *words: str, program: tuple[str, ...] = ("-c", ENTRY)) -> tuple[int, str, str]:
    path = os.pathsep.join(filter(None, [str(stubs), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, *program, *words],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": path},
        timeout=60,
        preexec_fn=heed_interrupts,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("program", [("-c", ENTRY), ("-m", "textnlp_fast.cli")])
@pytest.mark.parametrize("module", ["click", "rich", "obstore", "semver"])
def test_an_interrupt_during_an_import(tmp_path: Path, module: str, program: tuple[str, ...]) -> None:
    (tmp_path / module).mkdir()
    (tmp_path / module / "__init__.py").write_text(INTERRUPTED)
    ended = run(tmp_path, "ls", "--repo", str(tmp_path / "r"), program=program)
    assert ended == (130, "", "interrupted\n")


def test_an_interrupt_while_patches_are_loaded(tmp_path: Path) -> None:
    (tmp_path / "numpy").mkdir()
    (tmp_path / "numpy" / "__init__.py").write_text(INTERRUPTED)
    ended = run(tmp_path, "delta", "inspect", __file__)
    assert ended == (130, "", "interrupted\n")


def test_an_interrupt_before_the_handler_is_there(tmp_path: Path) -> None:
    program = (
        "import sys, builtins\n"
        "from textnlp_fast.cli import main\n"
        "real = builtins.__import__\n"
        "def hit(name, *rest, **more):\n"
        "    if name == 'textnlp_fast.cli.interrupts': raise KeyboardInterrupt\n"
        "    return real(name, *rest, **more)\n"
        "builtins.__import__ = hit\n"
        "main(['ls'])\n"
    )
    assert run(tmp_path, program=("-c", program)) == (130, "", "interrupted\n")


def test_nothing_is_loaded_before_main_runs(tmp_path: Path) -> None:
    program = (
        "import sys; before = set(sys.modules); import textnlp_fast.cli\n"
        "slow = {'click', 'numpy', 'rich', 'typing', 'textnlp_fast._native', 'textnlp_fast.errors'}\n"
        "print(sorted(slow & set(sys.modules) - before))\n"
    )
    assert run(tmp_path, program=("-c", program)) == (0, "[]\n", "")


def test_an_ignored_interrupt_stays_ignored(tmp_path: Path) -> None:
    (tmp_path / "semver").mkdir()
    (tmp_path / "semver" / "__init__.py").write_text(
        "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nraise SystemExit(77)\n"
    )
    program = ("-c", "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); " + ENTRY)
    code, _, err = run(tmp_path, "ls", "--repo", str(tmp_path / "r"), program=program)
    assert (code, err) == (77, "")


def test_the_handler_goes_when_the_block_ends() -> None:
    from textnlp_fast.cli.interrupts import ending_at_once  # noqa: PLC0415

    before = signal.getsignal(signal.SIGINT)
    with ending_at_once():
        inside = signal.getsignal(signal.SIGINT)
        with ending_at_once():
            assert signal.getsignal(signal.SIGINT) is inside
        assert signal.getsignal(signal.SIGINT) is inside
    assert signal.getsignal(signal.SIGINT) is before
    if before is signal.default_int_handler:
        assert inside is not before
