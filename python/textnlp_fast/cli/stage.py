"""`textnlp-fast stage`: where versions are in their lives."""

from __future__ import annotations

import click

from textnlp_fast.cli.arguments import (
    StorageVerb,
    json_option,
    note_option,
    open_registry,
    repository_option,
    version_reference,
)
from textnlp_fast.cli.changes import print_changes
from textnlp_fast.cli.output import print_json, print_table

EPILOG = """\b
Examples:
  textnlp-fast stage my-model                          (which version is where)
  textnlp-fast stage my-model@1.2.0 staging
  textnlp-fast stage my-model@1.2.0 production --note "passed the evaluation"
"""


@click.command("stage", cls=StorageVerb, epilog=EPILOG)
@click.argument("reference", metavar="NAME[@VERSION]")
@click.argument("stage", required=False)
@repository_option
@note_option
@json_option
def command(*, reference: str, stage: str | None, repo: str | None, note: str, as_json: bool) -> None:
    """Move a version to STAGE, or without STAGE show the stages of a model's versions.

    Which moves there are, and who may make them, the repository's rules say: `textnlp-fast rules show`.
    """
    from textnlp_fast.storage.version_manager import parse_reference  # noqa: PLC0415

    registry = open_registry(repo)
    if stage is not None:
        name, version = version_reference(reference)
        print_changes(registry.move(name, version, stage, note=note), as_json=as_json)
        return
    parsed = parse_reference(reference)
    versions = registry.repository.versions(parsed.name)[::-1]
    if parsed.version is not None:
        versions = [registry.resolve(parsed.name, parsed.version)]
    references = registry.references(parsed.name)
    if as_json:
        print_json({version: references.stage_of(version) for version in versions})
        return
    print_table(
        ["version", "stage"], [[version, references.stage_of(version)] for version in versions], left=2
    )
