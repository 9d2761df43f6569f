"""Types of the C++ core. Private: use textnlp_fast.hashing, .chunking, .delta and .storage."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__version__: str

def isa_name() -> str:
    """The instruction set whose kernels run: "avx512", "avx2", "neon" or "portable"."""

def isa_warning() -> str:
    """Why TEXTNLP_FAST_ISA was not obeyed; "" if it was, or was not set."""

def available_isas() -> list[str]:
    """The instruction sets this build has and this processor runs, best first."""

def force_isa(name: str) -> bool:
    """Switches the whole process to an instruction set; False, and no change, if it is not available."""

def default_threads() -> int:
    """Threads that a call with ``threads=0`` uses: the processors this process may run on."""

# --- hashing: digests are 32 bytes; `key` is 32 bytes or None ---

def blake3(data: object, key: bytes | None, threads: int) -> bytes:
    """BLAKE3 of a buffer's bytes."""

def blake3_spans(data: object, ends: object, key: bytes | None, threads: int) -> NDArray[np.uint8]:
    """BLAKE3 of each span of a buffer, cut at ``ends`` (uint64, never falling): shape (spans, 32)."""

def blake3_chunk_values(data: object, first: int) -> bytes:
    """Chaining values, 32 bytes each, of whole 1024-byte chunks, the first of which is chunk ``first``."""

class Blake3Hasher:
    """A BLAKE3 hash in progress; calls from several threads take turns."""

    def __init__(self, key: bytes | None, context: str | None) -> None: ...
    def update(self, data: object, threads: int) -> None: ...
    def digest(self) -> bytes: ...
    def copy(self) -> Blake3Hasher: ...

def blake3_join(values: bytes, size_bytes: int, piece_bytes: int) -> bytes:
    """BLAKE3 of an input whose pieces left these values."""

class Blake3Piece:
    """A piece of an input, which starts at chunk ``first_chunk``; calls from several threads take turns."""

    def __init__(self, first_chunk: int) -> None: ...
    def update(self, data: object, threads: int) -> None: ...
    def values(self) -> bytes: ...

xet_chunk_key: bytes

class XetHasher:
    """The Xet file hash, in windows."""

    def __init__(self) -> None: ...
    def add(self, data: object, ends: object, threads: int) -> None: ...
    def add_hashed(self, hashes: object, ends: object) -> None:
        """Adds chunks by their hashes, 32 bytes each, made with ``xet_chunk_key``."""
    def take(self, data: object, last: bool, threads: int) -> int:
        """Cuts the next bytes and adds their chunks; returns how many bytes were added."""
    def hexdigest(self) -> str: ...

# --- chunking: ends are exclusive byte offsets ---

min_chunk_bytes: int
max_chunk_bytes: int

def chunk_boundaries(data: object, threads: int) -> NDArray[np.uint64]:
    """Ends of the chunks of a buffer; the last one is its size."""

class Chunker:
    """The same for data that comes in pieces."""

    def __init__(self) -> None: ...
    def feed(self, data: object, threads: int) -> NDArray[np.uint64]: ...
    def finish(self) -> NDArray[np.uint64]: ...
    @property
    def bytes_fed(self) -> int: ...

# --- codec: `dtype` is the number of docs/format.md; sizes are bytes ---

def encode_bound(size: int, frame_size: int) -> int:
    """Most bytes that ``size`` bytes encode to."""

def encode_into(
    target: object, base: object | None, dtype: int, frame_size: int, threads: int, out: object
) -> int:
    """Encodes into ``out`` and returns the bytes written."""

def decode_into(payload: object, out: object, base: object | None, threads: int) -> None:
    """Decodes whole frames that make exactly the bytes of ``out``, which may be ``base``."""

def frames(payload: object) -> list[tuple[int, int, int, int]]:
    """Mode, dtype, encoded and decoded bytes of each whole frame that ``payload`` starts with."""

def diff(a: object, b: object, dtype: int, threads: int) -> tuple[int, int, int, float]:
    """Elements, how many changed, the largest and the summed difference in representable steps."""

# --- low rank: dtypes as in the codec; `begin` counts elements ---

def low_rank_into(
    base: object,
    out: object,
    dtype: int,
    a: object,
    a_dtype: int,
    b: object,
    b_dtype: int,
    rows: int,
    columns: int,
    rank: int,
    scale: float,
    rounding: int,
    begin: int,
    threads: int,
) -> None:
    """Writes base + scale * (B A), elements ``begin`` and following, to ``out``, which may be ``base``."""

# --- cuda: device addresses and a stream are integers, as torch and cupy give them ---

def cuda_info() -> dict[str, object]:
    """What there is: ``device_count`` and, where it is 0, the ``reason``; ``compiled``, ``emulated``, versions."""

def cuda_devices() -> list[dict[str, object]]:
    """``name``, ``compute_capability``, ``processors`` and ``memory_bytes`` of each device."""

def cuda_decode_payloads(
    payloads: list[object], bases: list[object | None], outs: list[object], stream: int
) -> None:
    """Decodes host payloads into arrays on one device; waits. An error about one of them has its number as ``job``."""

def cuda_encode_payloads(
    targets: list[object],
    bases: list[object | None],
    dtypes: list[int],
    outs: list[object],
    frame_size: int,
    stream: int,
) -> list[int]:
    """Encodes arrays on one device into buffers there or on the host; waits. Returns the bytes of each payload; an
    error about one of them has its number as ``job``."""

def cuda_blake3(arrays: list[object], key: bytes | None, stream: int) -> list[bytes]:
    """BLAKE3 of each of many arrays on one device; waits."""

def cuda_blake3_spans(data: object, ends: object, key: bytes | None, stream: int) -> NDArray[np.uint8]:
    """``blake3_spans`` of an array on a device; waits."""

def cuda_chunk_boundaries(arrays: list[object], stream: int) -> list[NDArray[np.uint64]]:
    """Ends of the chunks of each of many arrays on one device; waits."""

def cuda_low_rank_into(
    base: object,
    out: object,
    dtype: int,
    a: object,
    a_dtype: int,
    b: object,
    b_dtype: int,
    rows: int,
    columns: int,
    rank: int,
    scale: float,
    rounding: int,
    begin: int,
    stream: int,
) -> None:
    """``low_rank_into`` of arrays on one device, the factors in host memory; waits."""

def cuda_diff(a: object, b: object, dtype: int, stream: int) -> tuple[int, int, int, float]:
    """``diff`` of two arrays on one device; waits."""

class PinnedMemory:
    """Page-locked host memory, as a writable buffer of bytes."""

    def __init__(self, size_bytes: int, device: int) -> None: ...
    @property
    def nbytes(self) -> int: ...

class DeviceMemory:
    """Memory of a device from the pool of a stream; goes back in the order of the default stream."""

    def __init__(self, size_bytes: int, device: int, stream: int) -> None: ...
    @property
    def address(self) -> int: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def device(self) -> int: ...
    def dlpack(self, offset: int, shape: Sequence[int], code: int, bits: int) -> object:
        """A capsule for DLPack: an array of that shape and type, from byte ``offset`` on."""

class CudaStream:
    """A stream of its own, which waits for no other."""

    def __init__(self, device: int) -> None: ...
    @property
    def address(self) -> int: ...
    def wait(self) -> None: ...

class CudaEvent:
    """A mark in a stream; done before it is first recorded."""

    def __init__(self, device: int) -> None: ...
    def record(self, stream: int) -> None: ...
    def is_done(self) -> bool: ...
    def wait(self) -> None: ...

def cuda_to_device(data: object, array: object, offset: int, stream: int) -> None:
    """Queues a copy of host bytes to byte ``offset`` of an array; both must stay until it is done."""

def cuda_to_host(array: object, offset: int, out: object, stream: int) -> None:
    """Queues a copy of an array's bytes from ``offset`` on, as many as ``out`` has."""

def cuda_place(array: object, stream: int) -> tuple[int, int, int]:
    """Address, size and device of a writable array."""

def cuda_read(address: int, out: object, device: int, stream: int) -> None:
    """Fills host memory from a device's; waits."""

def cuda_write(address: int, data: object, device: int, stream: int) -> None:
    """Fills device memory from the host's; waits."""

def cuda_move(to: int, source: int, size: int, device: int, stream: int) -> None:
    """Copies within a device; waits."""

class CudaWatch:
    """A stopwatch on the default stream of a device, by the device's clock."""

    def __init__(self, device: int) -> None: ...
    def start(self) -> None: ...
    def stop(self) -> float:
        """Waits for what was queued since; seconds."""

class CudaWork:
    """Work for the default stream of a device, ready to be queued again and again: for benches."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        """Raises TypeError: the functions below make it."""
    def seconds(self, rounds: int, restore: CudaWork | None) -> list[float]:
        """Does it ``rounds`` times, each after ``restore``, which is not timed; by the device's clock."""
    def result(self) -> bytes:
        """What the last round wrote besides its outputs."""

def cuda_pool_peak(device: int, reset: bool) -> int:
    """The most bytes that the device's pool had handed out at once."""

def cuda_work_copy(to: int, source: int, size: int, device: int) -> CudaWork: ...
def cuda_work_diff(pairs: list[tuple[int, int, int, int]], device: int) -> CudaWork:
    """Of addresses, size and dtype; the result is four 64-bit numbers a pair, as cuda.h has them."""

def cuda_work_blake3(spans: list[tuple[int, int]], device: int) -> CudaWork:
    """Of address and size; the result is the digests."""

def cuda_work_chunk(spans: list[tuple[int, int]], device: int) -> CudaWork:
    """Of address and size; the result is how many chunks each has, then their ends as cuda.h has them, in 64 bits."""

def cuda_work_decode(
    payloads: list[object], bases: list[int], outs: list[int], sizes: list[int], device: int
) -> CudaWork:
    """Payloads are copied and listed now; addresses of bases are 0 where there is none. The result is 32 bits: the
    first frame that is not valid, or all ones."""

def cuda_xor(target: int, base: int, out: int, size_bytes: int, stream: int, /) -> None: ...
def cuda_ulp_difference(target: int, base: int, out: int, count: int, dtype: int, stream: int, /) -> None: ...
def cuda_ulp_apply(base: int, difference: int, out: int, count: int, dtype: int, stream: int, /) -> None: ...
def twin_lanes(operation: str, left: object, right: object, out: object, width: int) -> None:
    """Runs the kernels' own arithmetic on the CPU, lane by lane, for tests."""

# --- the NVIDIA driver: readings and events are dicts of the fields of gpu.health.facts ---

class NvmlCollector:
    """Threads that read this machine's GPUs. Raises DeviceError where there is no library of the driver's."""

    def __init__(
        self,
        library: str | None,
        period_s: float,
        slow_period_s: float,
        deadline_s: float,
        reinit_s: float,
        kernel_log: str | None,
        kernel_log_from_start: bool,
        same_event_s: float,
    ) -> None: ...
    def sample(self, timeout_s: float) -> list[dict[str, Any]]: ...
    def readings(self) -> list[dict[str, Any]]: ...
    def events(self, timeout_s: float) -> list[dict[str, Any]]: ...
    def state(self) -> dict[str, Any]: ...
    def pause(self, timeout_s: float) -> bool: ...
    def resume(self) -> None: ...
    def stop(self, grace_s: float) -> None: ...

def nvml_threads_left_behind() -> int:
    """Threads of stopped collectors that a hung driver still holds."""

def nvml_parse_line(line: object) -> dict[str, Any] | None:
    """The XID or SXID that a line of /dev/kmsg reports."""
