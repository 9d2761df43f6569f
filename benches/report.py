"""Run every bench, one after the other, and write their tables into docs/benchmarks.md.

Each bench is a process of its own, so that none inherits another's memory or core. A section of the document
lies between ``<!-- begin NAME -->`` and ``<!-- end NAME -->``; nothing outside is touched.

    python benches/report.py                    run all, print, rewrite the document
    python benches/report.py --only size        run one
    python benches/report.py --no-run           use the figures of the last runs in benches/out
    python benches/report.py --check            exit 1 if an acceptance criterion failed
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from measure import OUT_DIRECTORY, Results, cell, read_results

HERE = Path(__file__).parent
DOCUMENT = HERE.parent / "docs" / "benchmarks.md"
# Benches that write benches/out/NAME.json with --json, and benches that are shown as they print themselves.
STRUCTURED = ("size", "layouts", "codec_speed", "low_rank", "approximate", "memory", "load")
PLAIN = ("hash", "chunk")
TIME_LIMIT_S = 1800


def run_bench(name: str, console: Console) -> bool:
    """Run one bench and keep its output in benches/out/NAME.txt; False if it failed."""
    script = HERE / f"{name}.py"
    if not script.exists():
        console.print(f"{name}: {script.name} is not here", style="yellow")
        return False
    OUT_DIRECTORY.mkdir(parents=True, exist_ok=True)
    arguments = ["--json"] if name in STRUCTURED else []
    start = time.perf_counter()
    try:
        done = subprocess.run(
            [sys.executable, str(script), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=TIME_LIMIT_S,
        )
    except subprocess.TimeoutExpired:
        console.print(f"{name}: stopped after {TIME_LIMIT_S} s", style="red")
        return False
    (OUT_DIRECTORY / f"{name}.txt").write_text(done.stdout, encoding="utf-8")
    console.print(done.stdout, highlight=False, markup=False)
    console.print(f"{name}: {time.perf_counter() - start:.0f} s", style="dim")
    return done.returncode == 0


def markdown(results: Results) -> str:
    """One bench's results as the document shows them."""
    facts = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in results.machine.items())
    settings = {name: value for name, value in results.settings.items() if not isinstance(value, dict)}
    parts = [f"Machine: {facts}."]
    if settings:
        shown = (f"{name.replace('_', ' ')} {cell(value)}" for name, value in settings.items())
        parts.append(f"Settings: {', '.join(shown)}.")
    for table in results.tables:
        lines = [
            f"**{table['title']}**",
            "",
            "| " + " | ".join(table["columns"]) + " |",
            "|---" + "|---:" * (len(table["columns"]) - 1) + "|",
            *("| " + " | ".join(cell(value) for value in row) + " |" for row in table["rows"]),
        ]
        parts.append("\n".join(lines))
        if table["note"]:
            parts.append(table["note"])
    parts += results.paragraphs
    if results.verdicts:
        words = {True: "met", False: "**missed**", None: "not measured"}
        lines = ["| criterion | | measured |", "|---|---|---|"]
        for verdict in results.verdicts:
            note = f" ({verdict.note})" if verdict.note else ""
            lines.append(f"| {verdict.criterion} | {words[verdict.passed]} | {verdict.measured}{note} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def section(name: str) -> str | None:
    """The text of one section from the files of the last run; None where there are none."""
    structured, plain = OUT_DIRECTORY / f"{name}.json", OUT_DIRECTORY / f"{name}.txt"
    if name in STRUCTURED and structured.exists():
        return markdown(read_results(structured))
    if name in PLAIN and plain.exists():
        return "```\n" + plain.read_text(encoding="utf-8").strip() + "\n```"
    return None


def replace_section(document: str, name: str, text: str) -> str:
    """``document`` with the lines between the two markers of ``name`` replaced by ``text``."""
    pattern = re.compile(rf"(<!-- begin {name} -->\n).*?(<!-- end {name} -->)", re.DOTALL)
    if not pattern.search(document):
        raise SystemExit(f"{DOCUMENT.name} has no markers for {name}")
    return pattern.sub(lambda match: f"{match[1]}\n{text}\n\n{match[2]}", document)


def failed_criteria(names: Sequence[str]) -> list[str]:
    """Criteria that were measured and missed, in the last run of the structured benches among ``names``."""
    found = []
    for name in names:
        path = OUT_DIRECTORY / f"{name}.json"
        if name in STRUCTURED and path.exists():
            found += [f"{name}: {v.criterion}" for v in read_results(path).verdicts if v.passed is False]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="benches, comma-separated")
    parser.add_argument("--no-run", dest="run", action="store_false")
    parser.add_argument("--no-write", dest="write", action="store_false", help="leave the document as it is")
    parser.add_argument("--check", action="store_true", help="exit 1 if a criterion was missed")
    arguments = parser.parse_args()
    console = Console()
    names = [n for n in (*STRUCTURED, *PLAIN) if not arguments.only or n in arguments.only.split(",")]
    broken = [name for name in names if arguments.run and not run_bench(name, console)]
    if arguments.write:
        document = DOCUMENT.read_text(encoding="utf-8")
        for name in names:
            text = section(name)
            if text is not None and name not in broken:
                document = replace_section(document, name, text)
        DOCUMENT.write_text(document, encoding="utf-8")
        console.print(f"wrote {DOCUMENT}")
    missed = failed_criteria(names)
    for line in missed:
        console.print(f"missed  {line}", style="red", highlight=False)
    for name in broken:
        console.print(f"failed  {name}.py", style="red")
    if arguments.check and (missed or broken):
        sys.exit(1)


if __name__ == "__main__":
    main()
