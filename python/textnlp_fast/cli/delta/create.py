"""`textnlp-fast delta create`: make a patch from one model to another."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from textnlp_fast.cli.arguments import PatchVerb, json_option, notes, tuning_options
from textnlp_fast.cli.output import print_json, print_line, progress_bar, show_ratio, show_size

if TYPE_CHECKING:
    from textnlp_fast.delta.patch import Strategy

# Known without loading what makes patches; a test holds them against that.
STRATEGIES = ("auto", "dense", "sparse", "low_rank")
EFFORTS = ("fast", "default", "max")

EPILOG = """\b
Examples:
  textnlp-fast delta create v1.0.safetensors v1.1.safetensors -o changes.tnpatch
  textnlp-fast delta create old/ new/ -o changes.tnpatch --from 1.0.0 --to 1.1.0
  textnlp-fast delta create base/ merged/ -o changes.tnpatch --adapter lora/
"""


@click.command("create", cls=PatchVerb, epilog=EPILOG)
@click.argument("old", type=click.Path(exists=True))
@click.argument("new", type=click.Path(exists=True))
@click.option("-o", "--output", required=True, type=click.Path(dir_okay=False), help="Where the patch goes.")
@click.option("--from", "source_version", metavar="VERSION", help="What OLD is called.")
@click.option("--to", "target_version", metavar="VERSION", help="What NEW is called.")
@click.option(
    "--strategy",
    type=click.Choice(STRATEGIES),
    default="auto",
    show_default=True,
    help="How changes are looked for; every one of them is exact.",
)
@click.option(
    "--adapter",
    type=click.Path(exists=True, file_okay=False),
    metavar="DIR",
    help="The LoRA adapter (as PEFT saves it) that was merged into NEW.",
)
@click.option(
    "--effort",
    type=click.Choice(EFFORTS),
    default="default",
    show_default=True,
    help="Work that goes into finding merged adapters.",
)
@click.option(
    "--approximate",
    metavar="SPEC",
    help="Make something near NEW instead: max_ulp=2, max_abs=1e-5, top_k=0.01, threshold=1e-4, low_rank=16, "
    "sign_scale.",
)
@click.option(
    "--meta", "metadata", multiple=True, metavar="KEY=VALUE", help="A note in the patch; may repeat."
)
@tuning_options
@json_option
def command(
    *,
    old: str,
    new: str,
    output: str,
    source_version: str | None,
    target_version: str | None,
    strategy: Strategy,
    adapter: str | None,
    effort: str,
    approximate: str | None,
    metadata: tuple[str, ...],
    threads: int,
    memory_mib: int,
    as_json: bool,
) -> None:
    """Make a patch that turns OLD into NEW, bit by bit unless --approximate asks for less.

    Both are safetensors files or Hugging Face directories. Nothing appears at the output before it is complete.
    """
    from textnlp_fast.delta import create_patch  # noqa: PLC0415

    with progress_bar() as progress:
        report = create_patch(
            old,
            new,
            output,
            source_version=source_version,
            target_version=target_version,
            strategy=strategy,
            adapter=adapter,
            effort=effort,
            approximate=approximate,
            metadata=notes(metadata),
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
        f"were, {report.seconds:.2f} s, {report.gigabytes_per_s:.2f} GB/s"
    )
    if report.approximate:
        print_line(
            f"approximate ({report.approximate}): no weight is off by more than {report.max_ulp} ULP, "
            f"{100 * report.dropped_share:.3g} % of the change was dropped (L2)"
        )
    if report.unsearched_matrices:
        print_line(
            f"{report.unsearched_matrices} matrices seem to hold a merged adapter but were too large to look for it: "
            "raise --memory-mib"
        )
