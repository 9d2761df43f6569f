"""What the verbs share in printing: tables, JSON, sizes, progress bars."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click
from rich.cells import cell_len
from rich.console import Console

from textnlp_fast.cli.program import printable
from textnlp_fast.cli.waiting import something_is_shown

if TYPE_CHECKING:
    from textnlp_fast.contents.windows import ProgressCallback
    from textnlp_fast.errors import TextnlpFastError
    from textnlp_fast.storage import Progress

__all__ = [
    "complain_of",
    "print_json",
    "print_line",
    "print_table",
    "progress_bar",
    "shorten",
    "show_ratio",
    "show_size",
    "without_empty",
]

_STAGES = {
    "hash": "Hashing",
    "push": "Coding and uploading",
    "pull": "Fetching and decoding",
    "verify": "Verifying",
    "gc": "Deleting",
    "diff": "Comparing",
    "factors": "Looking for adapters",
    "approximate": "Approximating",
    "check": "Checking the promise",
    "create": "Coding",
    "apply": "Decoding",
    "squash": "Copying",
    "upload": "Uploading",
    "download": "Downloading",
    "shard": "Copying",
}
# A bar for something quicker than this would only flicker.
_PATIENCE_S = 0.5
_GAP = "  "
# Columns below which a shortened name would tell nothing.
_SHORTEST_NAME = 24


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
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
    click.echo(text.encode("utf-8", "backslashreplace").decode())  # a file's name may be any bytes


def print_line(text: str) -> None:
    """Prints a line of plain text, control characters spelled out."""
    click.echo(printable(text))


def print_table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1, yields: int | None = None
) -> None:
    """Prints rows under their columns; the first `left` columns are aligned left, the others right.

    On a terminal too narrow for all of it the column `yields` gives way: it is shortened in the middle, or
    gets lines of its own where little would be left of it, above the row for the first column and below it
    for others.
    """
    lines = [list(columns), *([printable(cell) for cell in row] for row in rows)]
    widths = [max(map(cell_len, column)) for column in zip(*lines, strict=True)]
    aside: list[str] = []
    if yields is not None:
        screen = _terminal_width()
        room = screen - sum(widths) + widths[yields] - len(_GAP) * (len(widths) - 1)
        if room < min(widths[yields], _SHORTEST_NAME):
            aside = [shorten(line.pop(yields), screen - len(_GAP)) for line in lines]
            del widths[yields]
            left -= yields < left
        else:
            widths[yields] = min(widths[yields], room)
            for line in lines:
                line[yields] = shorten(line[yields], room)
    for number, line in enumerate(lines):
        text = _GAP.join(
            _padded(cell, size, flush_left=place < left)
            for place, (cell, size) in enumerate(zip(line, widths, strict=True))
        )
        shown = [text]
        if aside:
            shown = [aside[number], _GAP + text] if yields == 0 else [text, _GAP + aside[number]]
        for part in map(str.rstrip, shown):
            if part:
                click.echo(click.style(part, bold=True) if number == 0 else part)


def without_empty(
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, keep: int
) -> tuple[list[str], list[list[str]]]:
    """A table without the columns that say nothing in any row; the first `keep` stay."""
    shown = [place for place in range(len(columns)) if place < keep or any(row[place] for row in rows)]
    return [columns[place] for place in shown], [[row[place] for place in shown] for row in rows]


def complain_of(problems: Mapping[str, TextnlpFastError]) -> int:
    """Says on stderr what could not be read; the exit code for it, that of the first."""
    for what, error in problems.items():
        click.echo(printable(f"{what} cannot be read: {error.args[0]}"), err=True)
    return next((error.exit_code for error in problems.values()), 0)


def shorten(text: str, width: int) -> str:
    """The text in at most `width` columns: the middle of a name that is too long gives way to an ellipsis."""
    if cell_len(text) <= width:
        return text
    if width < 1:
        return ""
    head = (width - 1) // 2
    start, end = text, text
    while cell_len(start) > head:
        start = start[:-1]
    while cell_len(end) > width - 1 - head:
        end = end[1:]
    return f"{start}…{end}"


def _terminal_width() -> int:
    # A file or a pipe gets everything: scripts cut for themselves.
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize


def _padded(text: str, size: int, *, flush_left: bool) -> str:
    space = " " * max(0, size - cell_len(text))
    return text + space if flush_left else space + text


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
            something_is_shown()
            bars.start()
            tasks[progress.stage] = bars.add_task(_STAGES.get(progress.stage, progress.stage))
        bars.update(tasks[progress.stage], completed=progress.done_bytes, total=progress.total_bytes)

    try:
        yield update
    finally:
        bars.stop()


if TYPE_CHECKING:
    Progress_ = Progress
