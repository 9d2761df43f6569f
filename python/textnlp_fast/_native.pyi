"""Types of the C++ core. Private: use textnlp_fast.hashing, .chunking, .delta and .storage."""

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
