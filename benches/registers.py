"""Registers, stack and spills of every CUDA kernel, from the compiler; rewrites the table in docs/cuda.md.

Needs nvcc, no GPU.

    python benches/registers.py                     sm_80, sm_90 and sm_120
    python benches/registers.py --arch 90 --print   one, and only print it
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT = ROOT / "docs" / "cuda.md"
ARCHITECTURES = ("80", "90", "120")
TIME_LIMIT_S = 600

_ENTRY = re.compile(r"Compiling entry function '(\S+)' for 'sm_(\d+)'")
_STACK = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_USED = re.compile(r"Used (\d+) registers")
# run<Kernel>, demangled.
_KERNEL = re.compile(r"run<(.*)>\(")


def compiled(source: Path, architecture: str) -> str:
    """What ptxas says of a file's kernels."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [
                "nvcc",
                "-std=c++17",
                "--expt-relaxed-constexpr",
                "--fmad=false",
                *(f"-I{ROOT / place}" for place in (".", "cpp/src", "cpp/include")),
                f"-arch=sm_{architecture}",
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
    names = subprocess.run(
        ["c++filt"], input=done.stderr, capture_output=True, text=True, check=True, timeout=60
    )
    return names.stdout


def rows_of(text: str) -> list[tuple[str, int, int, int]]:
    """Kernel, registers, bytes of stack, bytes spilled."""
    rows = []
    name, stack, spilled = "", 0, 0
    for line in text.splitlines():
        if "Compiling entry function" in line:
            found = _KERNEL.search(line)
            name = (
                (found[1] if found else line)
                .replace("textnlp_fast::", "")
                .replace("(anonymous namespace)::", "")
            )
            name = re.sub(r"^simt::|device::", "", name)
        elif found := _STACK.search(line):
            stack, spilled = int(found[1]), int(found[2]) + int(found[3])
        elif found := _USED.search(line):
            rows.append((name, int(found[1]), stack, spilled))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--arch", nargs="*", default=ARCHITECTURES)
    parser.add_argument("--print", action="store_true", dest="only_print")
    arguments = parser.parse_args()
    by_kernel: dict[str, dict[str, tuple[int, int, int]]] = {}
    for source in sorted((ROOT / "cuda").glob("*.cu")):
        for architecture in arguments.arch:
            for name, *figures in rows_of(compiled(source, architecture)):
                by_kernel.setdefault(f"`{source.name}` {name}", {})[architecture] = tuple(figures)  # type: ignore[assignment]
    lines = [
        "| kernel | " + " | ".join(f"sm_{a}" for a in arguments.arch) + " |",
        "|---" + "|---:" * len(arguments.arch) + "|",
    ]
    for name, figures in by_kernel.items():
        cells = []
        for architecture in arguments.arch:
            registers, stack, spilled = figures[architecture]
            parts = (
                [f"{registers}"] + [f"stack {stack}"] * (stack > 0) + [f"spilled {spilled}"] * (spilled > 0)
            )
            cells.append(", ".join(parts))
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    table = "\n".join(lines)
    sys.stdout.write(table + "\n")
    if not arguments.only_print:
        text = DOCUMENT.read_text(encoding="utf-8")
        marks = re.compile(r"(<!-- begin registers -->\n).*?(<!-- end registers -->)", re.DOTALL)
        DOCUMENT.write_text(marks.sub(lambda m: f"{m[1]}\n{table}\n\n{m[2]}", text), encoding="utf-8")


if __name__ == "__main__":
    main()
