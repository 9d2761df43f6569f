"""CUDA toolkits, and the driver and GPUs that they are for."""

from __future__ import annotations

from fakes.cuda_machine.situations.table import PROBLEM, UNKNOWN, WARNING, situation

situation(
    "toolkit older than the driver",
    lambda m: m.gpus(["A100"]).toolkit("12.4.1").nvcc("12.4"),
    fine=("toolkit-driver", "toolkit-gpu"),
)
situation(
    "toolkit newer than the driver, same major",
    lambda m: m.gpus(["A100"], "535.247.01", "12.2").toolkit("12.9.1").nvcc("12.9"),
    wrong={"toolkit-driver": WARNING},
    says={"toolkit-driver": "CUDA 12.9 came with 575.51.03"},
)
situation(
    "toolkit of a newer major than the driver",
    lambda m: m.gpus(["A100"], "550.54.14", "12.4").toolkit("13.0.2").nvcc("13.0"),
    wrong={"toolkit-driver": PROBLEM},
    commands={"toolkit-driver": "cuda-toolkit-12-4"},
    says={"toolkit-driver": "needs 580.65.06 or newer"},
)
situation(
    "an image with a runtime that is too new",
    lambda m: (
        m.gpus(["A100"], "550.54.14", "12.4")
        .write("/.dockerenv")
        .toolkit("13.0.2", nvcc=False)
        .write("/usr/local/cuda-13.0/lib64/libcudart.so.13.0.96")
    ),
    wrong={"toolkit-driver": PROBLEM},
    says={"toolkit-driver": "loads CUDA 13.0"},
)
situation(
    "an image with a runtime that is newer, same major",
    lambda m: (
        m.gpus(["A100"], "550.54.14", "12.4")
        .write("/.dockerenv")
        .toolkit("12.8.1", nvcc=False)
        .write("/usr/local/cuda-12.8/lib64/libcudart.so.12.8.90")
    ),
    fine=("toolkit-driver",),
)
situation(
    "toolkit of a newer major, in conda",
    lambda m: (
        m.gpus(["A100"], "550.54.14", "12.4")
        .toolkit("13.0.2", "/opt/conda/envs/train")
        .set(CONDA_PREFIX="/opt/conda/envs/train", PATH="/opt/conda/envs/train/bin:/usr/bin")
    ),
    wrong={"toolkit-driver": PROBLEM},
    commands={"toolkit-driver": "conda install -y -c nvidia cuda-toolkit=12.4"},
)
situation(
    "a toolkit from the future",
    lambda m: m.gpus(["A100"]).toolkit("14.0.0").nvcc("14.0"),
    wrong={"toolkit-driver": UNKNOWN},
)
situation(
    "a very old toolkit",
    lambda m: (
        m.gpus(["T4"])
        .write("/usr/local/cuda-9.0/version.txt", "CUDA Version 9.0.176\n")
        .write("/usr/local/cuda-9.0/bin/nvcc")
        .nvcc("9.0")
    ),
    wrong={"toolkit-gpu": PROBLEM},
    fine=("toolkit-driver",),
    says={"toolkit-gpu": "10.0 is the first"},
)
situation(
    "a GPU on the bus and a toolkit, no driver",
    lambda m: (
        m.os("debian")
        .pci(["T4"], bound=None)
        .loads(None, None, [], found=False)
        .toolkit("12.4.1")
        .nvcc("12.4")
    ),
    wrong={"driver-loaded": PROBLEM, "toolkit-driver": UNKNOWN},
    commands={"driver-loaded": "debian12"},
)
situation(
    "CUDA 13 no longer compiles for Volta",
    lambda m: m.gpus(["V100"], open_module=False).toolkit("13.0.2").nvcc("13.0"),
    wrong={"toolkit-gpu": PROBLEM, "old-gpus": WARNING},
    commands={"toolkit-gpu": "cuda-toolkit-12-9"},
)
situation(
    "forward compatibility on a data centre GPU",
    lambda m: (
        m.gpus(["A100"], "535.247.01", "12.2")
        .toolkit("13.0.2")
        .nvcc("13.0")
        .write("/usr/local/cuda-13.0/compat/libcuda.so.580.95.05")
        .set(LD_LIBRARY_PATH="/usr/local/cuda-13.0/compat")
        .child(
            "cuda",
            {
                "found": True,
                "code": 0,
                "version": 13000,
                "path": "/usr/local/cuda-13.0/compat/libcuda.so.580.95.05",
            },
        )
    ),
    fine=("forward-compatibility", "toolkit-driver", "cuda-starts"),
    says={"toolkit-driver": "by forward compatibility"},
)
situation(
    "forward compatibility on a GeForce",
    lambda m: (
        m.gpus(["4090"], "535.247.01", "12.2")
        .write("/usr/local/cuda-13.0/compat/libcuda.so.580.95.05")
        .set(LD_LIBRARY_PATH="/usr/local/cuda-13.0/compat")
        .child("cuda", {"found": True, "code": 804, "version": 13000})
    ),
    wrong={"forward-compatibility": PROBLEM, "cuda-starts": PROBLEM},
    commands={"forward-compatibility": "unset LD_LIBRARY_PATH", "cuda-starts": "unset LD_LIBRARY_PATH"},
)
situation(
    "forward compatibility that holds back",
    lambda m: (
        m.gpus(["A100"], "580.95.05", "13.0")
        .write("/usr/local/cuda-12.4/compat/libcuda.so.550.54.15")
        .set(LD_LIBRARY_PATH="/usr/local/cuda-12.4/compat")
        .child("cuda", {"found": True, "code": 803, "version": 12040})
    ),
    wrong={"forward-compatibility": PROBLEM, "cuda-starts": PROBLEM},
    says={"forward-compatibility": "older than the driver"},
)
