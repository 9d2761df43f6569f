"""Writes tests/vectors/chunk_boundaries.json from the sequential definition; the result is committed."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

# The test module reads the vectors when it is imported.
VECTORS = Path(__file__).parent.parent / "vectors/chunk_boundaries.json"
if not VECTORS.exists():
    VECTORS.write_text('{"small": [], "large": {}}')

import test_chunking as tests  # noqa: E402


def main() -> None:
    small = []
    for kind in tests.KINDS:
        data = tests.make(kind, 400_000, 11)
        small.append(
            {
                "kind": kind,
                "size": len(data),
                "seed": 11,
                "data_sha256": hashlib.sha256(data).hexdigest(),
                "ends": tests.reference.boundaries(data),
            }
        )
    large = {}
    for kind in ("random", "dense"):
        data = tests.make(kind, 12_000_011, 5)
        ends = tests.reference.boundaries(data)
        packed = b"".join(end.to_bytes(8, "little") for end in ends)
        large[kind] = {
            "data_sha256": hashlib.sha256(data).hexdigest(),
            "chunks": len(ends),
            "sum_of_ends": sum(ends),
            "ends_sha256": hashlib.sha256(packed).hexdigest(),
        }
    VECTORS.write_text(json.dumps({"small": small, "large": large}, indent=1) + "\n")


if __name__ == "__main__":
    main()
