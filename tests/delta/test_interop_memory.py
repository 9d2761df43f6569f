"""Memory of an import and an export: windows, whatever the tensor's size."""

from __future__ import annotations

import json
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from delta.foreign import INDEX
from delta.models import Tensor, safetensors_bytes

zstandard = pytest.importorskip("zstandard")

SIZE = 384 << 20
LIMIT_KIB = 224 << 10
CHILD = """
import re, sys
from pathlib import Path
from textnlp_fast.delta.interop import read_foreign, write_foreign
delta, source, patch, out = sys.argv[1:]
read_foreign("slime", delta, source, patch, memory_budget_bytes=176 << 20, threads=1)
write_foreign("sparse", patch, source, out, threads=1)
# Not getrusage: its peak counts the parent's memory, which was this process's until it called exec.
print(re.search("VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text()).group(1))
"""


@pytest.mark.slow
def test_a_tensor_larger_than_the_memory(tmp_path: Path) -> None:
    source, delta = tmp_path / "source", tmp_path / "weight_v000001"
    source.mkdir()
    delta.mkdir()
    entry = {"q": {"dtype": "F32", "shape": [1024, SIZE // 4096], "data_offsets": [0, SIZE]}}
    header = json.dumps(entry).encode()
    with (source / "model.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + SIZE)  # zeros, which take no room
    part = bytes(4095) + b"\x01"
    frame, checksum = zstandard.ZstdCompressor(level=1).compressobj(size=SIZE), 1
    parts = []
    for _ in range(SIZE // (part_bytes := len(part) << 8)):
        parts.append(frame.compress(part * 256))
        checksum = zlib.adler32(part * 256, checksum)
    assert SIZE % part_bytes == 0
    body = b"".join([*parts, frame.flush()])
    sums = {"q": f"{checksum:08x}"}
    (delta / "a.safetensors").write_bytes(safetensors_bytes({"q": Tensor("U8", (len(body),), body)}, sums))
    metadata = {"delta_encoding": "xor", "compression_format": "zstd", "checksum_format": "adler32"}
    (delta / INDEX).write_text(json.dumps({"metadata": metadata, "weight_map": {"q": "a.safetensors"}}))
    words = [sys.executable, "-c", CHILD, delta, source, tmp_path / "p", tmp_path / "out"]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    assert int(done.stdout) < LIMIT_KIB < SIZE >> 10
    assert (tmp_path / "out" / "delta_sparse.safetensors").stat().st_size > SIZE // 4096 * 8
