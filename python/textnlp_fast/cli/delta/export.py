"""`textnlp-fast delta export`: write a patch as another project's delta."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from textnlp_fast.cli.arguments import PatchVerb, json_option, threads_option
from textnlp_fast.cli.output import print_json, print_line, progress_bar, show_size

if TYPE_CHECKING:
    from textnlp_fast.delta.interop import Layout

# Known without loading what writes them; a test holds them against that.
LAYOUTS = ("slime", "sparse")
CHECKSUMS = ("xxh3-128", "blake3", "adler32")

EPILOG = """\b
Examples:
  textnlp-fast delta export slime 6-to-7.tnpatch step-6/ -o updates/weight_v000007 --version 7
  textnlp-fast delta export sparse 10-to-11.tnpatch step-10/ -o step-11-delta
Exits with 4 if SOURCE is not the model that the patch starts from.
"""


@click.command("export", cls=PatchVerb, epilog=EPILOG)
@click.argument("layout", type=click.Choice(LAYOUTS), metavar="LAYOUT")
@click.argument("patch", type=click.Path(exists=True, dir_okay=False))
@click.argument("source", type=click.Path(exists=True))
@click.option(
    "-o", "--output", required=True, type=click.Path(), help="The new directory that the delta goes to."
)
@click.option(
    "--version",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Number of the version it leads to.",
)
@click.option(
    "--checksum",
    type=click.Choice(CHECKSUMS),
    help="Checksum of each tensor, for slime.  [default: xxh3-128]",
)
@threads_option
@json_option
def command(
    *,
    layout: Layout,
    patch: str,
    source: str,
    output: str,
    version: int,
    checksum: str | None,
    threads: int,
    as_json: bool,
) -> None:
    """Write what PATCH does to SOURCE as a delta in another layout: slime or sparse.

    These carry new values of tensors that are there already. A patch that adds, removes or reshapes a tensor is
    refused; files that are not tensors are left out, and named.
    """
    from textnlp_fast.delta.interop import write_foreign  # noqa: PLC0415

    with progress_bar() as progress:
        report = write_foreign(
            layout,
            patch,
            source,
            output,
            version=version,
            checksum=checksum,
            threads=threads,
            progress=progress,
        )
    if as_json:
        print_json(asdict(report))
        return
    print_line(
        f"made {report.path}: {show_size(report.foreign_bytes)}, {report.changed_tensors} "
        f"tensor{'s' * (report.changed_tensors != 1)} changed"
    )
    if report.left_out:
        print_line(f"left out, for the layout has no place for them: {', '.join(report.left_out)}")
