"""`textnlp-fast import-hub`: publish what the hub's local cache has of a model."""

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
  textnlp-fast import-hub Qwen/Qwen3-0.6B --repo weights
  textnlp-fast import-hub Qwen/Qwen3-0.6B --as qwen@1.0.0 --revision main
"""


@click.command("import-hub", cls=StorageVerb, epilog=EPILOG)
@click.argument("repo_id")
@repository_option
@click.option("--revision", default="main", show_default=True, help="Branch, tag or commit.")
@click.option(
    "--cache-dir", type=click.Path(file_okay=False), help="The cache; else HF_HUB_CACHE or HF_HOME say."
)
@click.option(
    "--as",
    "reference",
    metavar="NAME[@VERSION]",
    help="What to call it; else as on the hub, and the version that comes next.",
)
@tuning_options
@json_option
def command(
    *,
    repo_id: str,
    repo: str | None,
    revision: str,
    cache_dir: str | None,
    reference: str | None,
    threads: int,
    memory_mib: int,
    as_json: bool,
) -> None:
    """Publish the snapshot of REPO_ID that is in the local cache; nothing is downloaded.

    Every file is held against the digest that the hub names it by.
    """
    from textnlp_fast.storage.hub import import_snapshot  # noqa: PLC0415
    from textnlp_fast.storage.version_manager import parse_reference  # noqa: PLC0415

    named = None if reference is None else parse_reference(reference)
    repository = open_repository(repo, create="at push", threads=threads, memory_mib=memory_mib)
    with progress_bar() as progress:
        report = import_snapshot(
            repository,
            repo_id,
            revision=revision,
            cache_dir=cache_dir,
            name=None if named is None else named.name,
            version=None if named is None else named.version,
            progress=progress,
        )
    if as_json:
        print_json(asdict(report))
        return
    if report.push is None or report.push.already_there:
        print_line(f"{report.model}@{report.version} is that commit already")
        return
    print_line(
        f"imported {repo_id} at {report.commit[:12]} as {report.model}@{report.version}: "
        f"{show_size(report.push.raw_bytes)}, {show_size(report.push.stored_bytes)} stored, "
        f"{report.checked_files} files checked"
    )
    if report.unchecked_files:
        print_line(f"{report.unchecked_files} files have no digest for a name; they were taken as they are")
