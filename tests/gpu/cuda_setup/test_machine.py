"""Commands end in time and files are read within bounds, whatever stands behind them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from textnlp_fast.gpu.cuda_setup import machine as machine_module
from textnlp_fast.gpu.cuda_setup.machine import Answer, Machine, run_command

PYTHON = sys.executable


def run(script: str, *, timeout_s: float = 60.0, limit_bytes: int = 1 << 20) -> Answer:
    environment = {"PATH": os.environ["PATH"]}
    return run_command(
        [PYTHON, "-c", script], environment=environment, timeout_s=timeout_s, limit_bytes=limit_bytes
    )


def gone(number: int) -> bool:
    """Whether a process ended; it may be a zombie for the while that nobody has looked."""
    for _ in range(200):
        try:
            state = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


def test_a_command_s_output_errors_and_status() -> None:
    answer = run("import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)")
    assert (answer.status, answer.output, answer.errors) == (3, "out\n", "err\n")
    assert not answer.ok
    assert answer.text == "out\nerr"


def test_a_command_that_hangs_is_killed_with_its_children(tmp_path: Path) -> None:
    numbers = tmp_path / "numbers"
    script = (
        "import os, subprocess, sys, time\n"
        f"child = subprocess.Popen([{PYTHON!r}, '-c', 'import time; time.sleep(600)'])\n"
        f"open({str(numbers)!r}, 'w').write(f'{{os.getpid()}} {{child.pid}}')\n"
        "print('before', flush=True)\n"
        "time.sleep(600)\n"
    )
    answer = run(script, timeout_s=6.0)
    assert answer.timed_out
    assert answer.status is None
    assert not answer.stuck
    if numbers.exists():  # a very busy machine may not have started it in time
        assert answer.output == "before\n"
        for number in map(int, numbers.read_text().split()):
            assert gone(number)


def test_a_command_that_closes_its_output_and_hangs_is_killed() -> None:
    answer = run("import os, time; os.close(1); os.close(2); time.sleep(600)", timeout_s=3.0)
    assert answer.timed_out


def test_a_command_that_leaves_a_child_behind_does_not_keep_us() -> None:
    script = f"import subprocess; subprocess.Popen([{PYTHON!r}, '-c', 'import time; time.sleep(600)'])"
    answer = run(script, timeout_s=4.0)
    # The child holds the pipe; the time limit ends the wait, and it.
    assert answer.status in {0, None}


def test_an_interrupt_takes_the_command_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = []

    def interrupted(process: subprocess.Popen[bytes], *_: object) -> None:
        started.append(process.pid)
        raise KeyboardInterrupt

    monkeypatch.setattr(machine_module, "_read", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run("import time; time.sleep(600)")
    assert gone(started[0])


def test_another_tree_s_commands_are_not_run_here(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/true").write_text("")
    machine = Machine(root=tmp_path, environment={"PATH": "/bin"})
    assert machine.which("true") == "/bin/true"
    assert machine.run("true").missing


def test_endless_output_is_cut_and_the_command_killed() -> None:
    answer = run("while True: print('x' * 4096)", limit_bytes=100_000)
    assert answer.truncated
    assert not answer.ok
    assert len(answer.output) <= 100_000


def test_output_that_is_no_text_is_read() -> None:
    answer = run("import sys; sys.stdout.buffer.write(b'\\xff\\x00ok')")
    assert answer.ok
    assert "ok" in answer.output


def test_a_command_that_is_not_there() -> None:
    answer = run_command(["/no/such/command"], environment={}, timeout_s=5, limit_bytes=10)
    assert answer.missing
    assert Machine(environment={"PATH": "/no/such/folder"}).run("nvidia-smi").missing


def test_a_command_that_may_not_be_run(tmp_path: Path) -> None:
    (tmp_path / "nvidia-smi").write_text("no program")
    (tmp_path / "nvidia-smi").chmod(0o755)
    answer = Machine(environment={"PATH": str(tmp_path)}).run("nvidia-smi")
    assert answer.status is None
    assert answer.errors


def test_only_absolute_folders_of_path_are_looked_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nvcc").write_text("#!/bin/sh\n")
    monkeypatch.chdir(tmp_path)
    assert Machine(environment={"PATH": ".:"}).which("nvcc") is None
    assert Machine(environment={"PATH": str(tmp_path)}).which("nvcc") == str(tmp_path / "nvcc")


def test_files_are_read_up_to_a_limit(tmp_path: Path) -> None:
    (tmp_path / "long").write_bytes(b"x" * 100)
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    (tmp_path / "folder").mkdir()
    machine = Machine(root=tmp_path)
    assert machine.read("/long", limit_bytes=10) == "x" * 10
    assert machine.read_bytes("/long", limit_bytes=5, at=-3) == b"xxx"
    assert machine.read("/bytes") == "\ufffd\ufffd"
    assert machine.read("/folder") is None
    assert machine.read("/not/there") is None


def test_a_pipe_in_a_file_s_place_does_not_keep_us(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "version")
    assert Machine(root=tmp_path).read("/version") is None


def test_a_loop_of_links_is_nothing(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    machine = Machine(root=tmp_path)
    assert machine.read("/a") is None
    assert not machine.is_dir("/a")


def test_this_machine_has_limits_and_sizes() -> None:
    machine = Machine()
    limit = machine.lockable_bytes()
    assert limit is None or limit > 0
    assert (machine.size_of("/") or 0) > 0
    assert machine.size_of("/no/such/place") is None
