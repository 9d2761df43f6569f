"""The process that loads the driver's libraries, run for real against libraries that are compiled here."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from textnlp_fast.gpu.cuda_setup.machine import Machine, run_command
from textnlp_fast.gpu.cuda_setup.probes import loading
from textnlp_fast.gpu.cuda_setup.probes.loading import ask_cuda, ask_nvml

COMPILER = shutil.which("cc") or shutil.which("gcc")
SOURCE = Path(__file__).with_name("driver_library.c")

pytestmark = pytest.mark.skipif(COMPILER is None, reason="needs a C compiler")


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a libcuda and a libnvidia-ml."""
    folder = tmp_path_factory.mktemp("driver")
    assert COMPILER is not None
    for macro, name in (("LIBCUDA", "libcuda.so.1"), ("LIBNVML", "libnvidia-ml.so.1")):
        words = [COMPILER, "-shared", "-fPIC", f"-D{macro}", "-o", str(folder / name), str(SOURCE)]
        subprocess.run(words, check=True, capture_output=True)
    return folder


def with_driver(folder: Path, **variables: str) -> Machine:
    return Machine(environment={"PATH": os.environ["PATH"], "LD_LIBRARY_PATH": str(folder), **variables})


def test_a_driver_that_is_well(libraries: Path) -> None:
    cuda = ask_cuda(with_driver(libraries))
    assert (cuda.found, cuda.code, cuda.device_count, str(cuda.version)) == (True, 0, 2, "12.4")
    assert cuda.path == str(libraries / "libcuda.so.1")
    nvml, gpus = ask_nvml(with_driver(libraries))
    assert (nvml.found, nvml.code, str(nvml.driver), str(nvml.cuda)) == (True, 0, "550.54.14", "12.4")
    assert nvml.path == str(libraries / "libnvidia-ml.so.1")
    assert [(gpu.index, gpu.name, gpu.compute_capability) for gpu in gpus] == [
        (0, "NVIDIA Test 0", (8, 0)),
        (1, "NVIDIA Test 1", (8, 1)),
    ]
    assert [gpu.uuid for gpu in gpus] == [f"GPU-0000000{n}-aaaa-bbbb-cccc-000000000000" for n in range(2)]
    assert [gpu.pci_bus_id for gpu in gpus] == ["00000000:00:00.0", "00000000:01:00.0"]
    assert [gpu.memory_bytes for gpu in gpus] == [80 << 30] * 2
    assert [gpu.persistence for gpu in gpus] == [True, False]
    assert [(gpu.mig, gpu.mig_pending) for gpu in gpus] == [(False, True), (None, None)]


@pytest.mark.parametrize("code", [100, 802, 803, 999])
def test_a_driver_that_answers_with_an_error(libraries: Path, code: int) -> None:
    cuda = ask_cuda(with_driver(libraries, FAKE_CUDA_CODE=str(code)))
    assert (cuda.found, cuda.code, cuda.device_count) == (True, code, None)


def test_nvml_that_does_not_fit_the_module(libraries: Path) -> None:
    nvml, gpus = ask_nvml(with_driver(libraries, FAKE_NVML_CODE="18"))
    assert (nvml.found, nvml.code, nvml.driver) == (True, 18, None)
    assert gpus == ()


def test_a_lost_gpu_beside_one_that_is_well(libraries: Path) -> None:
    _, gpus = ask_nvml(with_driver(libraries, FAKE_LOST="0"))
    assert [(gpu.index, gpu.uuid is None) for gpu in gpus] == [(0, True), (1, False)]


def test_a_driver_that_hangs(libraries: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "_TIMEOUT_S", 5.0)
    cuda = ask_cuda(with_driver(libraries, FAKE_CUDA_INIT="hang"))
    assert cuda.timed_out
    assert cuda.found is None
    assert "5 s" in cuda.message


def test_a_driver_that_crashes(libraries: Path) -> None:
    cuda = ask_cuda(with_driver(libraries, FAKE_CUDA_INIT="crash"))
    assert cuda.found is None
    assert "signal 11" in cuda.message


def test_a_driver_that_prints_what_looks_like_an_answer(libraries: Path) -> None:
    cuda = ask_cuda(with_driver(libraries, FAKE_CUDA_INIT="talk"))
    assert (cuda.found, cuda.code) == (True, 0)


def test_a_library_that_is_none_of_a_driver(tmp_path: Path) -> None:
    (tmp_path / "empty.c").write_text("int nothing;\n")
    assert COMPILER is not None
    words = [COMPILER, "-shared", "-fPIC", "-o", str(tmp_path / "libcuda.so.1"), str(tmp_path / "empty.c")]
    subprocess.run(words, check=True, capture_output=True)
    cuda = ask_cuda(with_driver(tmp_path))
    assert cuda.found
    assert cuda.code is None
    assert "not a driver's library" in cuda.message


def test_a_file_that_is_no_library(tmp_path: Path) -> None:
    (tmp_path / "libcuda.so.1").write_text("no library")
    cuda = ask_cuda(with_driver(tmp_path))
    assert cuda.found is False
    assert cuda.message


def test_what_hides_gpus_from_cuda_acts_in_there(libraries: Path) -> None:
    seen = []

    def watch(arguments: list[str], **how: object) -> object:
        seen.append(how["environment"])
        return run_command(arguments, **how)  # type: ignore[arg-type]

    machine = with_driver(libraries, CUDA_VISIBLE_DEVICES="1")
    ask_cuda(Machine(environment=machine.environment, runner=watch))  # type: ignore[arg-type]
    assert seen[0]["CUDA_VISIBLE_DEVICES"] == "1"
