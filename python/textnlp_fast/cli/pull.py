"""`textnlp-fast pull`: make a directory with a version's files."""

from __future__ import annotations

from dataclasses import asdict

import click

from textnlp_fast.cli.arguments import (
    StorageVerb,
    chosen_prerelease,
    json_option,
    open_repository,
    repository_option,
    tuning_options,
)
from textnlp_fast.cli.output import print_json, print_line, progress_bar, show_size
from textnlp_fast.cli.signing import signature_policy

EPILOG = """\b
Examples:
  textnlp-fast pull my-model@1.0.0 out/ --repo s3://my-bucket/models
  textnlp-fast pull policy new/ --have old/      (the latest version, using what old/ holds)
"""


@click.command("pull", cls=StorageVerb, epilog=EPILOG)
@click.argument("reference", metavar="NAME[@VERSION]")
@click.argument("dest", type=click.Path(file_okay=False))
@repository_option
@click.option(
    "--have",
    multiple=True,
    type=click.Path(exists=True),
    help="A model on this machine to start from; may repeat.",
)
@click.option(
    "--require-signature", is_flag=True, help="Only what is signed: by --public-key, or as settings say."
)
@click.option(
    "--public-key",
    "public_keys",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False),
    help="Key (PEM) that must have signed; of several, one.",
)
@tuning_options
@json_option
def command(
    *,
    reference: str,
    dest: str,
    repo: str | None,
    have: tuple[str, ...],
    require_signature: bool,
    public_keys: tuple[str, ...],
    threads: int,
    memory_mib: int,
    as_json: bool,
) -> None:
    """Make DEST an ordinary model directory with the files of a version, every byte verified.

    Reads only what DEST and the models given by --have do not hold. Each file is replaced in one step,
    after all of them are complete.
    """
    from textnlp_fast.storage.version_manager import parse_reference  # noqa: PLC0415

    parsed = parse_reference(reference)
    repository = open_repository(repo, threads=threads, memory_mib=memory_mib)
    policy = signature_policy(parsed.name, require_signature, public_keys)
    with progress_bar() as progress:
        report = repository.pull(
            parsed.name, parsed.version, dest, have=have, signatures=policy, progress=progress
        )
    if as_json:
        print_json(asdict(report))
        return
    print_line(
        f"pulled {report.model}@{report.version} into {report.path}: {show_size(report.raw_bytes)} in "
        f"{report.files} files, {show_size(report.fetched_bytes)} fetched, every digest verified, "
        f"{report.seconds:.2f} s, {report.gigabytes_per_s:.2f} GB/s"
    )
    note = chosen_prerelease(parsed.version, report.version)
    if note:
        print_line(note)
