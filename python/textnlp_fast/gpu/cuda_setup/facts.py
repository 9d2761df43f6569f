"""What the probes found. Facts only; None is "not known", rules judge."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from textnlp_fast.gpu.cuda_setup.versions import Version

__all__ = [
    "Container",
    "ContainerRuntime",
    "CudaFacts",
    "Distribution",
    "Driver",
    "Facts",
    "Gpu",
    "Library",
    "NvmlFacts",
    "Package",
    "PciDevice",
    "Pynvml",
    "Smi",
    "System",
    "Toolkit",
    "TorchFacts",
]


@dataclass(frozen=True, kw_only=True)
class Distribution:
    """The operating system, as /etc/os-release says it."""

    name: str = "an unknown Linux"
    id: str = ""
    family: str = "other"
    """debian, ubuntu, rhel, fedora, amazon, suse, arch or other."""
    version: str = ""
    kernel: str | None = None
    architecture: str = "x86_64"
    wsl: bool = False


@dataclass(frozen=True, kw_only=True)
class PciDevice:
    """An NVIDIA device on the bus."""

    address: str
    device_id: int
    class_code: int
    kernel_driver: str | None = None

    @property
    def is_gpu(self) -> bool:
        return self.class_code >> 16 == 0x03

    @property
    def is_nvswitch(self) -> bool:
        return self.class_code >> 8 == 0x0680


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """A GPU as the driver shows it."""

    index: int
    uuid: str | None = None
    name: str = "GPU"
    pci_bus_id: str | None = None
    compute_capability: tuple[int, int] | None = None
    memory_bytes: int | None = None
    persistence: bool | None = None
    mig: bool | None = None
    mig_pending: bool | None = None
    mig_uuids: tuple[str, ...] = ()
    fabric_state: str | None = None
    """`Completed`, `In Progress`, `Not Started`, as nvidia-smi says it; None: it has no fabric."""
    fabric_status: str | None = None

    @property
    def is_geforce(self) -> bool:
        return "geforce" in self.name.lower() or "titan" in self.name.lower()


@dataclass(frozen=True, kw_only=True)
class Smi:
    """How nvidia-smi answered."""

    present: bool = False
    ok: bool = False
    message: str = ""
    """What it said where it failed."""
    timed_out: bool = False
    stuck: bool = False
    driver: Version | None = None
    cuda: Version | None = None
    p2p: tuple[tuple[int, int, str], ...] = ()
    """Pairs of GPUs and whether they can read each other: `OK`, `NS`, `CNS`, ..."""
    links: tuple[tuple[int, int, str], ...] = ()
    """Pairs of GPUs and what joins them: `NV18`, `PIX`, `PXB`, `PHB`, `NODE`, `SYS`."""


@dataclass(frozen=True, kw_only=True)
class NvmlFacts:
    """What the management library says, loaded in a process of its own."""

    found: bool = False
    path: str | None = None
    code: int | None = None
    """nvmlReturn_t of its start; 0 is success."""
    driver: Version | None = None
    cuda: Version | None = None


@dataclass(frozen=True, kw_only=True)
class CudaFacts:
    """What libcuda says, loaded in a process of its own."""

    found: bool | None = None
    """None: the process that should have loaded it did not answer."""
    path: str | None = None
    version: Version | None = None
    """The newest CUDA that this driver speaks."""
    code: int | None = None
    """CUresult of cuInit; 0 is success."""
    device_count: int | None = None
    """As CUDA_VISIBLE_DEVICES lets this process see them."""
    timed_out: bool = False
    stuck: bool = False
    message: str = ""


@dataclass(frozen=True, kw_only=True)
class Library:
    """A shared library on disk, by its real file."""

    name: str
    path: str
    version: Version | None
    folder: str
    """Where it was found; the file may lie elsewhere."""
    place: str
    """`system`, `ld-library-path`, `compat`, `stubs` or `wsl`."""


@dataclass(frozen=True, kw_only=True)
class Driver:
    """The kernel's part of the driver, and the libraries that belong to it."""

    pci: tuple[PciDevice, ...] = ()
    version: Version | None = None
    """Of the module in the kernel."""
    open_module: bool | None = None
    loaded_modules: frozenset[str] = frozenset()
    nouveau: bool = False
    module_path: str | None = None
    """nvidia.ko of the running kernel."""
    module_signed: bool | None = None
    other_kernels: tuple[str, ...] = ()
    """Kernels that have a module where the running one has none."""
    secure_boot: bool | None = None
    libraries: tuple[Library, ...] = ()
    device_files: Mapping[str, bool] = field(default_factory=dict)
    """/dev/nvidia*, and whether this user may open it."""
    nvswitches: int = 0
    fabric_manager: Version | None = None
    fabric_manager_running: bool | None = None
    persistenced_running: bool | None = None

    @property
    def gpus_on_bus(self) -> tuple[PciDevice, ...]:
        return tuple(device for device in self.pci if device.is_gpu)


@dataclass(frozen=True, kw_only=True)
class Toolkit:
    """A CUDA toolkit, or the part of one that is there."""

    path: str
    version: Version | None
    has_nvcc: bool
    has_runtime: bool
    """libcudart is there, for programs to load."""
    origin: str
    """`system` or `conda`."""
    compat: Version | None = None
    """The driver in its folder for forward compatibility."""


@dataclass(frozen=True, kw_only=True)
class Package:
    """A Python package, as its metadata says it."""

    name: str
    version: str
    location: str
    requires: tuple[str, ...] = ()

    @property
    def parsed(self) -> Version | None:
        return Version.parse(self.version)


@dataclass(frozen=True, kw_only=True)
class TorchFacts:
    """A PyTorch on disk. It was not imported."""

    version: str
    cuda: Version | None
    hip: bool
    location: str
    architectures: tuple[str, ...] = ()
    """sm_90, compute_120, ...: what its kernels are compiled for."""
    architectures_from: str = ""
    """`library`: read in its binary; `table`: what its makers said of that release."""


@dataclass(frozen=True, kw_only=True)
class Pynvml:
    """What `import pynvml` would load."""

    origin: str | None = None
    owner: str | None = None
    """The package whose file that is."""
    owner_version: str | None = None
    installed: tuple[tuple[str, str], ...] = ()
    """All packages that bring, or once brought, a pynvml, with their versions."""


@dataclass(frozen=True, kw_only=True)
class Container:
    """Whether this is a container, and what it was given."""

    inside: str | None = None
    """docker, podman, kubernetes, or another kind; None: it is none."""


@dataclass(frozen=True, kw_only=True)
class ContainerRuntime:
    """What starts containers here."""

    docker: bool = False
    podman: bool = False
    toolkit: Version | None = None
    toolkit_present: bool = False
    daemon_json_error: str | None = None
    docker_has_nvidia: bool = False
    docker_default_nvidia: bool = False
    cdi_specs: tuple[str, ...] = ()
    cdi_driver: tuple[Version, ...] = ()
    """Driver versions in the names of the libraries that the CDI specs mount."""


@dataclass(frozen=True, kw_only=True)
class System:
    """Limits and settings of the system that GPUs depend on."""

    shm_bytes: int | None = None
    memlock_bytes: int | None = None
    """None: without limit."""
    transparent_huge_pages: str | None = None
    iommu_types: frozenset[str] = frozenset()
    """Kinds of domains that GPUs are in: `DMA`, `DMA-FQ`, `identity`."""
    acs_redirects: tuple[str, ...] | None = None
    """PCI bridges that send peers' traffic up to the root; None: not allowed to see."""
    virtual: bool = False
    infiniband: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Facts:
    """All of it."""

    distribution: Distribution = field(default_factory=Distribution)
    driver: Driver = field(default_factory=Driver)
    smi: Smi = field(default_factory=Smi)
    nvml: NvmlFacts = field(default_factory=NvmlFacts)
    cuda: CudaFacts = field(default_factory=CudaFacts)
    gpus: tuple[Gpu, ...] = ()
    toolkits: tuple[Toolkit, ...] = ()
    nvcc: str | None = None
    """Where PATH finds it."""
    nvcc_version: Version | None = None
    libraries: tuple[Library, ...] = ()
    """cuDNN, NCCL and the CUDA runtime outside of Python's packages."""
    packages: Mapping[str, Package] = field(default_factory=dict)
    conda: Mapping[str, str] = field(default_factory=dict)
    """Versions of the packages of the active conda environment."""
    conda_prefix: str | None = None
    python: str = "python"
    """How the Python that was examined is called: `python` where PATH finds that one."""
    torch: TorchFacts | None = None
    vllm_cudart: int | None = None
    """The major version of the CUDA runtime that vLLM's kernels are linked to."""
    pynvml: Pynvml = field(default_factory=Pynvml)
    container: Container = field(default_factory=Container)
    runtime: ContainerRuntime = field(default_factory=ContainerRuntime)
    system: System = field(default_factory=System)
    environment: Mapping[str, str] = field(default_factory=dict)
    """The variables that matter here."""
    search_paths: Mapping[str, str] = field(default_factory=dict)
    """Entries of LD_LIBRARY_PATH in their order, and which folder each really is; "" where there is none."""
    homes: Mapping[str, str] = field(default_factory=dict)
    """What CUDA_HOME and CUDA_PATH say, and which folder that really is; those that are there."""
    extras: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The optional parts of this package, and which of their packages are missing."""

    @property
    def has_gpu(self) -> bool:
        return bool(self.gpus or self.driver.gpus_on_bus)

    @property
    def driver_version(self) -> Version | None:
        """The driver's version, by whoever knows it."""
        return self.driver.version or self.nvml.driver or self.smi.driver

    @property
    def capabilities(self) -> tuple[tuple[int, int], ...]:
        return tuple(sorted({gpu.compute_capability for gpu in self.gpus if gpu.compute_capability}))
