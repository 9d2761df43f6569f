"""`textnlp-fast gpu doctor`: what of drivers, CUDA and packages fits together here, and how to mend the rest."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from textnlp_fast.cli.arguments import json_option
from textnlp_fast.cli.output import print_json
from textnlp_fast.cli.program import printable

if TYPE_CHECKING:
    from rich.console import Console

    from textnlp_fast.gpu.cuda_setup import Report, Verdict

EPILOG = """\b
Examples:
  textnlp-fast gpu doctor
  textnlp-fast gpu doctor --write-env cuda.env && . ./cuda.env
  textnlp-fast gpu doctor --require-gpu --json > report.json

\b
Exit codes: 0 nothing is a problem (warnings and what could not be found out do not count), 1 something is.
"""

_MARKS = {
    "ok": ("ok", "green"),
    "warning": ("warning", "yellow"),
    "problem": ("PROBLEM", "bold red"),
    "unknown": ("unknown", "cyan"),
}
_WIDEST = 100


@click.command("doctor", epilog=EPILOG)
@click.option("--require-gpu", is_flag=True, help="That there is no GPU is a problem.")
@click.option("-v", "--verbose", is_flag=True, help="Show what every verdict rests on, and who says so.")
@click.option(
    "--write-env",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write the environment that fits (CUDA_HOME, PATH, ...) to a file for `. FILE`.",
)
@json_option
def command(*, require_gpu: bool, verbose: bool, write_env: Path | None, as_json: bool) -> int:
    """Look at this machine's GPUs, driver, CUDA and packages, and say what fits and what to do.

    Nothing is changed and no package is imported: the commands that mend something are shown, not run. No rights are
    needed; where root would see more, the report says so.
    """
    from textnlp_fast.gpu.cuda_setup import examine, write_environment  # noqa: PLC0415

    report = examine(require_gpu=require_gpu)
    written = write_environment(report.facts, write_env) if write_env is not None else None
    if as_json:
        print_json(report.to_document())
    else:
        _show(report, verbose=verbose)
        if write_env is not None:
            state = "written" if written else "is as it should be"
            click.echo(
                f"\n{printable(str(write_env))} {state}: use it with `. {printable(_sourced(write_env))}`"
            )
    return 0 if report.healthy else 1


def _sourced(path: Path) -> str:
    """The file as `.` takes it: sh looks for a bare name on PATH."""
    import shlex  # noqa: PLC0415

    return shlex.quote(str(path) if path.is_absolute() or len(path.parts) > 1 else f"./{path}")


def _show(report: Report, *, verbose: bool) -> None:
    from rich.console import Console  # noqa: PLC0415

    width = min(shutil.get_terminal_size().columns, _WIDEST) if sys.stdout.isatty() else _WIDEST
    console = Console(width=width, highlight=False, soft_wrap=False, emoji=False, markup=False)
    distribution, container = report.facts.distribution, report.facts.container.inside
    where = [distribution.name, f"kernel {distribution.kernel or 'not known'}", distribution.architecture]
    if container:
        where.append(f"in a container ({container})")
    console.print(printable(", ".join(where)), style="dim")
    groups = dict.fromkeys(verdict.group for verdict in report.verdicts)
    shown: set[tuple[str, ...]] = set()
    for group in groups:
        console.print()
        console.print(group, style="bold")
        for verdict in report.verdicts:
            if verdict.group == group:
                _show_verdict(console, verdict, shown, verbose=verbose)
    console.print()
    console.print(_ending(report), style="bold green" if report.healthy else "bold red")


def _show_verdict(console: Console, verdict: Verdict, shown: set[tuple[str, ...]], *, verbose: bool) -> None:
    from rich.padding import Padding  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    mark, style = _MARKS[verdict.level.value]
    row = Table.grid(padding=(0, 1))
    row.add_column(width=9, no_wrap=True)
    row.add_column(overflow="fold")
    row.add_row(Text(f"  {mark}", style=style), Text(printable(verdict.summary)))
    console.print(row)
    bad = verdict.level.value != "ok"
    if bad or verbose:
        for line in verdict.evidence:
            console.print(
                Padding(Text(printable(line), style="dim", overflow="fold"), (0, 0, 0, 12), expand=False)
            )
    if verbose and verdict.source:
        source = f"{verdict.rule}: {verdict.source}"
        console.print(
            Padding(Text(printable(source), style="dim italic", overflow="fold"), (0, 0, 0, 12), expand=False)
        )
    if verdict.commands in shown:
        click.echo("            " + click.style("the same commands as above", dim=True))
    else:
        for line in verdict.commands:
            # Not wrapped: a command is copied as a whole.
            click.echo("            " + click.style("$ ", dim=True) + click.style(printable(line), fg="cyan"))
        if verdict.commands:
            shown.add(verdict.commands)


def _ending(report: Report) -> str:
    from textnlp_fast.gpu.cuda_setup import Level  # noqa: PLC0415

    counts = [
        f"{len(found)} {word}{'' if len(found) == 1 else 's'}"
        for level, word in ((Level.PROBLEM, "problem"), (Level.WARNING, "warning"))
        if (found := report.of(level))
    ]
    left = len(report.of(Level.UNKNOWN))
    if left:
        counts.append(f"{left} not known")
    if not counts:
        return "All is well." if report.facts.has_gpu else "All is well, without a GPU."
    start = "No problems" if report.healthy else ""
    return ", ".join(filter(None, [start, *counts])) + "."
