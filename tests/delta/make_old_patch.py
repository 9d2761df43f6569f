"""Made tests/vectors/patch: a model, patches of it with recipes of four kinds, and one squashed of two."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import tempfile
from pathlib import Path

import ml_dtypes
import numpy as np

from delta.models import Model, Tensor, tree, write
from textnlp_fast.delta import create_patch, squash_patches

VECTORS = Path(__file__).parents[1] / "vectors" / "patch"
WINDOW = 1 << 12


def tensor(values: np.ndarray, dtype: str = "BF16") -> Tensor:  # type: ignore[type-arg]
    kind = {"BF16": ml_dtypes.bfloat16, "F32": np.float32}[dtype]
    return Tensor(dtype, values.shape, np.ascontiguousarray(values).astype(kind).tobytes())


def main() -> None:
    shutil.rmtree(VECTORS, ignore_errors=True)
    rng = np.random.default_rng(11)
    a, b, c, d = (
        rng.normal(0, 0.02, (96, 64)).astype(ml_dtypes.bfloat16).astype(np.float32) for _ in range(4)
    )
    nudged = a.copy()
    nudged[::7, ::5] *= 1.01
    first: Model = {
        "model.safetensors": {"a": tensor(a), "b": tensor(b), "c": tensor(c), "d": tensor(d)},
        "config.json": b'{"layers": 1}',
    }
    second: Model = {
        "model.safetensors": {
            "a": tensor(nudged),
            "b": tensor(b.T),
            "cd": tensor(np.concatenate([c, d])),
            "d32": tensor(d, "F32"),
            "empty": Tensor("I64", (0, 3), b""),
        },
        "größe/vocab.txt": b"a b c\n" * 500,
    }
    third: Model = {
        "model.safetensors": {"a": tensor(nudged.T), "cd": tensor(np.concatenate([d, c]))},
        "config.json": b'{"layers": 2}',
    }
    with tempfile.TemporaryDirectory() as work:
        places = [write(model, Path(work) / str(n)) for n, model in enumerate((first, second, third))]
        shutil.copytree(places[0], VECTORS / "source")
        patches = [VECTORS / "one.tnpatch", VECTORS / "two.tnpatch"]
        for number, patch in enumerate(patches):
            create_patch(
                places[number],
                places[number + 1],
                patch,
                source_version=f"1.{number}.0",
                target_version=f"1.{number + 1}.0",
                metadata={"größe": str(number)},
                window_bytes=WINDOW,
            )
        squash_patches(patches, VECTORS / "both.tnpatch")
        expected = {
            name: {path: hashlib.sha256(data).hexdigest() for path, data in tree(places[number]).items()}
            for name, number in (("one", 1), ("two", 2), ("both", 2))
        }
    (VECTORS / "expected.json").write_text(json.dumps(expected, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    sys.exit(main())
