"""What nvidia-smi prints is read, from several versions of it, and anything else does no harm."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fakes.cuda_machine import CudaMachine, topology
from textnlp_fast.gpu.cuda_setup.machine import Answer
from textnlp_fast.gpu.cuda_setup.probes.smi import (
    ask_smi,
    read_capabilities,
    read_details,
    read_list,
    read_matrix,
)

# As R610 prints it: the kernel's and the user's half have versions of their own.
R610 = """
==============NVSMI LOG==============

Timestamp                                              : Wed Sep 30 21:53:38 2026
KMD Version                                            : 610.57.04
CUDA UMD Version                                       : 13.3

Attached GPUs                                          : 1
GPU 00000000:01:00.0
    Product Name                                       : NVIDIA GeForce RTX 5060
    Persistence Mode                                   : Disabled
    MIG Mode
        Current                                        : N/A
        Pending                                        : N/A
    GPU UUID                                           : GPU-5fd2f5bb-12a1-ad58-a590-2f48aa312d92
    FB Memory Usage
        Total                                          : 8151 MiB
        Reserved                                       : 400 MiB
    Fabric
        State                                          : N/A
        Status                                         : N/A
    Processes
        GPU instance ID                                : N/A
        Process ID                                     : 4242
            Name                                       : /usr/bin/GPU 7 : a trap
"""
# In one of these lines a file of the cloud has no space between the columns' names and the escape codes.
EIGHT_B300 = """NVIDIA Topology:
\t\x1b[4mGPU0\tGPU1\tGPU2\tGPU3\tNIC0\tNIC1\tCPU Affinity\tNUMA Affinity\tGPU NUMA ID\x1b[0m
GPU0\t X \tNV18\tNV18\tNV18\tPXB\tNODE\t0-63,128-191\t0\t\tN/A
GPU1\tNV18\t X \tNV18\tNV18\tNODE\tPXB\t0-63,128-191\t0\t\tN/A
GPU2\tNV18\tNV18\t X \tNV18\tNODE\tNODE\t0-63,128-191\t0\t\tN/A
GPU3\tNV18\tNV18\tNV18\t X \tNODE\tNODE\t64-127,192-255\t1\t\tN/A
NIC0\tPXB\tNODE\tNODE\tNODE\t X \tNODE\t\t\t\t
NIC1\tNODE\tPXB\tNODE\tNODE\tNODE\t X \t\t\t\t

Legend:

  X    = Self
  SYS  = Connection traversing PCIe as well as the SMP interconnect between NUMA nodes (e.g., QPI/UPI)
"""


def test_the_layout_of_r610() -> None:
    driver, cuda, gpus = read_details(R610)
    assert (str(driver), str(cuda)) == ("610.57.04", "13.3")
    (gpu,) = gpus
    assert gpu.name == "NVIDIA GeForce RTX 5060"
    assert gpu.uuid == "GPU-5fd2f5bb-12a1-ad58-a590-2f48aa312d92"
    assert gpu.memory_bytes == 8151 << 20
    assert (gpu.persistence, gpu.mig, gpu.fabric_state) == (False, None, None)
    assert gpu.pci_bus_id == "00000000:01:00.0"


def test_a_matrix_with_network_cards() -> None:
    pairs = read_matrix(EIGHT_B300)
    assert pairs == tuple((row, column, "NV18") for row in range(4) for column in range(row + 1, 4))


@given(st.integers(2, 9), st.sampled_from(["NV18", "PIX", "SYS", "NODE", "PHB", "PXB"]), st.booleans())
def test_any_matrix_has_every_pair_once(count: int, kind: str, peers: bool) -> None:
    kind = "CNS" if peers else kind
    pairs = read_matrix(topology(count, kind, {(0, 1): "NS" if peers else "NV4"}, peers=peers))
    assert [(row, column) for row, column, _ in pairs] == [
        (row, column) for row in range(count) for column in range(row + 1, count)
    ]
    assert [kind for _, _, kind in pairs] == ["NS" if peers else "NV4"] + [kind] * (len(pairs) - 1)


def test_capabilities_and_instances() -> None:
    assert read_capabilities("0, 9.0\n1, 12.1\nnot, a.row\n2, [N/A]\n") == {0: (9, 0), 1: (12, 1)}
    listed = (
        "GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-5d5ba0d6-d33d-2b2c-524d-9e3d8d2b8a77)\n"
        "  MIG 1g.5gb      Device  0: (UUID: MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f)\n"
        "  MIG 3g.20gb     Device  1: (UUID: MIG-cba663e8-9bed-5b25-b243-5985ef7c9beb)\n"
        "GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-6b9a0bd2-90cc-4e1c-a3f4-b1cf4d8e3a52)\n"
    )
    assert read_list(listed) == {
        0: ("MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f", "MIG-cba663e8-9bed-5b25-b243-5985ef7c9beb")
    }


@given(st.text(alphabet=st.sampled_from("GPU 0123456789:\tX NVSYS\n,.()-MIG=abc\x1b["), max_size=400))
def test_any_text_is_read_without_harm(text: str) -> None:
    read_matrix(text)
    read_list(text)
    read_capabilities(text)
    _, _, gpus = read_details(text)
    assert len(gpus) <= 1024


def test_a_hundred_thousand_gpus_are_not_kept() -> None:
    _, _, gpus = read_details("GPU 00000000:01:00.0\n    Product Name : x\n" * 100_000)
    assert len(gpus) == 1024
    assert read_matrix("\t".join(["GPU0"] * 100_000)) == ()


def test_an_old_nvidia_smi_that_knows_no_capabilities(fake: CudaMachine) -> None:
    fake.gpus(["V100"], "450.80.02", "11.0")
    query = ("nvidia-smi", "--query-gpu=index,compute_cap", "--format=csv,noheader")
    fake.answers[query] = Answer(status=2, output='Field "compute_cap" is not a valid field to query.\n\n')
    smi, gpus = ask_smi(fake.machine())
    assert smi.ok
    assert gpus[0].compute_capability is None


def test_after_no_answer_nothing_more_is_asked(fake: CudaMachine) -> None:
    fake.gpus(["T4", "T4"])
    fake.answers["nvidia-smi", "-q"] = Answer(status=None, timed_out=True)
    smi, gpus = ask_smi(fake.machine())
    assert smi.timed_out
    assert gpus == ()
    assert fake.asked == [("nvidia-smi", "-q")]


def test_an_answer_without_end_is_an_error(fake: CudaMachine) -> None:
    fake.gpus(["T4"])
    fake.answers["nvidia-smi", "-q"] = Answer(status=None, truncated=True, output="x" * 1000)
    smi, _ = ask_smi(fake.machine())
    assert not smi.ok
    assert "without end" in smi.message
