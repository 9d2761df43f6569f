"""Made tests/vectors/repository: three versions, deltas, a tied tensor, raw windows, a folder, an empty file."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import tempfile
from pathlib import Path

from storage.conftest import Makers
from textnlp_fast.storage import Repository, TransferOptions

VECTORS = Path(__file__).parents[1] / "vectors" / "repository"


def main() -> None:
    shutil.rmtree(VECTORS, ignore_errors=True)
    options = TransferOptions(shard_bytes=1 << 16)
    place = VECTORS / "format-1"
    repository = Repository.open(place, create=True, options=options, window_bytes=1 << 12)
    tensors = Makers.tensors(3, rows=32, layers=2)
    tensors["tied.weight"] = tensors["layers.0.q_proj.weight"]
    expected: dict[str, dict[str, str]] = {}
    with tempfile.TemporaryDirectory() as work:
        for number in range(3):
            folder = Makers.directory(Path(work) / str(number), tensors)
            (folder / "tokenizer" / "vocab.json").write_text(json.dumps({"a": number}))
            if number == 2:
                (folder / "notes.txt").write_text("raw\n" * 8)
                repository = Repository.open(place, options=TransferOptions(compression=False))
            repository.push(
                folder, "org/tiny", f"1.{number}.0", message=f"größer {number}", metadata={"n": str(number)}
            )
            expected[f"1.{number}.0"] = {
                path: hashlib.sha256(data).hexdigest() for path, data in Makers.tree(folder).items()
            }
            if number == 0:
                tensors = Makers.nudge(tensors, 1)
                tensors["tied.weight"] = tensors["layers.0.q_proj.weight"]
    shutil.rmtree(place / ".tmp", ignore_errors=True)
    (VECTORS / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
