"""What is in a local directory, by digest: the contents of every file, hashed without loading any of them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Final

from textnlp_fast.chunking import Chunker
from textnlp_fast.errors import InvalidInputError
from textnlp_fast.hashing import Blake3, blake3_hex
from textnlp_fast.storage.chunked_transfer import BufferPool, OpenFiles, Progress, ProgressCallback
from textnlp_fast.storage.manifest import DTYPE_OPAQUE, check_path
from textnlp_fast.storage.planning import LocalFile, LocalPart
from textnlp_fast.tensors import ModelFiles, OtherFile, SafetensorsFile

__all__ = ["RECORD_NAME", "check_unchanged", "hash_part", "take_inventory"]

RECORD_NAME: Final = ".textnlp-fast.json"
"""Where a pull notes what it wrote; never part of a model."""

# Small enough to be hashed out of the cache that the read has just filled.
_READ_BYTES: Final = 1 << 20

_CODED_DTYPES: Final = frozenset(
    "BOOL U8 I8 F8_E4M3 F8_E5M2 U16 I16 F16 BF16 U32 I32 F32 U64 I64 F64".split()
)
