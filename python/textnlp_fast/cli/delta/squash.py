"""`textnlp-fast delta squash`: make one patch of several."""

from __future__ import annotations

from dataclasses import asdict

import click

from textnlp_fast.cli.arguments import PatchVerb, json_option, tuning_options
from textnlp_fast.cli.output import print_json, print_line, progress_bar, show_ratio, show_size

EPILOG = """\b
Examples:
  textnlp-fast delta squash 1-to-2.tnpatch 2-to-3.tnpatch -o 1-to-3.tnpatch
  textnlp-fast delta squash *.tnpatch -o all.tnpatch --source v1/      (smaller: coded anew)
"""


@click.command("squash", cls=PatchVerb, epilog=EPILOG)
@click.argument("patches", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False))
@click.option("-o", "--output", required=True, type=click.Path(dir_okay=False), help="Where the patch goes.")
@click.option(
    "--source", type=click.Path(exists=True), help="The model that the first patch starts from, to code anew."
)
@tuning_options
@json_option
def command(
    *, patches: tuple[str, ...], output: str, source: str | None, threads: int, memory_mib: int, as_json: bool
) -> None:
    """Make one patch of PATCHES, given in their order: from the first one's source to the last one's target.

    Needs no model. What only the way between needs is dropped; what a later patch is coded against stays.
    """
    from textnlp_fast.delta import squash_patches  # noqa: PLC0415

    with progress_bar() as progress:
        report = squash_patches(
            patches,
            output,
            source=source,
            memory_budget_bytes=memory_mib << 20,
            threads=threads,
            progress=progress,
        )
    if as_json:
        print_json({**asdict(report), "ratio": report.ratio})
        return
    ends = f" from {report.source_version} to {report.target_version}" if report.target_version else ""
    print_line(
        f"made {report.path} of {len(patches)} patches{ends}: {show_size(report.patch_bytes)} "
        f"for {show_size(report.raw_bytes)} ({show_ratio(report.ratio)}), {report.seconds:.2f} s"
    )
