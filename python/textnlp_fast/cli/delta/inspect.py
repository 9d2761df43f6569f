"""`textnlp-fast delta inspect`: what is in a patch, without its models."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from textnlp_fast.cli.arguments import PatchVerb, json_option
from textnlp_fast.cli.output import print_json, print_line, print_table, show_ratio, show_size

if TYPE_CHECKING:
    from textnlp_fast.delta.inspect import EndSummary, PatchSummary, TensorSummary

EPILOG = """\b
Example:
  textnlp-fast delta inspect changes.tnpatch --all
"""


@click.command("inspect", cls=PatchVerb, epilog=EPILOG)
@click.argument("patch", type=click.Path(exists=True, dir_okay=False))
@click.option("--all", "show_all", is_flag=True, help="Show what is as it was in the source, too.")
@json_option
def command(patch: str, *, show_all: bool, as_json: bool) -> None:
    """Show both ends of PATCH, and how each tensor is made and what that takes.

    A recipe says what a tensor is coded against: "source" is one that did not change, "alone" one without a base.
    Frames are counted by mode.
    """
    from textnlp_fast.delta import inspect_patch  # noqa: PLC0415

    summary = inspect_patch(patch)
    if as_json:
        more = {"patch_bytes": summary.patch_bytes, "bits_per_weight": summary.bits_per_weight}
        print_json({**asdict(summary), **more})
        return
    print_line(f"from      {_end(summary.source)}")
    print_line(f"to        {_end(summary.target)}")
    for key, value in summary.metadata.items():
        print_line(f"          {key}={value}")
    rows = [row for row in summary.tensors if show_all or row.recipe != "source"]
    print_table(
        ["tensor", "recipe", "dtype", "frames", "raw", "stored", "bits/weight"],
        [_cells(row) for row in rows],
        left=4,
        yields=0,
    )
    _print_totals(summary)
    if summary.approximate:
        print_line(
            f"approximate ({summary.approximate}): no weight is off by more than {summary.max_ulp} ULP, "
            f"{100 * summary.dropped_share:.3g} % of the change was dropped (L2)"
        )


def _end(end: EndSummary) -> str:
    return (
        f"{end.version or '-'}  {show_size(end.raw_bytes)} in {end.files} file{'s' * (end.files != 1)}, "
        f"digest {end.digest}"
    )


def _cells(row: TensorSummary) -> list[str]:
    name = row.name or f"({'header' if row.file.endswith('.safetensors') else 'file'} of {row.file})"
    frames = ", ".join(f"{count} {mode}" for mode, count in row.frames.items())
    return [
        name,
        row.recipe,
        row.dtype,
        frames or "-",
        show_size(row.size),
        show_size(row.stored_bytes) if row.stored_bytes else "-",
        "-" if row.bits_per_weight is None else f"{row.bits_per_weight:.4f}",
    ]


def _print_totals(summary: PatchSummary) -> None:
    counts = Counter(row.recipe for row in summary.tensors if row.name)
    kinds = ", ".join(f"{count} {recipe}" for recipe, count in sorted(counts.items())) or "none"
    print_line(f"{sum(counts.values())} tensors: {kinds}")
    if summary.other_contents:
        print_line(
            f"{summary.other_contents} contents ({show_size(summary.other_bytes)}) are there as bases of others"
        )
    bits = "" if summary.bits_per_weight is None else f", {summary.bits_per_weight:.4f} bits per weight"
    ratio = show_ratio(summary.target.raw_bytes / summary.patch_bytes)
    print_line(
        f"{show_size(summary.patch_bytes)} in all ({ratio}{bits}): index {show_size(summary.index_bytes)}, "
        f"payload {show_size(summary.payload_bytes)}; strategy {summary.strategy}"
    )
