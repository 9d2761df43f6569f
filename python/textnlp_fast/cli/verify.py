"""`textnlp-fast verify`: check that everything is there and unharmed."""

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
from textnlp_fast.cli.output import print_json, print_line, print_table, progress_bar, show_size
from textnlp_fast.errors import CorruptDataError

EPILOG = """\b
Examples:
  textnlp-fast verify --repo s3://my-bucket/models
  textnlp-fast verify my-model@1.0.0 --shallow
Exits with 0 if all is well and with 5 if anything is missing or corrupt.
"""


@click.command("verify", cls=StorageVerb, epilog=EPILOG)
@click.argument("reference", metavar="[NAME[@VERSION]]", required=False)
@repository_option
@click.option("--shallow", is_flag=True, help="Only look whether every object is there in its full size.")
@tuning_options
@json_option
def command(
    *, reference: str | None, repo: str | None, shallow: bool, threads: int, memory_mib: int, as_json: bool
) -> int:
    """Check a version, a model or the whole repository: manifests, objects, and every tensor's digest."""
    from textnlp_fast.storage.version_manager import parse_reference  # noqa: PLC0415

    parsed = parse_reference(reference) if reference else None
    repository = open_repository(repo, threads=threads, memory_mib=memory_mib)
    with progress_bar() as progress:
        report = repository.verify(
            parsed.name if parsed else None,
            parsed.version if parsed else None,
            deep=not shallow,
            progress=progress,
        )
    code = 0 if report.ok else CorruptDataError.exit_code
    if as_json:
        print_json({**asdict(report), "ok": report.ok})
        return code
    if report.problems:
        rows = [[problem.kind, problem.where, problem.detail] for problem in report.problems]
        print_table(["problem", "where", "detail"], rows, left=3)
    depth = f"{report.contents} contents decoded" if report.deep else "nothing decoded"
    verdict = "all is well" if report.ok else f"{len(report.problems)} problems"
    stored = f"{report.objects} objects ({show_size(report.object_bytes)})"
    print_line(f"{report.versions} versions, {stored}, {depth}: {verdict}")
    if report.unreferenced:
        spare = f"{len(report.unreferenced)} objects ({show_size(report.unreferenced_bytes)})"
        print_line(
            f"{spare} belong to no version: left by interrupted pushes or deleted versions; "
            "`textnlp-fast gc` removes them"
        )
    return code
