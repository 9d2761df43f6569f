"""Types of the C++ core. Private: use textnlp_fast.hashing, .chunking, .delta and .storage."""

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

class XetHasher:
    """The Xet file hash, in windows."""

    def __init__(self) -> None: ...
    def add(self, data: object, ends: object, threads: int) -> None: ...
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

def cuda_blake3(arrays: list[object], stream: int) -> list[bytes]:
    """BLAKE3 of each of many arrays on one device; waits."""

def cuda_diff(a: object, b: object, dtype: int, stream: int) -> tuple[int, int, int, float]:
    """``diff`` of two arrays on one device; waits."""

def cuda_xor(target: int, base: int, out: int, size_bytes: int, stream: int, /) -> None: ...
def cuda_ulp_difference(target: int, base: int, out: int, count: int, dtype: int, stream: int, /) -> None: ...
def cuda_ulp_apply(base: int, difference: int, out: int, count: int, dtype: int, stream: int, /) -> None: ...
def twin_lanes(operation: str, left: object, right: object, out: object, width: int) -> None:
    """Runs the kernels' own arithmetic on the CPU, lane by lane, for tests."""
