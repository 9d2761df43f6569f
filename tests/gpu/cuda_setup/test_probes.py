"""Files of the kernel, of toolkits and of packages are read in the shapes that they have."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.cuda_machine import CudaMachine
from textnlp_fast.gpu.cuda_setup import examine
from textnlp_fast.gpu.cuda_setup.facts import Gpu
from textnlp_fast.gpu.cuda_setup.machine import Answer, Machine
from textnlp_fast.gpu.cuda_setup.probes.gathering import gather, merge_gpus
from textnlp_fast.gpu.cuda_setup.probes.kernel import read_module_version
from textnlp_fast.gpu.cuda_setup.probes.loading import ask_nvml
from textnlp_fast.gpu.cuda_setup.probes.packages import (
    find_packages,
    read_conda,
    read_torch,
)
from textnlp_fast.gpu.cuda_setup.probes.system import read_distribution, read_runtime, redirects
from textnlp_fast.gpu.cuda_setup.probes.toolkits import find_libraries, find_toolkits, toolkit_version
from textnlp_fast.gpu.cuda_setup.rules.compatibility import runs_on
from textnlp_fast.gpu.cuda_setup.tables import torch_architectures
from textnlp_fast.gpu.cuda_setup.versions import Version


@pytest.mark.parametrize(
    ("line", "version", "is_open"),
    [
        (
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  440.95.01  Thu May 28 07:03:08 UTC 2020",
            "440.95.01",
            False,
        ),
        (
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  177.80  Wed Oct  1 14:43:46 PDT 2008",
            "177.80",
            False,
        ),
        (
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build  "
            "(dvs-builder@U22-I3-B17-02-5)  Tue Sep 23 09:55:41 UTC 2025",
            "580.95.05",
            True,
        ),
        (
            "NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  580.142  Release Build  (root@x)",
            "580.142",
            True,
        ),
    ],
)
def test_the_module_s_version(line: str, version: str, is_open: bool) -> None:
    found, flavour = read_module_version(f"{line}\nGCC version:  gcc version 11.4.0 (Ubuntu)\n")
    assert str(found) == version
    assert flavour is is_open


@given(st.text(max_size=200))
def test_any_version_file_is_read_without_harm(text: str) -> None:
    read_module_version(text)
    read_module_version(f"NVRM version: {text}")


@given(st.binary(max_size=512))
def test_any_configuration_space_is_read_without_harm(config: bytes) -> None:
    assert redirects(config) in {True, False}


def test_a_configuration_space_that_leads_in_a_circle() -> None:
    config = bytearray(4096)
    config[0x100:0x104] = (0x0001 | 1 << 16 | 0x140 << 20).to_bytes(4, "little")
    config[0x140:0x144] = (0x0002 | 1 << 16 | 0x100 << 20).to_bytes(4, "little")
    assert not redirects(bytes(config))


@pytest.mark.parametrize(
    ("name", "family", "version"),
    [
        ("ubuntu", "ubuntu", "24.04"),
        ("debian", "debian", "12"),
        ("rhel9", "rhel", "9.7"),
        ("rhel10", "rhel", "10.1"),
        ("fedora", "fedora", "42"),
        ("amazon", "amazon", "2023"),
        ("sles", "suse", "15.6"),
        ("leap", "suse", "15.6"),
        ("arch", "arch", ""),
        ("mint", "ubuntu", "22"),
    ],
)
def test_distributions(fake: CudaMachine, name: str, family: str, version: str) -> None:
    found = read_distribution(fake.os(name).machine())
    assert (found.family, found.version) == (family, version)


def test_a_release_file_with_an_open_quote(fake: CudaMachine) -> None:
    found = read_distribution(
        fake.write("/etc/os-release", 'ID=debian\nPRETTY_NAME="Debian\nVERSION_ID="12"\n').machine()
    )
    assert (found.family, found.version, found.name) == ("debian", "12", "Debian")


# --- toolkits and libraries -------------------------------------------------------------------------------------


def test_where_a_toolkit_s_version_comes_from(fake: CudaMachine) -> None:
    fake.write("/a/version.json", '{"cuda": {"name": "CUDA SDK", "version": "12.4.20240321"}}')
    fake.write("/b/version.txt", "CUDA Version 10.1.243\n")
    fake.write("/c/include/cuda.h", "/* */\n#define CUDA_VERSION 13000\n")
    fake.folder("/usr/local/cuda-11.8")
    fake.write("/d/version.json", "{").write("/d/version.txt", "CUDA Version 9.2\n")
    fake.write("/e/version.json", "[" * 100_000).write("/f/version.json", '{"cuda": []}')
    machine = fake.machine()
    found = {
        path: toolkit_version(machine, path) for path in ("/a", "/b", "/c", "/usr/local/cuda-11.8", "/d")
    }
    assert {path: str(version) for path, version in found.items()} == {
        "/a": "12.4.20240321",
        "/b": "10.1.243",
        "/c": "13.0",
        "/usr/local/cuda-11.8": "11.8",
        "/d": "9.2",
    }
    assert toolkit_version(machine, "/e") is None
    assert toolkit_version(machine, "/f") is None


def test_a_toolkit_by_several_names_is_one(fake: CudaMachine) -> None:
    fake.toolkit("13.0.2").link("/usr/local/cuda", "cuda-13.0").link("/usr/local/cuda-13", "cuda-13.0")
    (toolkit,) = find_toolkits(fake.set(CUDA_HOME="/usr/local/cuda/").machine())
    assert toolkit.path == "/usr/local/cuda-13.0"


def test_a_library_by_its_link_and_its_file_is_one(fake: CudaMachine) -> None:
    fake.libraries("550.54.14").link("/usr/lib/x86_64-linux-gnu/libcuda.so", "libcuda.so.1")
    fake.link("/usr/lib/x86_64-linux-gnu/libnccl.so.2", "gone.so")
    found = [one for one in find_libraries(fake.machine(), ()) if one.name == "libcuda"]
    assert [(one.path, str(one.version), one.place) for one in found] == [
        ("/usr/lib/x86_64-linux-gnu/libcuda.so.550.54.14", "550.54.14", "system")
    ]


def test_folders_that_the_loader_is_told_of(fake: CudaMachine) -> None:
    fake.write("/etc/ld.so.conf.d/nccl.conf", "# NCCL\n/opt/nccl/lib\n").write(
        "/opt/nccl/lib/libnccl.so.2.27.3"
    )
    (found,) = find_libraries(fake.machine(), ())
    assert (found.name, str(found.version)) == ("libnccl", "2.27.3")


# --- packages ---------------------------------------------------------------------------------------------------


def test_torch_is_read_and_not_imported(fake: CudaMachine) -> None:
    fake.torch("2.8.0+cu126", "12.6", architectures="sm_50 sm_60 sm_70 sm_75 sm_80 sm_86 sm_90")
    (fake.site / "torch/__init__.py").write_text("raise RuntimeError('imported')\n")
    found = read_torch(fake.machine())
    assert found is not None
    assert (found.version, str(found.cuda), found.hip) == ("2.8.0+cu126", "12.6", False)
    assert found.architectures == ("sm_50", "sm_60", "sm_70", "sm_75", "sm_80", "sm_86", "sm_90")
    assert found.architectures_from == "library"


@pytest.mark.parametrize(
    ("torch", "cuda", "machine", "lowest", "highest"),
    [
        ("2.7.1", "12.8", "x86_64", "sm_75", "sm_120"),
        ("2.8.0", "12.8", "x86_64", "sm_70", "sm_120"),
        ("2.10.0", "12.8", "x86_64", "sm_70", "sm_120"),
        ("2.11.0", "12.8", "x86_64", "sm_75", "sm_120"),
        ("2.14.0", "12.6", "x86_64", "sm_50", "sm_90"),
        ("2.15.0", "13.2", "x86_64", "sm_75", "sm_120"),
    ],
)
def test_the_table_of_pytorch_s_wheels(
    torch: str, cuda: str, machine: str, lowest: str, highest: str
) -> None:
    release, built = Version.parse(torch), Version.parse(cuda)
    assert release is not None
    assert built is not None
    names = torch_architectures(release, built, machine)
    assert (names[0], names[-1]) == (lowest, highest)
    assert torch_architectures(release, built, "aarch64") == ()


def test_a_release_before_the_table_is_not_known() -> None:
    release, built = Version.parse("2.5.1"), Version.parse("12.8")
    assert release is not None
    assert built is not None
    assert torch_architectures(release, built, "x86_64") == ()


@pytest.mark.parametrize(
    ("capability", "architectures", "how"),
    [
        ((8, 9), ("sm_80", "sm_86"), "native"),  # a higher minor of the same major
        ((8, 0), ("sm_86",), None),
        ((9, 0), ("sm_80", "sm_86"), None),
        ((9, 0), ("sm_80", "compute_80"), "ptx"),
        ((9, 0), ("sm_90a",), "native"),
        ((9, 1), ("sm_90a", "compute_90a"), None),  # code for one GPU alone
        ((10, 3), ("sm_100",), "native"),
        ((12, 0), ("sm_100", "compute_100"), "ptx"),
        ((12, 1), ("sm_120",), "native"),
        ((7, 5), ("compute_80",), None),
        ((7, 5), ("nonsense", ""), None),
    ],
)
def test_which_code_runs_on_which_gpu(
    capability: tuple[int, int], architectures: tuple[str, ...], how: str | None
) -> None:
    assert runs_on(capability, architectures) == how


def test_broken_metadata_is_passed_over(fake: CudaMachine) -> None:
    fake.package("nvidia-nccl-cu12", "2.27.3")
    (fake.site / "broken-1.0.dist-info").mkdir()
    (fake.site / "empty-1.0.dist-info").mkdir()
    (fake.site / "empty-1.0.dist-info/METADATA").write_bytes(b"\xff\xfe\x00")
    assert set(find_packages(fake.machine())) == {"nvidia-nccl-cu12"}


def test_the_first_on_the_path_wins(fake: CudaMachine, tmp_path: Path) -> None:
    other = CudaMachine(tmp_path / "root", tmp_path / "user")
    other.package("nvidia-nccl-cu12", "2.20.5")
    fake.package("nvidia-nccl-cu12", "2.27.3")
    machine = Machine(root=fake.root, site_paths=(str(other.site), str(fake.site), "/not/there"))
    assert find_packages(machine)["nvidia-nccl-cu12"].version == "2.20.5"


def test_conda_s_records(fake: CudaMachine) -> None:
    for name in (
        "cuda-nvcc-12.4.131-0",
        "pytorch-2.5.1-py3.12_cuda12.4_cudnn9.1.0_0",
        "zlib-1.3.1-h4ab18f5_1",
        "odd",
    ):
        fake.write(f"/opt/conda/conda-meta/{name}.json", "{}")
    found = read_conda(fake.set(CONDA_PREFIX="/opt/conda").machine())
    assert found == {"cuda-nvcc": "12.4.131", "pytorch": "2.5.1"}


# --- the rest -----------------------------------------------------------------------------------------------------


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_any_answer_of_the_child_is_read_without_harm(document: object) -> None:
    text = json.dumps(document) + "\n"

    def run(*_: object, **__: object) -> Answer:
        return Answer(status=0, output=text)

    ask_nvml(Machine(runner=run))


@pytest.mark.parametrize(
    "text", ["[]", "{", '{"runtimes": 3}', '{"default-runtime": ["nvidia"]}', "[" * 100_000, "\x00"]
)
def test_odd_settings_of_docker(fake: CudaMachine, text: str) -> None:
    runtime = read_runtime(fake.write("/etc/docker/daemon.json", text).machine())
    assert not runtime.docker_has_nvidia


def test_gpus_of_two_readers_are_one_list() -> None:
    first = (Gpu(index=0, uuid="GPU-a", name="A", compute_capability=(9, 0)),)
    second = (
        Gpu(index=0, uuid="GPU-a", name="B", fabric_state="Completed"),
        Gpu(index=1, uuid="GPU-b", name="B"),
    )
    merged = merge_gpus(first, second)
    assert [(gpu.name, gpu.compute_capability, gpu.fabric_state) for gpu in merged] == [
        ("A", (9, 0), "Completed"),
        ("B", None, None),
    ]


def test_a_machine_full_of_rubbish_is_examined(fake: CudaMachine) -> None:
    rubbish = b"\xff\x00" + b"GPU0 : X\n" * 1000
    for path in (
        "/etc/os-release",
        "/proc/driver/nvidia/version",
        "/proc/version",
        "/proc/cpuinfo",
        "/proc/1/cgroup",
        "/etc/cdi/nvidia.yaml",
        "/etc/docker/daemon.json",
        "/sys/kernel/mm/transparent_hugepage/enabled",
        "/sys/bus/pci/devices/0000:00:00.0/vendor",
        "/usr/local/cuda-13.0/version.json",
        "/usr/local/cuda-13.0/include/cuda.h",
        "/lib/modules/x/updates/nvidia.ko",
    ):
        fake.write(path, rubbish)
    (fake.site / "torch").mkdir()
    (fake.site / "torch/version.py").write_bytes(rubbish)
    fake.command("nvidia-smi", "-q", output=rubbish.decode("utf-8", "replace"))
    fake.command("nvcc", "--version", output=rubbish.decode("utf-8", "replace"))
    fake.child("cuda", Answer(status=0, output="[]\nnot json\n")).child("nvml", Answer(status=1))
    fake.set(CUDA_VISIBLE_DEVICES="\x00,,", LD_LIBRARY_PATH=":::\n", CONDA_PREFIX="relative", CUDA_HOME="\n")
    report = examine(fake.machine())
    json.dumps(report.to_document(), allow_nan=False)


def test_a_hung_driver_is_asked_once(fake: CudaMachine) -> None:
    fake.gpus(["T4"])
    fake.answers["nvidia-smi", "-q"] = Answer(status=None, timed_out=True)
    gather(fake.machine())
    assert not [words for words in fake.asked if words[0] == "/usr/bin/python3"]
    assert len([words for words in fake.asked if words[0] == "nvidia-smi"]) == 1
