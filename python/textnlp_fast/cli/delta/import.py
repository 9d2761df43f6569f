"""`textnlp-fast delta import`: make a patch of another project's delta."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from textnlp_fast.cli.arguments import PatchVerb, json_option, tuning_options
from textnlp_fast.cli.output import print_json, print_line, progress_bar, show_ratio, show_size

if TYPE_CHECKING:
    from textnlp_fast.delta.interop import Layout

# Known without loading what reads them; a test holds them against that.
LAYOUTS = ("slime", "sparse")

EPILOG = """\b
Examples:
  textnlp-fast delta import slime updates/weight_v000007/ step-6/ -o 6-to-7.tnpatch
  textnlp-fast delta import sparse deltas/step_000011.safetensors step-10/ -o 10-to-11.tnpatch
Exits with 5 if the delta breaks its layout or a checksum.
"""


@click.command("import", cls=PatchVerb, epilog=EPILOG)
@click.argument("layout", type=click.Choice(LAYOUTS), metavar="LAYOUT")
@click.argument("foreign", type=click.Path(exists=True))
@click.argument("source", type=click.Path(exists=True))
@click.option("-o", "--output", required=True, type=click.Path(dir_okay=False), help="Where the patch goes.")
@click.option("--from", "source_version", metavar="VERSION", help="What SOURCE is called.")
@click.option("--to", "target_version", metavar="VERSION", help="What the delta leads to is called.")
@tuning_options
@json_option
def command(
    *,
    layout: Layout,
    foreign: str,
    source: str,
    output: str,
    source_version: str | None,
    target_version: str | None,
    threads: int,
    memory_mib: int,
    as_json: bool,
) -> None:
    """Make a patch that does to SOURCE what the delta FOREIGN does. LAYOUT is slime or sparse.

    slime is a version's directory of its delta weight sync; sparse a safetensors file of positions and values, as TRL
    writes it. Beside the output there must be room for the new model while this runs.
    """
    from textnlp_fast.delta.interop import read_foreign  # noqa: PLC0415

    with progress_bar() as progress:
        report = read_foreign(
            layout,
            foreign,
            source,
            output,
            source_version=source_version,
            target_version=target_version,
            memory_budget_bytes=memory_mib << 20,
            threads=threads,
            progress=progress,
        )
    if as_json:
        print_json({**asdict(report), "ratio": report.ratio})
        return
    print_line(
        f"made {report.path}: {show_size(report.patch_bytes)} for {show_size(report.raw_bytes)} "
        f"({show_ratio(report.ratio)}), {report.stored_contents} contents stored, {report.held_contents} as they "
        f"were, {report.seconds:.2f} s"
    )
