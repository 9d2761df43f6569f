"""The first journey on real weights: two versions of a model go into a folder, and the second comes back.

`make demo` runs it. It writes to `demo-repository/` and `demo-work/` in the current directory and starts
afresh each time.
"""

from __future__ import annotations

import filecmp
import hashlib
import shutil
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.rule import Rule
from rich.table import Table

from textnlp_fast.storage import DiffRow, PullReport, PushReport, Repository

SAMPLES = Path(__file__).resolve().parent / "models" / "tiny"
REPOSITORY = Path("demo-repository")
WORK = Path("demo-work")
NAME = "tiny-llama"

console = Console(highlight=False)


def megabytes(size_bytes: int) -> str:
    if size_bytes < 100_000:
        return f"{size_bytes / 1e3:,.1f} kB"
    return f"{size_bytes / 1e6:,.2f} MB"


def start_afresh() -> None:
    """Removes what an earlier demo left, and nothing else."""
    if REPOSITORY.exists() and not (REPOSITORY / "repository.json").exists():
        sys.exit(f"{REPOSITORY.absolute()} is there and is not a demo's repository: run this elsewhere")
    for folder in (REPOSITORY, WORK):
        shutil.rmtree(folder, ignore_errors=True)


def push_both(repository: Repository) -> list[PushReport]:
    return [
        repository.push(SAMPLES / "v1", NAME, "1.0.0", message="the end of pre-training"),
        repository.push(SAMPLES / "v2", NAME, "1.1.0", message="100 policy-gradient steps later"),
    ]


def show_pushes(reports: list[PushReport]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("version", "coded against", "raw", "stored", "ratio", "seconds", "GB/s"):
        table.add_column(column, justify="left" if column in ("version", "coded against") else "right")
    for report in reports:
        table.add_row(
            f"{report.model}@{report.version}",
            report.base or "nothing",
            megabytes(report.raw_bytes),
            f"[bold]{megabytes(report.stored_bytes)}[/]",
            f"[green]{report.ratio:.1f}x[/]",
            f"{report.seconds:.3f}",
            f"{report.gigabytes_per_s:.2f}",
        )
    console.print(table)


def show_diff(rows: list[DiffRow]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("tensor", "changed", "mean ULP", "stored", "bits/weight"):
        table.add_column(column, justify="left" if column == "tensor" else "right", no_wrap=True)
    for row in rows:
        name = row.name.removeprefix("model.").removesuffix(".weight")
        if row.changed_fraction is None:
            table.add_row(f"[dim]{name}[/]", f"[dim]{row.status}[/]")
            continue
        table.add_row(
            name,
            f"{100 * row.changed_fraction:.2f} %",
            f"{row.mean_abs_ulp:.3f}",
            megabytes(row.stored_bytes),
            f"{8 * row.stored_bytes / (row.elements or 1):.3f}",
        )
    console.print(table)


def prove_identical(pulled: Path, source: Path) -> bool:
    """Compares every file, byte for byte."""
    identical = True
    for path in sorted(source.iterdir()):
        same = filecmp.cmp(path, pulled / path.name, shallow=False)
        identical &= same
        digest = hashlib.sha256((pulled / path.name).read_bytes()).hexdigest()
        verdict = "[green]identical[/]" if same else "[red]DIFFERENT[/]"
        console.print(f"  {verdict}  sha256 {digest[:32]}…  {path.name}")
    return identical


def show_pull(report: PullReport, what: str) -> None:
    console.print(
        f"  {what}: {megabytes(report.fetched_bytes)} read for {megabytes(report.raw_bytes)} of files, "
        f"{report.seconds:.3f} s"
    )


def main() -> int:
    started = time.monotonic()
    start_afresh()
    repository = Repository.open(REPOSITORY, create=True)

    console.print(Rule("[bold]push[/]  two versions of a small real model into a folder", align="left"))
    show_pushes(push_both(repository))

    console.print()
    console.print(Rule("[bold]diff[/]  what 100 steps of training changed", align="left"))
    show_diff(repository.diff(NAME, "1.0.0", "1.1.0"))

    console.print()
    console.print(Rule("[bold]pull[/]  the second version, as a Hugging Face directory", align="left"))
    show_pull(repository.pull(NAME, "1.1.0", WORK / NAME), "with nothing at hand   ")
    identical = prove_identical(WORK / NAME, SAMPLES / "v2")
    held = repository.pull(NAME, "1.1.0", WORK / "update", have=[SAMPLES / "v1"])
    show_pull(held, "with version 1.0.0 here")
    identical &= filecmp.cmp(
        WORK / "update" / "model.safetensors", SAMPLES / "v2" / "model.safetensors", False
    )

    console.print()
    console.print(Rule("[bold]verify[/]", align="left"))
    report = repository.verify()
    console.print(
        f"  {report.versions} versions, {report.objects} objects, {report.contents} contents decoded: "
        + ("[green]all is well[/]" if report.ok else "[red]damaged[/]")
    )

    console.print()
    if not (identical and report.ok):
        console.print("[red]The demo failed: what came back is not what went in.[/]")
        return 1
    console.print(f"Done in {time.monotonic() - started:.1f} s. The repository is in [bold]{REPOSITORY}/[/],")
    console.print(f"the model in [bold]{WORK / NAME}/[/]. Look around:")
    for command in (f"log {NAME}", f"diff {NAME}@1.0.0 1.1.0", f"show {NAME}@1.1.0 --tensors", "info"):
        place = "" if command == "info" else f" --repo {REPOSITORY}"
        console.print(f"  .venv/bin/textnlp-fast {command}{place}", style="cyan")
    return 0


if __name__ == "__main__":
    sys.exit(main())
