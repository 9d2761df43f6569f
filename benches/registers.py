"""Registers, stack and spills of every CUDA kernel, from the compiler; rewrites the table in docs/cuda.md.

Needs nvcc, no GPU.

    python benches/registers.py                     every architecture that the wheel has code for
    python benches/registers.py --arch 90 --print   one, and only print it
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT = ROOT / "docs" / "cuda.md"
# As cmake/cuda.cmake has them.
ARCHITECTURES = ("80", "86", "89", "90", "100", "120")
TIME_LIMIT_S = 1200

_ENTRY = re.compile(r"Compiling entry function '(.*)' for 'sm_(\d+)'")
_STACK = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_USED = re.compile(r"Used (\d+) registers")
# run<Kernel>, demangled.
_KERNEL = re.compile(r"run<(.*)>\(")


@dataclass(frozen=True)
class Figure:
    """One kernel on one architecture: registers of a thread, bytes of its stack, bytes spilled."""

    kernel: str
    architecture: str
    registers: int
    stack: int
    spilled: int

    def __str__(self) -> str:
        parts = [f"{self.registers}"]
        if self.stack:
            parts.append(f"stack {self.stack}")
        if self.spilled:
            parts.append(f"spilled {self.spilled}")
        return ", ".join(parts)


def compiled(source: Path, architectures: Sequence[str]) -> str:
    """What ptxas says of a file's kernels."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [
                "nvcc",
                "-std=c++17",
                "--expt-relaxed-constexpr",
                "--fmad=false",
                "--Werror",
                "all-warnings",
                "--threads=2",
                *(f"-I{ROOT / place}" for place in (".", "cpp/src", "cpp/include")),
                *(f"-gencode=arch=compute_{a},code=sm_{a}" for a in architectures),
                "-Xptxas",
                "-v",
                "-c",
                str(source),
                "-o",
                f"{folder}/kernel.o",
            ],
            capture_output=True,
            text=True,
            check=False,
            timeout=TIME_LIMIT_S,
        )
    if done.returncode != 0:
        raise SystemExit(done.stderr)
    # nvcc mixes what the compilations of several architectures say, but never within one.
    names = subprocess.run(
        ["c++filt"], input=done.stderr, capture_output=True, text=True, check=True, timeout=60
    )
    return names.stdout


def figures_of(text: str) -> Iterator[Figure]:
    kernel, architecture, stack, spilled = "", "", 0, 0
    for line in text.splitlines():
        if entry := _ENTRY.search(line):
            found = _KERNEL.search(entry[1])
            kernel = found[1] if found else entry[1]
            for part in ("textnlp_fast::", "(anonymous namespace)::", "simt::", "device::"):
                kernel = kernel.replace(part, "")
            architecture = entry[2]
        elif found := _STACK.search(line):
            stack, spilled = int(found[1]), int(found[2]) + int(found[3])
        elif found := _USED.search(line):
            yield Figure(kernel.strip(), architecture, int(found[1]), stack, spilled)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--arch", nargs="*", default=ARCHITECTURES)
    parser.add_argument("--print", action="store_true", dest="only_print")
    arguments = parser.parse_args()
    by_kernel: dict[str, dict[str, Figure]] = {}
    for source in sorted((ROOT / "cuda").glob("*.cu")):
        for figure in figures_of(compiled(source, arguments.arch)):
            by_kernel.setdefault(f"`{source.name}` {figure.kernel}", {})[figure.architecture] = figure
    lines = [
        "| kernel | " + " | ".join(f"sm_{a}" for a in arguments.arch) + " |",
        "|---" + "|---:" * len(arguments.arch) + "|",
    ]
    for name, figures in by_kernel.items():
        lines.append(f"| {name} | " + " | ".join(str(figures[a]) for a in arguments.arch) + " |")
    table = "\n".join(lines)
    sys.stdout.write(table + "\n")
    if not arguments.only_print:
        text = DOCUMENT.read_text(encoding="utf-8")
        marks = re.compile(r"(<!-- begin registers -->\n).*?(<!-- end registers -->)", re.DOTALL)
        DOCUMENT.write_text(marks.sub(lambda m: f"{m[1]}\n{table}\n\n{m[2]}", text), encoding="utf-8")


if __name__ == "__main__":
    main()
