"""The bench of a CUDA device runs: on an emulated one at small sizes, and where there is none it says why."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from codec.devices import INFO, NO_DEVICE

SCRIPT = Path(__file__).resolve().parents[2] / "benches" / "gpu_report.py"
# As this process finds the package: an emulated build lies before the installed one.
LAUNCH = (
    "import runpy, sys; sys.path[:0] = {path!r}; "
    "sys.meta_path[:] = [f for f in sys.meta_path if {plain} or 'ScikitBuild' not in type(f).__name__]; "
    "sys.argv[:] = {arguments!r}; runpy.run_path({script!r}, run_name='__main__')"
)


def run(*arguments: str) -> str:
    import textnlp_fast  # noqa: PLC0415

    place = str(Path(textnlp_fast.__file__).parents[1])
    plain = any("ScikitBuild" in type(finder).__name__ for finder in sys.meta_path)
    code = LAUNCH.format(
        path=[str(SCRIPT.parent)] if plain else [place, str(SCRIPT.parent)],
        plain=plain,
        arguments=[str(SCRIPT), *arguments],
        script=str(SCRIPT),
    )
    environment = {**os.environ, "COLUMNS": "200"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env=environment,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.skipif(INFO["device_count"] > 0, reason="a CUDA device is present")
def test_without_a_device_it_says_why() -> None:
    assert run().strip().replace("\n", " ") == f"nothing to measure: {INFO['reason']}"


@pytest.mark.gpu
@NO_DEVICE
def test_it_measures_all_it_can() -> None:
    shown = run("--smoke")
    for what in (
        "copy on the device",
        "statistics of a change, RL step",
        "decode, RL step, in place",
        "decode, first step",
        "decode, fine-tune",
        "decode, standalone",
        "BLAKE3",
        "chunks of 4 tensors",
        "decode_many in place, RL step",
        "swap, RL step",
        "load of a version, RL step",
    ):
        assert what in shown, what
    # What is not measured has its reason.
    assert shown.count("GB/s") > 10
    for line in shown.splitlines():
        if line.startswith("not measured"):
            assert len(line) > 20


@pytest.mark.skipif(not INFO["emulated"], reason="no emulated device")
def test_an_emulated_device_has_no_speed() -> None:
    assert "emulated" in run()
