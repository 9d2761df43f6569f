"""Fuzz the safetensors header: every input gets a verdict, and what is taken keeps the format's promises.

Run for 20 seconds (atheris comes from PyPI, for CPython on Linux):

    python fuzz/safetensors_header.py -max_total_time=20 -dict=fuzz/safetensors_header.dict build/fuzz/header

The first run makes the corpus from the attack table of the tests. An input that breaks a promise goes to
``build/fuzz/crash-*``; give that file as the only argument to run it again.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["textnlp_fast.tensors", "json"]):
    from textnlp_fast.errors import SafetensorsError
    from textnlp_fast.tensors.format import DTYPE_BITS, parse_header

MAX_INPUT_BYTES = 4096


def check_one(content: bytes) -> None:
    """Parse an input as a whole file, and as a header whose length is right."""
    for file in (content, len(content).to_bytes(8, "little") + content):
        length = int.from_bytes(file[:8], "little")
        for size in (len(file), len(file) + 4):
            try:
                header = parse_header(file[: 8 + length], size)
            except SafetensorsError:
                continue
            position = 8 + length
            for tensor in header.tensors:
                elements = 1
                for dimension in tensor.shape:
                    elements *= dimension
                assert tensor.begin == position <= tensor.end <= size, tensor
                assert tensor.size_bytes * 8 == elements * DTYPE_BITS[tensor.dtype], tensor
                tensor.name.encode()
                position = tensor.end
            assert position == size


def make_corpus(folder: Path) -> None:
    """Write the attack table as starting points, once."""
    if any(folder.iterdir()):
        return
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from attacks.headers import ATTACKS  # noqa: PLC0415  the tests are needed for this alone

    for attack in ATTACKS:
        if len(attack.content) <= MAX_INPUT_BYTES:
            (folder / attack.name).write_bytes(attack.content)


def main() -> None:
    for argument in sys.argv[1:]:
        if not argument.startswith("-") and not Path(argument).is_file():
            Path(argument).mkdir(parents=True, exist_ok=True)
            make_corpus(Path(argument))
    crashes = Path("build/fuzz")
    crashes.mkdir(parents=True, exist_ok=True)
    atheris.Setup([*sys.argv, f"-max_len={MAX_INPUT_BYTES}", f"-artifact_prefix={crashes}/"], check_one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
