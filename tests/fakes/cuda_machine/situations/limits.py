"""Just inside and just outside of what the rules look for: versions and packages."""

from __future__ import annotations

from fakes.cuda_machine.machine import CudaMachine
from fakes.cuda_machine.situations.table import PROBLEM, WARNING, situation


def _no_gpu(machine: CudaMachine) -> CudaMachine:
    return machine.os("ubuntu").loads(None, None, [], found=False)


situation(
    "the oldest driver of CUDA 13",
    lambda m: (
        m.gpus(["A100"], "580.65.06", "13.0").toolkit("13.0.0").nvcc("13.0").torch("2.9.0+cu130", "13.0")
    ),
    fine=("toolkit-driver", "torch-driver"),
    says={"toolkit-driver": "CUDA 13 needs 580.65.06"},
)
situation(
    "a driver just older than CUDA 13's oldest",
    lambda m: m.gpus(["A100"], "580.65.05", "13.0").torch("2.9.0+cu130", "13.0"),
    wrong={"torch-driver": PROBLEM},
)
situation(
    "the first toolkit of a Blackwell",
    lambda m: m.gpus(["B200"], "570.26", "12.8").toolkit("12.8.0").nvcc("12.8"),
    fine=("toolkit-gpu", "toolkit-driver"),
)
situation(
    "the last toolkit of a Volta",
    lambda m: m.gpus(["V100"], "575.57.08", "12.9", open_module=False).toolkit("12.9.1").nvcc("12.9"),
    wrong={"old-gpus": WARNING},
    fine=("toolkit-gpu", "toolkit-driver"),
)
situation(
    "a toolkit for a GPU, not on PATH",
    lambda m: m.gpus(["V100"], open_module=False).toolkit("13.0.0"),
    wrong={"old-gpus": WARNING, "toolkit-gpu": PROBLEM, "nvcc-on-path": WARNING},
)
situation(
    "a closed module on the first Blackwell",
    lambda m: m.gpus(["B200"], "570.26", "12.8", open_module=False),
    wrong={"module-flavour": PROBLEM},
)
situation(
    "a closed module on a Hopper", lambda m: m.gpus(["H100"], open_module=False), fine=("driver-loaded",)
)
situation("the open module on a Turing", lambda m: m.gpus(["T4"], open_module=True), fine=("driver-loaded",))
situation(
    "forward compatibility that does not reach",
    lambda m: (
        m.gpus(["A100"], "535.247.01", "12.2")
        .toolkit("13.0.2")
        .nvcc("13.0")
        .write("/usr/local/cuda-12.8/compat/libcuda.so.570.124.06")
        .set(LD_LIBRARY_PATH="/usr/local/cuda-12.8/compat")
        .child("cuda", {"found": True, "code": 0, "version": 12080, "device_count": 1})
    ),
    wrong={"toolkit-driver": PROBLEM},
    fine=("forward-compatibility",),
)
situation(
    "forward compatibility of the driver's own version",
    lambda m: (
        m.gpus(["A100"])
        .write("/usr/local/cuda-13.0/compat/libcuda.so.580.95.05")
        .set(LD_LIBRARY_PATH="/usr/local/cuda-13.0/compat:/usr/lib/x86_64-linux-gnu")
    ),
    fine=("forward-compatibility",),
)
situation(
    "forward compatibility beside another folder, on a GeForce",
    lambda m: (
        m.gpus(["4090"], "535.247.01", "12.2")
        .write("/usr/local/cuda-13.0/compat/libcuda.so.580.95.05")
        .set(LD_LIBRARY_PATH="/usr/local/cuda-13.0/compat:/usr/lib/x86_64-linux-gnu")
        .child("cuda", {"found": True, "code": 804, "version": 13000})
    ),
    wrong={"forward-compatibility": PROBLEM, "cuda-starts": PROBLEM},
    commands={
        "forward-compatibility": "export LD_LIBRARY_PATH=/usr/lib/x86_64-linux-gnu",
        "cuda-starts": "export LD_LIBRARY_PATH=/usr/lib/x86_64-linux-gnu",
    },
)
situation(
    "JAX of CUDA 12 on an old driver",
    lambda m: m.gpus(["A100"], "515.105.01", "11.7").package("jax-cuda12-plugin", "0.4.30"),
    wrong={"jax": PROBLEM},
    commands={"jax": "'jax[cuda12]'"},
)
situation(
    "JAX that fits",
    lambda m: m.gpus(["A100"]).package("jax-cuda13-plugin", "0.9.0").package("jax", "0.9.0"),
    fine=("jax",),
)
situation(
    "CuPy on a driver of CUDA 11",
    lambda m: m.gpus(["A100"], "515.105.01", "11.7").package("cupy-cuda12x", "13.6.0"),
    wrong={"cupy": PROBLEM},
    commands={"cupy": "install cupy-cuda11x"},
)
situation(
    "two CuPys on a driver of CUDA 12",
    lambda m: (
        m.gpus(["A100"], "525.60.13", "12.0").package("cupy-cuda12x", "13.6.0").package("cupy", "14.2.0")
    ),
    wrong={"cupy": PROBLEM},
    commands={"cupy": "install cupy-cuda12x"},
)
situation(
    "two CuPys and a Pascal",
    lambda m: (
        m.gpus(["P100"], open_module=False)
        .package("cupy-cuda12x", "13.6.0")
        .package("cupy-cuda13x", "14.2.0")
    ),
    wrong={"cupy": PROBLEM, "old-gpus": WARNING},
    commands={"cupy": "install cupy-cuda12x"},
)
situation(
    "two CuPys without a driver",
    lambda m: _no_gpu(m).package("cupy-cuda12x", "13.6.0").package("cupy-cuda13x", "14.2.0"),
    wrong={"cupy": PROBLEM},
    commands={"cupy": "install cupy-cuda13x"},
)
situation(
    "a CuPy for CUDA 10.2",
    lambda m: m.gpus(["T4"], "418.39", "10.1").package("cupy-cuda102", "12.3.0"),
    fine=("cupy",),
    says={"cupy": "CUDA 10.2 came with 440.33"},
)
situation(
    "a CuPy for CUDA 9",
    lambda m: m.gpus(["T4"]).package("cupy-cuda92", "9.6.0"),
    fine=("cupy",),
    says={"cupy": "newer than all of CUDA 9"},
)
situation("Python packages without a GPU", lambda m: _no_gpu(m).package("cupy-cuda12x", "13.6.0")
          .package("jax-cuda12-plugin", "0.4.30").package("nvidia-cuda-runtime-cu12", "12.8.90")
          .torch("2.9.0+cu130", "13.0"))  # fmt: skip
situation(
    "a runtime of pip's beside PyTorch",
    lambda m: (
        m.gpus(["A100"], "550.54.14", "12.4")
        .torch("2.8.0+cu128", "12.8")
        .package("nvidia-cuda-runtime", "13.0.96")
    ),
    fine=("torch-driver",),
)
situation(
    "a runtime of pip's on a driver of CUDA 11",
    lambda m: m.gpus(["A100"], "515.105.01", "11.7").package("nvidia-cuda-runtime-cu12", "12.8.90"),
    wrong={"runtime-wheels": PROBLEM},
    commands={"runtime-wheels": "install nvidia-cuda-runtime-cu11"},
)
situation(
    "wheels for two majors, and PyTorch of the older",
    lambda m: (
        m.gpus(["A100"])
        .torch("2.8.0+cu128", "12.8")
        .package("nvidia-cudnn-cu12", "9.10.2.21")
        .package("nvidia-cudnn-cu13", "9.13.0.50")
    ),
    wrong={"clashing-wheels": PROBLEM},
    commands={"clashing-wheels": "install nvidia-cudnn-cu12==9.10.2.21"},
)
situation(
    "wheels for two majors, and no PyTorch",
    lambda m: (
        m.gpus(["A100"]).package("nvidia-cudnn-cu12", "9.10.2.21").package("nvidia-cudnn-cu13", "9.13.0.50")
    ),
    wrong={"clashing-wheels": PROBLEM},
    commands={"clashing-wheels": "install nvidia-cudnn-cu13==9.13.0.50"},
)
situation(
    "cuDNN of the wheel's version on LD_LIBRARY_PATH",
    lambda m: (
        m.gpus(["A100"])
        .package("nvidia-cudnn-cu12", "9.10.2.21")
        .write("/opt/cudnn/lib/libcudnn.so.9.10.2")
        .set(LD_LIBRARY_PATH="/opt/cudnn/lib")
    ),
    fine=("cudnn",),
)
situation(
    "cuDNN of no known version on LD_LIBRARY_PATH",
    lambda m: (
        m.gpus(["A100"])
        .package("nvidia-cudnn-cu12", "9.10.2.21")
        .write("/opt/cudnn/lib/libcudnn.so")
        .set(LD_LIBRARY_PATH="/opt/cudnn/lib:/usr/lib/x86_64-linux-gnu")
    ),
    wrong={"cudnn": PROBLEM},
    commands={"cudnn": "export LD_LIBRARY_PATH=/usr/lib/x86_64-linux-gnu"},
)
situation(
    "vLLM with kernels of the same major",
    lambda m: (
        m.gpus(["H100"])
        .torch("2.9.0+cu130", "13.0")
        .package(
            "vllm", "0.12.0", requires=["torch==2.9.0"], files={"vllm/_C.abi3.so": b"libcudart.so.13\x00"}
        )
    ),
    fine=("vllm",),
)
situation(
    "vLLM that pins nothing, with PyTorch for the processor",
    lambda m: m.gpus(["H100"]).torch("2.9.0+cpu", None).package("vllm", "0.12.0"),
    wrong={"torch-without-cuda": WARNING},
)
situation(
    "a pynvml file of nobody",
    lambda m: (m.gpus(["T4"]), (m.site / "pynvml.py").write_text("")),
    fine=("pynvml",),
)

situation(
    "a toolkit for CUDA 12 on a driver of CUDA 11",
    lambda m: m.gpus(["A100"], "515.105.01", "11.7").toolkit("12.4.1").nvcc("12.4"),
    wrong={"toolkit-driver": PROBLEM},
    commands={"toolkit-driver": "cuda-toolkit-11-7"},
)
situation(
    "a toolkit on a driver of before all tables",
    lambda m: m.gpus(["T4"], "390.157", "9.1").toolkit("12.4.1").nvcc("12.4"),
    wrong={"toolkit-driver": PROBLEM},
    commands={"toolkit-driver": "nvidia-open"},
)
