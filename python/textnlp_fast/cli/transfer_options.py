"""What `upload` and `download` have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

import click

from textnlp_fast.cli.interrupts import ending_at_once
from textnlp_fast.cli.listening import listening
from textnlp_fast.cli.output import progress_bar, show_size

if TYPE_CHECKING:
    from textnlp_fast.objectstore.transfers import TransferProgress, TransferSettings

__all__ = ["TransferVerb", "shown_moves", "transfer_options", "transfer_settings"]

Command = TypeVar("Command", bound=Callable[..., Any])


class TransferVerb(click.Command):
    """A verb that moves a file; loads what that takes once it is known that no help was asked for."""

    def invoke(self, ctx: click.Context) -> Any:
        with ending_at_once():
            import_module("textnlp_fast.objectstore.transfers")
        with listening():
            return super().invoke(ctx)


def transfer_options(command: Command) -> Command:
    """How to move the file."""
    above_zero = click.FloatRange(0, min_open=True)
    options = (
        click.option(
            "--streams", type=click.IntRange(1, 256), help="Parts at a time; as many as pay if not given."
        ),
        click.option("--part-mib", type=click.IntRange(1, 4096), help="Size of a part; 16 if not given."),
        click.option("--limit-mb", type=above_zero, help="Megabytes a second, at most."),
        click.option("--deadline", type=above_zero, help="Seconds for all of it; what was moved is kept."),
        click.option(
            "--stall",
            type=above_zero,
            default=30.0,
            show_default=True,
            help="Seconds a stream may stand still.",
        ),
        click.option("--discard", is_flag=True, help="Keep nothing to go on with when interrupted."),
    )
    for option in reversed(options):
        command = option(command)
    return command


@contextmanager
def transfer_settings(
    stage: str,
    *,
    streams: int | None,
    part_mib: int | None,
    limit_mb: float | None,
    deadline: float | None,
    stall: float,
    discard: bool,
) -> Iterator[TransferSettings]:
    """The settings that the options mean, with a bar while the block runs."""
    from textnlp_fast.contents.windows import Progress  # noqa: PLC0415
    from textnlp_fast.objectstore.transfers import TransferSettings  # noqa: PLC0415

    with progress_bar() as bar:

        def show(progress: TransferProgress) -> None:
            if bar is not None:
                bar(Progress(stage, progress.done_bytes, progress.total_bytes))

        yield TransferSettings(
            streams=streams,
            part_bytes=None if part_mib is None else part_mib << 20,
            bandwidth_bytes_per_s=None if limit_mb is None else limit_mb * 1e6,
            deadline_s=deadline,
            stall_timeout_s=stall,
            on_cancel="discard" if discard else "keep",
            progress=show,
        )


def shown_moves(size: int, moved: int, resumed: int, retries: int, seconds: float) -> str:
    """What was moved, for people."""
    parts = [show_size(size)]
    if resumed:
        parts.append(f"{show_size(resumed)} of it was there from before")
    if retries:
        parts.append(f"{retries} tries were repeated")
    parts.append(f"{seconds:.2f} s, {moved / max(seconds, 1e-9) / 1e9:.2f} GB/s")
    return ", ".join(parts)
