"""CUDA and Python: which runs on which, and what comes twice."""

from __future__ import annotations

from fakes.cuda_machine.situations.table import PROBLEM, UNKNOWN, WARNING, situation

_CU12_PINS = (
    "nvidia-cudnn-cu12==9.10.2.21; platform_system == 'Linux'",
    "nvidia-nccl-cu12==2.27.3; platform_system == 'Linux'",
    "opt-einsum>=3.3; extra == 'opt-einsum'",
)
_OLD_ARCHITECTURES = "sm_50 sm_60 sm_70 sm_75 sm_80 sm_86 sm_90"
_NEW_ARCHITECTURES = "sm_75 sm_80 sm_86 sm_90 sm_100 sm_120 compute_120"

situation(
    "PyTorch and all that it asks for",
    lambda m: (
        m.gpus(["A100"], "550.54.14", "12.4")
        .torch("2.8.0+cu126", "12.6", requires=_CU12_PINS)
        .package("nvidia-cudnn-cu12", "9.10.2.21")
        .package("nvidia-nccl-cu12", "2.27.3")
    ),
    fine=("torch-driver", "torch-gpu", "torch-pins"),
    says={"torch-driver": "minor version compatibility", "torch-gpu": "by the table"},
)
situation(
    "PyTorch for CUDA 13 on a driver of CUDA 12",
    lambda m: m.gpus(["A100"], "550.54.14", "12.4").torch("2.11.0", "13.0", architectures=_NEW_ARCHITECTURES),
    wrong={"torch-driver": PROBLEM},
    commands={"torch-driver": ("'torch<2.15'", "https://download.pytorch.org/whl/cu126")},
    fine=("torch-gpu",),
    says={"torch-gpu": "by its library"},
)
situation(
    "PyTorch for CUDA 13 on a Blackwell with a driver of CUDA 12",
    lambda m: m.gpus(["B200"], "570.124.06", "12.8").torch(
        "2.11.0", "13.0", architectures=_NEW_ARCHITECTURES
    ),
    wrong={"torch-driver": PROBLEM},
    commands={"torch-driver": ("'torch<2.12'", "cu128")},
)
situation(
    "PyTorch for CUDA 11 on a Hopper that it knows",
    lambda m: m.gpus(["H100"], "515.105.01", "11.7").torch("2.1.0+cu118", "11.8"),
    fine=("torch-driver", "torch-gpu"),
)
situation(
    "PyTorch for CUDA 12 and a driver of CUDA 11",
    lambda m: m.gpus(["A100"], "515.105.01", "11.7").torch("2.1.0+cu121", "12.1"),
    wrong={"torch-driver": PROBLEM},
    commands={"torch-driver": ("'torch<2.8'", "cu118")},
)
situation(
    "PyTorch and a driver that none fits",
    lambda m: m.gpus(["T4"], "418.39", "10.1").torch("2.1.0+cu121", "12.1"),
    wrong={"torch-driver": PROBLEM},
    commands={"torch-driver": "nvidia-open"},
)
situation(
    "PyTorch without kernels for a Blackwell",
    lambda m: m.gpus(["5090"]).torch("2.5.1+cu124", "12.4", architectures=_OLD_ARCHITECTURES),
    wrong={"torch-gpu": PROBLEM},
    fine=("torch-driver",),
    commands={"torch-gpu": "cu130"},
    says={"torch-gpu": "no kernel image"},
)
situation(
    "PyTorch without kernels for a Pascal",
    lambda m: m.gpus(["P100"], open_module=False).torch("2.9.1+cu130", "13.0"),
    wrong={"torch-gpu": PROBLEM, "old-gpus": WARNING},
    commands={"torch-gpu": "cu126"},
)
situation(
    "PyTorch with PTX alone, and a driver that compiles it",
    lambda m: m.gpus(["B200"]).torch("2.6.0", "12.4", architectures=_OLD_ARCHITECTURES + " compute_90"),
    wrong={"torch-gpu": WARNING},
)
situation(
    "PyTorch with PTX alone, and a driver too old for it",
    lambda m: m.gpus(["A100"], "525.60.13", "12.0").torch(
        "2.6.0", "12.4", architectures="sm_60 sm_70 sm_75 compute_75"
    ),
    wrong={"torch-gpu": PROBLEM},
    says={"torch-gpu": "550.54.14 or newer"},
)
situation(
    "PyTorch of an unknown build",
    lambda m: m.gpus(["A100"]).torch("2.3.0a0+gitabc", "12.3"),
    wrong={"torch-gpu": UNKNOWN},
)
situation(
    "PyTorch for the processor on a machine with a GPU",
    lambda m: m.gpus(["A100"]).torch("2.13.0+cpu", None),
    wrong={"torch-without-cuda": WARNING},
    commands={"torch-without-cuda": ("--force-reinstall torch ", "cu130")},
)
situation(
    "PyTorch for AMD on a machine with an NVIDIA GPU",
    lambda m: m.gpus(["A100"]).torch("2.9.0+rocm6.4", None, hip="6.4.43482"),
    wrong={"torch-without-cuda": WARNING},
    says={"torch-without-cuda": "AMD"},
)
situation(
    "PyTorch for the processor without a GPU",
    lambda m: m.os().loads(None, None, [], found=False).torch("2.13.0+cpu", None),
)
situation(
    "nvcc of another major than PyTorch's CUDA",
    lambda m: m.gpus(["A100"]).toolkit("13.0.2").nvcc("13.0").torch("2.8.0+cu128", "12.8"),
    wrong={"torch-compiler": WARNING},
    commands={"torch-compiler": "cuda-toolkit-12-8"},
)
situation(
    "nvcc of another minor than PyTorch's CUDA",
    lambda m: m.gpus(["A100"]).toolkit("12.4.1").nvcc("12.4").torch("2.8.0+cu128", "12.8"),
    fine=("torch-compiler",),
)
situation(
    "another cuDNN than PyTorch was built with",
    lambda m: (
        m.gpus(["A100"])
        .torch("2.8.0+cu128", "12.8", requires=_CU12_PINS)
        .package("nvidia-cudnn-cu12", "9.1.0.70")
        .package("nvidia-nccl-cu12", "2.27.3")
    ),
    wrong={"torch-pins": WARNING},
    commands={"torch-pins": "nvidia-cudnn-cu12==9.10.2.21"},
    says={"torch-pins": "9.1.0.70 is installed"},
)
situation(
    "a library of PyTorch's is missing",
    lambda m: (
        m.gpus(["A100"])
        .torch("2.8.0+cu128", "12.8", requires=_CU12_PINS)
        .package("nvidia-nccl-cu12", "2.27.3")
    ),
    wrong={"torch-pins": PROBLEM},
    commands={"torch-pins": "nvidia-cudnn-cu12==9.10.2.21"},
)
situation(
    "cuDNN and NCCL for two majors of CUDA",
    lambda m: (
        m.gpus(["A100"])
        .torch("2.9.0+cu130", "13.0")
        .package("nvidia-cudnn-cu12", "9.10.2.21")
        .package("nvidia-cudnn-cu13", "9.13.0.50")
        .package("nvidia-nccl-cu12", "2.27.3")
        .package("nvidia-nccl-cu13", "2.27.7")
    ),
    wrong=(("clashing-wheels", PROBLEM), ("clashing-wheels", PROBLEM)),
    commands={
        "clashing-wheels": (
            "uninstall -y nvidia-cudnn-cu12 nvidia-cudnn-cu13",
            "nvidia-cudnn-cu13==9.13.0.50",
            "nvidia-nccl-cu13==2.27.7",
        )
    },
)
situation(
    "an older cuDNN on LD_LIBRARY_PATH",
    lambda m: (
        m.gpus(["A100"])
        .package("nvidia-cudnn-cu12", "9.10.2.21")
        .write("/opt/cudnn/lib/libcudnn.so.8.9.7")
        .write(
            "/opt/cudnn/include/cudnn_version.h",
            "#define CUDNN_MAJOR 8\n#define CUDNN_MINOR 9\n#define CUDNN_PATCHLEVEL 7\n",
        )
        .set(LD_LIBRARY_PATH="/opt/cudnn/lib")
    ),
    wrong={"cudnn": PROBLEM},
    commands={"cudnn": "unset LD_LIBRARY_PATH"},
    says={"cudnn": "8.9.7"},
)
situation(
    "another patch of NCCL on LD_LIBRARY_PATH",
    lambda m: (
        m.gpus(["A100"])
        .package("nvidia-nccl-cu12", "2.27.3")
        .write("/opt/nccl/lib/libnccl.so.2.27.5")
        .set(LD_LIBRARY_PATH="/opt/nccl/lib:/usr/lib/x86_64-linux-gnu")
    ),
    wrong={"nccl": WARNING},
    commands={"nccl": "export LD_LIBRARY_PATH=/usr/lib/x86_64-linux-gnu"},
)
situation(
    "cuDNN in the system that gets in nobody's way",
    lambda m: (
        m.gpus(["A100"])
        .package("nvidia-cudnn-cu12", "9.10.2.21")
        .write("/usr/lib/x86_64-linux-gnu/libcudnn.so.9.1.0")
    ),
    fine=("cudnn",),
)
situation(
    "cuDNN and NCCL in the system alone",
    lambda m: (
        m.gpus(["A100"])
        .write("/usr/lib/x86_64-linux-gnu/libcudnn.so.9")
        .write(
            "/usr/include/x86_64-linux-gnu/cudnn_version_v9.h",
            "#define CUDNN_MAJOR 9\n#define CUDNN_MINOR 10\n#define CUDNN_PATCHLEVEL 2\n",
        )
        .write("/usr/lib/x86_64-linux-gnu/libnccl.so.2.27.3")
    ),
    fine=("cudnn", "nccl"),
    says={"cudnn": "9.10.2", "nccl": "2.27.3"},
)
situation(
    "two CuPys",
    lambda m: m.gpus(["A100"]).package("cupy-cuda12x", "13.6.0").package("cupy-cuda13x", "14.2.0"),
    wrong={"cupy": PROBLEM},
    commands={"cupy": ("uninstall -y cupy-cuda12x cupy-cuda13x", "install cupy-cuda13x")},
)
situation(
    "CuPy for a newer CUDA than the driver's",
    lambda m: m.gpus(["A100"], "550.54.14", "12.4").package("cupy-cuda13x", "14.2.0"),
    wrong={"cupy": PROBLEM},
    commands={"cupy": "cupy-cuda12x"},
)
situation("CuPy that fits", lambda m: m.gpus(["A100"]).package("cupy-cuda12x", "13.6.0"), fine=("cupy",))
situation(
    "JAX for a newer CUDA than the driver's",
    lambda m: m.gpus(["A100"], "550.54.14", "12.4").package("jax-cuda13-plugin", "0.12.0"),
    wrong={"jax": PROBLEM},
    commands={"jax": ("uninstall -y jax-cuda13-plugin jax-cuda13-pjrt", "'jax[cuda12]'")},
)
situation(
    "a runtime of pip's for a newer CUDA than the driver's",
    lambda m: m.gpus(["A100"], "550.54.14", "12.4").package("nvidia-cuda-runtime", "13.0.96"),
    wrong={"runtime-wheels": PROBLEM},
    commands={"runtime-wheels": ("uninstall -y nvidia-cuda-runtime", "install nvidia-cuda-runtime-cu12")},
)
situation(
    "a runtime of pip's that fits",
    lambda m: m.gpus(["A100"], "550.54.14", "12.4").package("nvidia-cuda-runtime-cu12", "12.8.90"),
    fine=("runtime-wheels",),
)
situation(
    "vLLM with the PyTorch that it was built for",
    lambda m: (
        m.gpus(["H100"])
        .torch("2.8.0+cu128", "12.8")
        .package(
            "vllm",
            "0.11.0",
            requires=["torch==2.8.0"],
            files={"vllm/_C.abi3.so": b"\x7fELF libcudart.so.12\x00"},
        )
    ),
    fine=("vllm", "torch-driver"),
)
situation(
    "vLLM with another PyTorch",
    lambda m: (
        m.gpus(["H100"]).torch("2.9.0+cu128", "12.8").package("vllm", "0.11.0", requires=["torch==2.8.0"])
    ),
    wrong={"vllm": PROBLEM},
    commands={"vllm": "--force-reinstall vllm==0.11.0"},
)
situation(
    "vLLM for another CUDA than PyTorch's",
    lambda m: (
        m.gpus(["H100"])
        .torch("2.9.0+cu130", "13.0")
        .package(
            "vllm",
            "0.12.0",
            requires=["torch==2.9.0"],
            files={"vllm/_C.abi3.so": b"\x7fELF libcudart.so.12\x00"},
        )
    ),
    wrong={"vllm": PROBLEM},
    says={"vllm": "libcudart.so.12"},
)
situation(
    "vLLM without PyTorch",
    lambda m: m.gpus(["H100"]).package("vllm", "0.12.0", requires=["torch==2.9.0"]),
    wrong={"vllm": PROBLEM},
)
situation(
    "pynvml 11 hides nvidia-ml-py",
    lambda m: (
        m.gpus(["T4"])
        .package(
            "pynvml", "11.5.0", files={"pynvml/__init__.py": "from .nvml import *\n", "pynvml/nvml.py": ""}
        )
        .package("nvidia-ml-py", "13.580.82", files={"pynvml.py": ""})
    ),
    wrong={"pynvml": PROBLEM},
    commands={"pynvml": ("uninstall -y pynvml nvidia-ml-py", "install nvidia-ml-py")},
    says={"pynvml": "hides nvidia-ml-py 13.580.82"},
)
situation(
    "nvidia-ml-py3 overwrote the bindings",
    lambda m: m.gpus(["T4"]).package("nvidia-ml-py3", "7.352.0", files={"pynvml.py": ""}),
    wrong={"pynvml": PROBLEM},
)
situation(
    "a forgotten pynvml folder",
    lambda m: (
        m.gpus(["T4"]).package("nvidia-ml-py", "13.580.82", files={"pynvml.py": ""}),
        (m.site / "pynvml").mkdir(),
        (m.site / "pynvml/__init__.py").write_text(""),
    ),
    wrong={"pynvml": PROBLEM},
    commands={"pynvml": "rm -r "},
)
situation(
    "pynvml 13, the deprecated shim",
    lambda m: (
        m.gpus(["T4"])
        .package("pynvml", "13.0.1", files={"_pynvml_redirector.py": ""})
        .package("nvidia-ml-py", "13.580.82", files={"pynvml.py": ""})
    ),
    wrong={"pynvml": WARNING},
)
situation(
    "a package for pynvml, and no pynvml",
    lambda m: m.gpus(["T4"]).package("pynvml", "12.0.0", files={"pynvml_utils/__init__.py": ""}),
    wrong={"pynvml": WARNING},
)
situation(
    "current bindings",
    lambda m: m.gpus(["T4"]).package("nvidia-ml-py", "13.580.82", files={"pynvml.py": ""}),
    fine=("pynvml",),
)
situation(
    "optional parts of this package",
    lambda m: (
        m.os()
        .loads(None, None, [], found=False)
        .package(
            "textnlp-fast",
            "0.1.0",
            requires=["numpy", "scipy>=1.10; extra == 'gpu'", "boto3>=1.36; extra == 'aws'"],
        )
        .package("scipy", "1.14.0")
    ),
    fine=("extras",),
    commands={"extras": "'textnlp-fast[aws]'"},
    says={"extras": "gpu installed; not: aws"},
)
