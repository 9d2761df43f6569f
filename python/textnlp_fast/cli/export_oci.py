"""`textnlp-fast export-oci`: a version as an OCI image layout."""

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
from textnlp_fast.cli.output import print_json, print_line, progress_bar, show_size

EPILOG = """\b
Examples:
  textnlp-fast export-oci qwen@1.1.0 layout/ --repo weights
  oras cp --from-oci-layout layout:1.1.0 registry.example/models/qwen:1.1.0
"""


@click.command("export-oci", cls=StorageVerb, epilog=EPILOG)
@click.argument("reference", metavar="NAME[@VERSION]")
@click.argument("output", type=click.Path(file_okay=False))
@repository_option
@click.option("--tag", help="What the layout calls it; the version, if not given.")
@tuning_options
@json_option
def command(
    *,
    reference: str,
    output: str,
    repo: str | None,
    tag: str | None,
    threads: int,
    memory_mib: int,
    as_json: bool,
) -> None:
    """Make OUTPUT an OCI image layout with a version in it, as a ModelPack artifact: a layer a file."""
    from textnlp_fast.storage.oci import export_oci  # noqa: PLC0415
    from textnlp_fast.storage.version_manager import parse_reference  # noqa: PLC0415

    parsed = parse_reference(reference)
    repository = open_repository(repo, threads=threads, memory_mib=memory_mib)
    with progress_bar() as progress:
        report = export_oci(repository, parsed.name, parsed.version, output, tag=tag, progress=progress)
    if as_json:
        print_json(asdict(report))
        return
    print_line(
        f"{reference} is {report.tag!r} in {report.path}: {report.layers} layers, "
        f"{show_size(report.total_bytes)}, {report.digest}"
    )
