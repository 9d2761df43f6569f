"""`textnlp-fast diff`: what changed between two versions."""

from __future__ import annotations

from dataclasses import asdict

import click

from textnlp_fast.cli.arguments import (
    StorageVerb,
    json_option,
    open_repository,
    repository_option,
    tuning_options,
)
from textnlp_fast.cli.output import print_json, print_line, print_table, progress_bar, show_ratio, show_size
from textnlp_fast.storage.compare import DiffRow

EPILOG = """\b
Examples:
  textnlp-fast diff my-model@1.0.0 1.1.0 --repo s3://my-bucket/models
  textnlp-fast diff base@1.0.0 tuned@1.0.0 --all
"""


@click.command("diff", cls=StorageVerb, epilog=EPILOG)
@click.argument("old", metavar="NAME@OLD")
@click.argument("new", metavar="[NAME@]NEW")
@repository_option
@click.option("--all", "show_all", is_flag=True, help="Show unchanged tensors too.")
@tuning_options
@json_option
def command(
    *, old: str, new: str, repo: str | None, show_all: bool, threads: int, memory_mib: int, as_json: bool
) -> None:
    """Show what changed from one version to another, tensor by tensor.

    ULPs are steps between neighbouring representable values; "stored" is what the newer tensor takes in the
    repository.
    """
    from textnlp_fast.cli.arguments import named_version  # noqa: PLC0415

    name, old_version = named_version(old)
    repository = open_repository(repo, threads=threads, memory_mib=memory_mib)
    with progress_bar() as progress:
        rows = repository.diff(name, old_version, new, progress=progress)
    if as_json:
        extra = [{"changed_fraction": row.changed_fraction, "ratio": row.ratio} for row in rows]
        print_json([{**asdict(row), **more} for row, more in zip(rows, extra, strict=True)])
        return
    shown = [row for row in rows if show_all or row.status != "same"]
    print_table(
        ["tensor", "status", "dtype", "changed", "max ULP", "mean ULP", "raw", "stored", "ratio"],
        [_cells(row) for row in shown],
        left=3,
        yields=0,
    )
    print_line(f"{len(rows)} tensors: {_counts(rows)}")


def _cells(row: DiffRow) -> list[str]:
    fraction = row.changed_fraction
    return [
        f"{row.old_name} -> {row.name}" if row.old_name else row.name,
        row.status,
        row.dtype,
        "-" if fraction is None else f"{100 * fraction:.3f} %",
        "-" if row.max_ulp is None else str(row.max_ulp),
        "-" if row.mean_abs_ulp is None else f"{row.mean_abs_ulp:.4g}",
        show_size(row.size),
        show_size(row.stored_bytes) if row.stored_bytes else "-",
        show_ratio(row.ratio),
    ]


def _counts(rows: list[DiffRow]) -> str:
    kinds = ("changed", "added", "removed", "renamed", "same")
    counts = {kind: sum(row.status == kind for row in rows) for kind in kinds}
    return ", ".join(f"{count} {kind}" for kind, count in counts.items() if count) or "none"
