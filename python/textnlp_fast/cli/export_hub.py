"""`textnlp-fast export-hub`: write a version into the hub's local cache."""

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
from textnlp_fast.cli.output import print_json, print_line, progress_bar

EPILOG = """\b
Examples:
  textnlp-fast export-hub qwen@1.1.0 my-org/qwen --repo weights
"""


@click.command("export-hub", cls=StorageVerb, epilog=EPILOG)
@click.argument("reference", metavar="NAME[@VERSION]")
@click.argument("repo_id")
@repository_option
@click.option("--revision", default="main", show_default=True, help="The branch or tag that will lead to it.")
@click.option(
    "--cache-dir", type=click.Path(file_okay=False), help="The cache; else HF_HUB_CACHE or HF_HOME say."
)
@tuning_options
@json_option
def command(
    *,
    reference: str,
    repo_id: str,
    repo: str | None,
    revision: str,
    cache_dir: str | None,
    threads: int,
    memory_mib: int,
    as_json: bool,
) -> None:
    """Write a version into the local cache as REPO_ID, where Hugging Face's tools find it offline.

    A revision that leads to a commit from elsewhere is left alone.
    """
    from textnlp_fast.storage.hub import export_snapshot  # noqa: PLC0415
    from textnlp_fast.storage.version_manager import parse_reference  # noqa: PLC0415

    parsed = parse_reference(reference)
    repository = open_repository(repo, threads=threads, memory_mib=memory_mib)
    with progress_bar() as progress:
        report = export_snapshot(
            repository,
            parsed.name,
            parsed.version,
            repo_id,
            revision=revision,
            cache_dir=cache_dir,
            progress=progress,
        )
    if as_json:
        print_json(asdict(report))
        return
    print_line(
        f"{repo_id} at {revision!r} is {reference} now: {report.files} files, {report.new_blobs} of them new, "
        f"in {report.path}"
    )
