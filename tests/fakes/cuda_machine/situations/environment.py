"""Environment variables that mislead."""

from __future__ import annotations

from fakes.cuda_machine.situations.table import PROBLEM, UNKNOWN, WARNING, situation

situation(
    "CUDA_VISIBLE_DEVICES is empty",
    lambda m: (
        m.gpus(["T4"])
        .set(CUDA_VISIBLE_DEVICES="")
        .child("cuda", {"found": True, "code": 100, "version": 13000})
    ),
    wrong={"visible-devices": PROBLEM},
    commands={"visible-devices": "unset CUDA_VISIBLE_DEVICES"},
)
situation(
    "CUDA_VISIBLE_DEVICES is -1",
    lambda m: m.gpus(["T4"]).set(CUDA_VISIBLE_DEVICES="-1"),
    wrong={"visible-devices": PROBLEM},
    says={"visible-devices": "is -1"},
)
situation(
    "CUDA_VISIBLE_DEVICES names a GPU too many",
    lambda m: m.gpus(["T4", "T4"]).set(CUDA_VISIBLE_DEVICES="0,5,1"),
    wrong={"visible-devices": PROBLEM, "acs": UNKNOWN},
    commands={"visible-devices": "export CUDA_VISIBLE_DEVICES=0"},
    says={"visible-devices": "2 of 3 are ignored"},
)
situation(
    "CUDA_VISIBLE_DEVICES names a GPU that is gone",
    lambda m: m.gpus(["T4"]).set(CUDA_VISIBLE_DEVICES="GPU-deadbeef-0000"),
    wrong={"visible-devices": PROBLEM},
    says={"visible-devices": "GPU 0: GPU-00000000-bb8e"},
)
situation(
    "CUDA_VISIBLE_DEVICES names a GPU twice",
    lambda m: m.gpus(["T4", "T4"]).set(CUDA_VISIBLE_DEVICES="1,1"),
    wrong={"visible-devices": PROBLEM, "acs": UNKNOWN},
)
situation(
    "CUDA_VISIBLE_DEVICES by the start of a UUID",
    lambda m: m.gpus(["T4", "T4"]).set(CUDA_VISIBLE_DEVICES="GPU-00000001"),
    wrong={"acs": UNKNOWN},
    fine=("visible-devices",),
)
situation(
    "CUDA_VISIBLE_DEVICES by a MIG device",
    lambda m: m.gpus(["A100"], mig=[("Enabled", "Enabled", 2)]).set(
        CUDA_VISIBLE_DEVICES="MIG-00000000-0000-5000-8000-000000000001"
    ),
    fine=("visible-devices", "mig"),
)
situation(
    "numbers of GPUs of several kinds",
    lambda m: m.gpus(["T4", "4090"]).set(CUDA_VISIBLE_DEVICES="0"),
    wrong={"device-order": WARNING, "acs": UNKNOWN},
    commands={"device-order": "export CUDA_DEVICE_ORDER=PCI_BUS_ID"},
    fine=("visible-devices",),
)
situation(
    "numbers of GPUs of several kinds, by the bus",
    lambda m: m.gpus(["T4", "4090"]).set(CUDA_VISIBLE_DEVICES="0", CUDA_DEVICE_ORDER="PCI_BUS_ID"),
    wrong={"acs": UNKNOWN},
)
situation(
    "LD_LIBRARY_PATH with a folder that is gone",
    lambda m: m.gpus(["T4"]).set(LD_LIBRARY_PATH="/usr/local/cuda-11.8/lib64:/usr/lib/x86_64-linux-gnu"),
    wrong={"library-path": WARNING},
    commands={"library-path": "export LD_LIBRARY_PATH=/usr/lib/x86_64-linux-gnu"},
)
situation(
    "LD_LIBRARY_PATH that ends in a colon",
    lambda m: m.gpus(["T4"]).set(LD_LIBRARY_PATH="/usr/lib/x86_64-linux-gnu:"),
    wrong={"library-path": WARNING},
    says={"library-path": "empty or relative"},
)
situation(
    "LD_LIBRARY_PATH with another runtime of the same CUDA",
    lambda m: (
        m.gpus(["A100"])
        .torch("2.8.0+cu128", "12.8")
        .toolkit("12.1.1")
        .write("/usr/local/cuda-12.1/lib64/libcudart.so.12.1.105")
        .nvcc("12.1")
        .set(LD_LIBRARY_PATH="/usr/local/cuda-12.1/lib64")
    ),
    wrong={"library-path": WARNING},
    fine=("torch-compiler",),
)
situation(
    "CUDA_HOME leads nowhere",
    lambda m: m.gpus(["T4"]).toolkit("13.0.2").nvcc("13.0").set(CUDA_HOME="/usr/local/cuda-11.8"),
    wrong={"cuda-home": PROBLEM},
    commands={"cuda-home": "export CUDA_HOME=/usr/local/cuda-13.0"},
)
situation(
    "CUDA_HOME is another CUDA than nvcc",
    lambda m: (
        m.gpus(["T4"]).toolkit("12.4.1").toolkit("13.0.2").nvcc("13.0").set(CUDA_HOME="/usr/local/cuda-12.4")
    ),
    wrong={"cuda-home": WARNING},
    commands={"cuda-home": 'export PATH=/usr/local/cuda-12.4/bin:"$PATH"'},
)
situation(
    "CUDA_HOME by the link to the toolkit",
    lambda m: (
        m.gpus(["T4"])
        .toolkit("13.0.2")
        .link("/usr/local/cuda", "cuda-13.0")
        .nvcc("13.0")
        .set(CUDA_HOME="/usr/local/cuda")
    ),
    fine=("cuda-home",),
)
situation(
    "nvcc is not on PATH",
    lambda m: m.gpus(["T4"]).toolkit("13.0.2"),
    wrong={"nvcc-on-path": WARNING},
    commands={"nvcc-on-path": 'export PATH=/usr/local/cuda-13.0/bin:"$PATH"'},
)
