"""What the verbs share in printing: tables, JSON, sizes, progress bars."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from textnlp_fast.cli import printable

if TYPE_CHECKING:
    from textnlp_fast.contents.windows import ProgressCallback
    from textnlp_fast.storage import Progress

__all__ = ["print_json", "print_line", "print_table", "progress_bar", "show_ratio", "show_size"]

_STAGES = {
    "hash": "Hashing",
    "push": "Coding and uploading",
    "pull": "Fetching and decoding",
    "verify": "Verifying",
    "diff": "Comparing",
    "create": "Coding",
    "apply": "Decoding",
    "squash": "Copying",
}
# A bar for something quicker than this would only flicker.
_PATIENCE_S = 0.5


def show_size(size_bytes: float) -> str:
    """Bytes for people: powers of ten, as disks and networks are sold."""
    for unit in ("B", "kB", "MB", "GB"):
        if size_bytes < 1000:
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.2f} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.2f} TB"


def show_ratio(ratio: float | None) -> str:
    """A size ratio for people."""
    if ratio is None or ratio == float("inf"):
        return "-"
    return f"{ratio:.2f}x" if ratio < 100 else f"{ratio:.0f}x"


def print_json(document: Any) -> None:
    """Prints a document for scripts."""
    click.echo(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False))


def print_line(text: str) -> None:
    """Prints a line of plain text, control characters spelled out."""
    click.echo(printable(text))


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> None:
    """Prints rows under their columns; the first `left` columns are aligned left, the others right."""
    table = Table(title=title or None, title_justify="left", header_style="bold", box=None, pad_edge=False)
    for number, name in enumerate(columns):
        table.add_column(name, justify="left" if number < left else "right", overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))  # a Text has no markup that a name could use
    console = Console(highlight=False, soft_wrap=not sys.stdout.isatty())
    if not sys.stdout.isatty():
        console.width = 200
    console.print(table)


@contextmanager
def progress_bar() -> Iterator[ProgressCallback | None]:
    """A callback that draws a bar on stderr for a stage that takes its time; None if nobody watches."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.progress import (  # noqa: PLC0415
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    bars = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    started = time.monotonic()
    tasks: dict[str, Any] = {}

    def update(progress: Progress_) -> None:
        if not tasks and time.monotonic() - started < _PATIENCE_S:
            return
        if progress.stage not in tasks:
            bars.start()
            tasks[progress.stage] = bars.add_task(_STAGES.get(progress.stage, progress.stage))
        bars.update(tasks[progress.stage], completed=progress.done_bytes, total=progress.total_bytes)

    try:
        yield update
    finally:
        bars.stop()


if TYPE_CHECKING:
    Progress_ = Progress
