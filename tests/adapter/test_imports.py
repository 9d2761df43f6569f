"""What a description takes to be read: every verb of `deploy` waits for it."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

SLOW = ("pydantic", "textnlp_fast.gpu.resources.manager", "textnlp_fast.gpu.resources.acquiring")


def test_a_description_loads_no_clouds_and_no_settings() -> None:
    code = (
        "import sys, textnlp_fast.adapter.reading, textnlp_fast.adapter.rollout.pool_file\n"
        f"print(*[one for one in {SLOW!r} if one in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True
    )
    assert done.stdout.split() == []


def test_a_command_ends_without_a_search_for_garbage() -> None:
    code = (
        "import atexit, gc; atexit.register(lambda: print('left out:', gc.get_freeze_count()))\n"
        "from textnlp_fast.cli import main\n"
        "try: main(['deploy', '--help'])\n"
        "except SystemExit: assert gc.get_freeze_count() == 0"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True
    )
    assert int(done.stdout.rpartition("left out: ")[2]) > 1000


def test_a_command_after_the_verb_that_is_called_as_a_module_of_python() -> None:
    code = (
        "from textnlp_fast.cli import main\n"
        "for verb in ('gc', 'ls'):\n"
        "    try: main([verb, '--help'])\n"
        "    except SystemExit as ended: print('ended:', ended.code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True
    )
    assert done.stdout.count("ended: 0") == 2


def test_a_terminal_hears_at_once_what_is_read(tmp_path: Path) -> None:
    file = tmp_path / "chat.yaml"
    file.write_text("name: 5\n")
    ours, theirs = pty.openpty()
    code = (
        "import sys; from textnlp_fast.cli import main\n"
        "import textnlp_fast.cli.arguments as arguments\n"
        "arguments.import_module = lambda name: sys.exit(f'loading {name}')\n"
        f"main(['deploy', 'status', {str(file)!r}])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=theirs, timeout=300, check=False
    )
    os.close(theirs)
    said = os.read(ours, 65536).decode()
    os.close(ours)
    assert done.returncode == 1 and done.stdout == b""
    assert said.splitlines() == [f"reading {file}", "loading textnlp_fast.storage"]
